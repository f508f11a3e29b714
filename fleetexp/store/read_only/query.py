"""Questions in SQL, answered read-only: no statement can write, however it is put.

What keeps them from writing is the database: `read_only_sqlite` and `read_only_postgresql` say how. Answers come in
batches out of one state of the database, so that a large one needs no more memory than a small one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from fleetexp.errors import QueryRefused
from fleetexp.store.read_only.answer import TIMEOUT_SECONDS, BatchReader, QueryResult
from fleetexp.store.read_only.postgresql import open_postgresql
from fleetexp.store.read_only.sqlite import open_sqlite
from fleetexp.store.sqlite_file import require_readable
from fleetexp.store.url import StoreUrl, parse_url
from fleetexp.store.values import Row

_LONGEST_QUERY = 1_000_000

__all__ = ["TIMEOUT_SECONDS", "BatchReader", "QueryResult", "query", "reader"]


@contextmanager
def reader(url: StoreUrl, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[BatchReader]:
    """Open a store for questions: all of them see the same state of it.

    Each may take `timeout_seconds` until its last row was fetched, for as long as the database hears an interrupt;
    `isolated_reader` waits for nothing.
    A StoreError where the database can't be read.
    """
    database = parse_url(url)
    require_readable(database)
    opened = open_sqlite if database.is_sqlite else open_postgresql
    with opened(database, timeout_seconds) as found:
        yield _Checked(found, database.name)


def query(
    url: StoreUrl, sql: str, limit: int, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> tuple[list[str], list[Row]]:
    """Answer one question: the names of the columns, and at most `limit` rows.

    QueryRefused where the SQL is wrong or would write; other StoreErrors where the database can't be read.
    """
    with reader(url, timeout_seconds=timeout_seconds) as opened:
        answer = opened.ask(sql, batch_rows=limit)
        return list(answer.columns), list(islice((row for batch in answer.batches for row in batch), limit))


class _Checked:
    """A reader that refuses what is not a text of SQL at all, the same on every database."""

    def __init__(self, reader: BatchReader, where: str) -> None:
        self._reader = reader
        self._where = where

    def ask(self, sql: str, *, batch_rows: int) -> QueryResult:
        if not sql.strip().rstrip(";").strip():
            raise QueryRefused("the query is empty", self._where, "for example: select * from run_summary")
        try:
            sql.encode()
        except UnicodeEncodeError as error:
            raise QueryRefused("the query is not valid UTF-8", self._where, "type it again") from error
        if len(sql) > _LONGEST_QUERY:
            raise QueryRefused(
                f"the query has more than {_LONGEST_QUERY:,} characters", self._where, "ask in several steps"
            )
        if "\0" in sql:
            raise QueryRefused("the query holds a NUL character", self._where, "leave it out")
        return self._reader.ask(sql, batch_rows=batch_rows)
