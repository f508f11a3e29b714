"""The process that answers questions: it has limits of memory, of CPU time, and of what it may put into files."""

from __future__ import annotations

import math
import pickle
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path

from fleetexp.errors import QueryRefused, StoreError
from fleetexp.store.read_only.isolated import MESSAGE_AT_MOST
from fleetexp.store.read_only.query import reader
from fleetexp.store.url import Database
from fleetexp.store.values import Row

MEMORY_AT_MOST = 512 << 20  # beyond what the process has when it starts
TEMPORARY_FILE_AT_MOST = 4 << 30  # in which SQLite sorts
_SPARE_SECONDS = 2  # whoever asked ends this process before the kernel does


def main(descriptor: int) -> int:
    """Answer questions until nobody is there to ask: names and kinds, batches of rows, an empty batch; or an error."""
    with Connection(descriptor) as asker:
        asker.send([])  # ready
        handed, timeout_seconds = asker.recv()
        database = Database.taken_over(handed)
        _limit(timeout_seconds)
        try:
            with reader(database, timeout_seconds=timeout_seconds) as opened:
                while True:
                    sql, batch_rows = asker.recv()
                    answer = opened.ask(sql, batch_rows=batch_rows)
                    asker.send((answer.columns, answer.kinds))
                    for rows in answer.batches:
                        _send(asker, rows, database)
                    asker.send([])
        except (EOFError, BrokenPipeError):
            pass
        except MemoryError:
            asker.send(too_large(f"needs more than {MEMORY_AT_MOST >> 20} MiB of memory", database.name))
        except StoreError as error:
            asker.send(error)
        except Exception as error:
            asker.send(QueryRefused(f"unexpected {type(error).__name__}: {error}", database.name, "report it"))
    return 0


def too_large(what: str, where: str) -> QueryRefused:
    """Return what is said of a question whose answer is too large."""
    return QueryRefused(f"the query {what}", where, "name fewer columns, shorter values, or a LIMIT")


def _send(asker: Connection, rows: list[Row], database: Database) -> None:
    message = pickle.dumps(rows, protocol=pickle.HIGHEST_PROTOCOL)
    if len(message) <= MESSAGE_AT_MOST:
        asker.send_bytes(message)
    elif len(rows) == 1:
        raise too_large(f"has rows of more than {MESSAGE_AT_MOST >> 20} MiB", database.name)
    else:
        half = len(rows) // 2
        _send(asker, rows[:half], database)
        _send(asker, rows[half:], database)


def _limit(timeout_seconds: float) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    seconds = math.ceil(time.process_time() + timeout_seconds) + _SPARE_SECONDS
    for kind, most in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_AT_MOST),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, TEMPORARY_FILE_AT_MOST),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
