"""Records of the kernel's log that attack: events of few words, in time, and never an exception."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from agents.sysroot import FolderRoot
from tests.fuzz_examples import draws, quick_and_slow
from tests.host_tree import build_host
from tests.kernel_log_fuzz import hear, records


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> FolderRoot:
    return build_host(tmp_path_factory.mktemp("kernel") / "host")


@quick_and_slow
def test_mutated_records_are_events_of_few_words_or_nothing(host: FolderRoot, examples: int) -> None:
    @draws(examples)
    @given(records())
    def check(data: bytes) -> None:
        hear(host, data)

    check()


def test_a_priority_of_many_digits_is_nobodys(tmp_path: Path) -> None:
    host = build_host(tmp_path / "host")
    assert hear(host, b"9" * 5_000 + b",1,2,-;BUG: unable to handle page fault\n") == 0
    assert hear(host, b"6,1,2,-;BUG: unable to handle page fault\n") == 1
