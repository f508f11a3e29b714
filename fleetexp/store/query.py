"""Questions from outside, answered read-only: no statement can write, however it is put.

SQLite: the file is opened with mode=ro, query_only, and an authorizer that lets through nothing but reads.
PostgreSQL: a read-only transaction, and the text stands inside DECLARE CURSOR, which takes one SELECT and no more.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from urllib.parse import quote

import psycopg
from psycopg import sql as pgsql

from fleetexp.errors import QueryRefused, StoreError
from fleetexp.store.engine import Database, connect_arguments, parse_url
from fleetexp.store.failures import refused_query, translate
from fleetexp.store.rows import Row
from fleetexp.store.schema import require_file

_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_LOOKS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"})


def query(url: str, sql: str, limit: int) -> tuple[list[str], list[Row]]:
    """Answer one SELECT: the names of the columns, and at most `limit` rows.

    QueryRefused where the SQL is wrong or would write; other StoreErrors where the database can't be read.
    """
    database = parse_url(url)
    require_file(database)
    if not sql.strip():
        raise QueryRefused("the query is empty", database.name, "for example: select * from run_summary")
    return _sqlite(database, sql, limit) if database.is_sqlite else _postgresql(database, sql, limit)


def _sqlite(database: Database, sql: str, limit: int) -> tuple[list[str], list[Row]]:
    try:
        uri = f"file:{quote(str(database.path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_master")  # a file that is none fails here, not in the query
            connection.set_authorizer(_only_reads)
            try:
                cursor = connection.execute(sql)
                rows = cursor.fetchmany(limit)
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise _refused(error, database) from error
            if cursor.description is None:
                raise QueryRefused("that is not a question", database.name, "ask with SELECT; nothing can be changed")
            return [column[0] for column in cursor.description], rows
    except sqlite3.Error as error:
        raise translate(error, database.name) from error


def _only_reads(action: int, first: str | None, second: str | None, *_where: str | None) -> int:
    looking = action == sqlite3.SQLITE_PRAGMA and first in _LOOKS
    return sqlite3.SQLITE_OK if action in _READS or looking else sqlite3.SQLITE_DENY


def _refused(error: Exception, database: Database) -> StoreError:
    if getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY}:
        return QueryRefused(
            "the query would change something", database.name, "the store is only read here: use SELECT"
        )
    return refused_query(error, database.name)


def _postgresql(database: Database, sql: str, limit: int) -> tuple[list[str], list[Row]]:
    conninfo = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    text = sql.strip().rstrip(";")
    try:
        with psycopg.connect(conninfo, **connect_arguments()) as connection:
            connection.read_only = True
            connection.execute("SELECT 1")  # from here on the transaction can't be made to write any more
            try:
                # Prepared: the server takes one statement only. A line comment at the end must not eat what follows.
                declare = pgsql.SQL("DECLARE question NO SCROLL CURSOR FOR ") + pgsql.SQL(text)
                connection.execute(declare, prepare=True)
                cursor = connection.execute(pgsql.SQL("FETCH {} FROM question").format(limit))
            except psycopg.Error as error:
                raise refused_query(error, database.name) from error
            return [column.name for column in cursor.description or ()], cursor.fetchall()
    except psycopg.Error as error:
        raise translate(error, database.name) from error
