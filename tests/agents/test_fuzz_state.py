"""Journals, notes and spools that attack: typed errors, only listed knobs written, and what is whole stays in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.state_fuzz import SPOOL, Claimed, folder_in_memory, mutated_lines, notes, open_spool, read_notes

QUICK = settings(max_examples=500, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def claimed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Claimed]:
    with folder_in_memory(tmp_path_factory) as folder:
        yield Claimed(folder / "host")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with folder_in_memory(tmp_path_factory) as made:
        (made / "spool").mkdir()
        yield made


@QUICK
@given(st.data())
def test_a_mutated_journal_is_understood_or_refused_and_nothing_else_is_written(
    claimed: Claimed, data: st.DataObject
) -> None:
    journal = data.draw(mutated_lines(claimed.journal))
    claimed.try_to_restore(journal=journal, lease=claimed.lease, note=claimed.note, whole_header=False)


@QUICK
@given(st.data())
def test_whatever_follows_a_whole_header_the_knobs_come_back(claimed: Claimed, data: st.DataObject) -> None:
    journal = data.draw(mutated_lines(claimed.journal, first=1))
    lease, note = data.draw(notes(claimed.lease)), data.draw(notes(claimed.note))
    claimed.try_to_restore(journal=journal, lease=lease, note=note, whole_header=True)


@QUICK
@given(st.data())
def test_a_lease_a_note_and_a_signature_say_what_can_be_or_are_refused(
    claimed: Claimed, folder: Path, data: st.DataObject
) -> None:
    bases = (claimed.lease, claimed.note, b" " * 9 + claimed.lock)
    read_notes(folder, data.draw(st.one_of(*map(notes, bases))))


@QUICK
@given(mutated_lines(SPOOL) | st.binary(max_size=300))
def test_a_mutated_spool_gives_readings_that_a_store_takes(folder: Path, data: bytes) -> None:
    open_spool(folder / "spool", data)
