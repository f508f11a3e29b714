"""Journals, notes and spools that attack: typed errors, only listed knobs written, and what is whole stays in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz_examples import draws, quick_and_slow
from tests.state_fuzz import SPOOL, Claimed, folder_in_memory, mutated_lines, notes, open_spool, read_notes


@pytest.fixture(scope="module")
def claimed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Claimed]:
    with folder_in_memory(tmp_path_factory) as folder:
        yield Claimed(folder / "host")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with folder_in_memory(tmp_path_factory) as made:
        (made / "spool").mkdir()
        yield made


@quick_and_slow
def test_a_mutated_journal_is_understood_or_refused_and_nothing_else_is_written(
    claimed: Claimed, examples: int
) -> None:
    @draws(examples)
    @given(mutated_lines(claimed.journal))
    def check(journal: bytes) -> None:
        claimed.try_to_restore(journal=journal, lease=claimed.lease, note=claimed.note, whole_header=False)

    check()


@quick_and_slow
def test_whatever_follows_a_whole_header_the_knobs_come_back(claimed: Claimed, examples: int) -> None:
    @draws(examples)
    @given(mutated_lines(claimed.journal, first=1), notes(claimed.lease), notes(claimed.note))
    def check(journal: bytes, lease: bytes, note: bytes) -> None:
        claimed.try_to_restore(journal=journal, lease=lease, note=note, whole_header=True)

    check()


@quick_and_slow
def test_a_lease_a_note_and_a_signature_say_what_can_be_or_are_refused(
    claimed: Claimed, folder: Path, examples: int
) -> None:
    @draws(examples)
    @given(st.one_of(*map(notes, (claimed.lease, claimed.note, b" " * 9 + claimed.lock))))
    def check(data: bytes) -> None:
        read_notes(folder, data)

    check()


@quick_and_slow
def test_a_mutated_spool_gives_readings_that_a_store_takes(folder: Path, examples: int) -> None:
    @draws(examples)
    @given(mutated_lines(SPOOL) | st.binary(max_size=300))
    def check(data: bytes) -> None:
        open_spool(folder / "spool", data)

    check()
