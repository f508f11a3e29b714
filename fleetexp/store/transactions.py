"""Transactions of one store: one for each call, or one for several calls that belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from fleetexp.errors import StoreError
from fleetexp.store.engine import reading, translated, writing


class Transactions:
    """Opens transactions, or joins the one that is open. Used from one thread at a time.

    `undone` is called when one that writes was not stored: what was learnt inside may never have been.
    """

    def __init__(self, engine: Engine, where: str, undone: Callable[[], None]) -> None:
        self._engine = engine
        self._where = where
        self._undone = undone
        self._open: Connection | None = None
        self._failed: StoreError | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of every read and write inside: all of it is stored at the end, or nothing.

        Once one of them has failed, the others fail with the same error, and so does the end: what failed must not be
        stored in part, even where its error was caught. Inside another `together`, that one's end counts.
        """
        if self._open is not None:
            yield
            return
        with self._new() as connection:
            self._open = connection
            try:
                yield
                if self._failed is not None:
                    raise self._failed
            finally:
                self._open = self._failed = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes, or join the open one. StoreError where it is not stored."""
        if self._open is None:
            with self._new() as connection:
                yield connection
        else:
            with self._joined(self._open) as connection:
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads, or read within the open one. StoreError where it can't."""
        if self._open is None:
            with reading(self._engine, self._where) as connection:
                yield connection
        else:
            with self._joined(self._open) as connection:
                yield connection

    @contextmanager
    def _new(self) -> Iterator[Connection]:
        try:
            with writing(self._engine, self._where) as connection:
                yield connection
        except BaseException:
            self._undone()
            raise

    @contextmanager
    def _joined(self, connection: Connection) -> Iterator[Connection]:
        if self._failed is not None:
            raise self._failed
        try:
            with translated(self._where):
                yield connection
        except StoreError as error:
            self._failed = error
            raise
