"""10,000 of each: mutated specs, addresses of stores, kernel log records, journals, leases and notes, spools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.host_tree import build_host
from tests.kernel_log_fuzz import hear, records
from tests.spec_fuzz import addresses, hides_the_password, read_address, read_spec_text, specs, trees
from tests.state_fuzz import SPOOL, Claimed, folder_in_memory, mutated_lines, notes, open_spool, read_notes

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600), pytest.mark.usefixtures("no_log")]
EXAMPLES = 10_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with folder_in_memory(tmp_path_factory) as made:
        yield made


def try_all(strategy: st.SearchStrategy[Any], act: Callable[[Any], object]) -> None:
    """Try so many, and print how many ended how."""
    ended: Counter[object] = Counter()

    @settings(
        max_examples=EXAMPLES,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def check(drawn: Any) -> None:  # noqa: ANN401 - whatever the strategy draws
        ended[act(drawn)] += 1

    check()
    print(f"{ended.total():,} tried: {dict(ended.most_common(8))}")


def test_ten_thousand_specs_are_experiments_or_refused() -> None:
    try_all(specs() | trees(), read_spec_text)


def test_ten_thousand_addresses_are_databases_or_refused() -> None:
    try_all(addresses(), read_address)


def test_ten_thousand_addresses_hide_their_password() -> None:
    try_all(st.data(), lambda data: hides_the_password(data.draw))


def test_ten_thousand_records_of_a_kernel_log_are_events_or_nothing(folder: Path) -> None:
    host = build_host(folder / "kernel")
    try_all(records(), lambda data: hear(host, data) > 0)


def test_ten_thousand_journals_restore_what_they_list_and_nothing_else(folder: Path) -> None:
    (folder / "any").mkdir()
    claimed = Claimed(folder / "any/host")
    try_all(
        mutated_lines(claimed.journal),
        lambda journal: claimed.try_to_restore(
            journal=journal, lease=claimed.lease, note=claimed.note, whole_header=False
        ),
    )


def test_ten_thousand_journals_with_a_whole_header_put_every_knob_back(folder: Path) -> None:
    (folder / "whole").mkdir()
    claimed = Claimed(folder / "whole/host")
    drawn = st.tuples(mutated_lines(claimed.journal, first=1), notes(claimed.lease), notes(claimed.note))
    try_all(
        drawn,
        lambda files: claimed.try_to_restore(journal=files[0], lease=files[1], note=files[2], whole_header=True),
    )


def test_ten_thousand_leases_notes_and_signatures_say_what_can_be(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "signed").mkdir()
    claimed = Claimed(folder / "signed/host")
    bases = (claimed.lease, claimed.note, b" " * 9 + claimed.lock)
    try_all(st.one_of(*map(notes, bases)), lambda data: read_notes(folder / "notes", data))


def test_ten_thousand_spools_give_readings_that_a_store_takes(folder: Path) -> None:
    (folder / "spool").mkdir()
    try_all(mutated_lines(SPOOL) | st.binary(max_size=300), lambda data: open_spool(folder / "spool", data))
