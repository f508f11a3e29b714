"""No test cuts the power, so none waits for the disk: what is written outlives its process without that."""

from __future__ import annotations

import os
import sqlite3

import pytest

from fleetexp.store import engine


def _refuse_closed(fd: int) -> None:
    os.fstat(fd)


def install(patch: pytest.MonkeyPatch) -> None:
    """Let this process's own files and SQLite stores go without; processes that tests start still wait."""
    set_up = engine._set_up_sqlite

    def set_up_and_relax(connection: sqlite3.Connection, wait_seconds: float) -> None:
        set_up(connection, wait_seconds)
        connection.execute("PRAGMA synchronous = OFF")

    patch.setattr(engine, "_set_up_sqlite", set_up_and_relax)
    patch.setattr(os, "fsync", _refuse_closed)
