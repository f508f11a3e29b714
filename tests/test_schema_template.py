"""What tests take their stores from is what the migrations make."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from fleetexp.store.schema import upgrade
from fleetexp.store.store import open_store

PRAGMAS = ("journal_mode", "user_version", "application_id", "auto_vacuum", "page_size", "encoding")


def dump(path: Path) -> list[object]:
    with contextlib.closing(sqlite3.connect(path)) as made:
        return [*made.iterdump(), *(made.execute(f"PRAGMA {name}").fetchall() for name in PRAGMAS)]


def test_a_store_from_the_template_is_one_that_the_migrations_made(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path / 'migrated.db'}")
    open_store(f"sqlite:///{tmp_path / 'taken.db'}").close()
    assert dump(tmp_path / "taken.db") == dump(tmp_path / "migrated.db")
