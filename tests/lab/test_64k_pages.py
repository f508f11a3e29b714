"""On a real arm64 kernel whose huge page is 512 MiB: what the store says is what the kernel counted."""

from __future__ import annotations

import base64
import contextlib
import itertools
import pickle
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from agents.catalogue import DERIVED, derive
from fleetexp.cli.doctor_screen import doctor_lines
from fleetexp.control.observations import observe
from fleetexp.domain import PeriodState
from fleetexp.store.store import Store, open_store, query
from tests.fleetexp.store.rows import NOW, make_plan, new_run
from tests.fleetexp.store.single import end_period, record_host_facts, start_period
from tests.lab.arm_guest import run_in_arm_guest
from tests.lab.guest_64k_pages import LEASE_SECONDS, MARK, PAGES, SIZE, SIZE_KIB

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1000)]

MIB = 1 << 20


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """Boot the guest once with the agent in it; what the script there saw."""
    found = run_in_arm_guest("guest_64k_pages.py", mark=MARK, limit_seconds=900)
    result: dict[str, Any] = pickle.loads(base64.b64decode(found))  # noqa: S301 - of our own guest
    return result


@pytest.fixture(scope="module")
def store_url(seen: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The guest's readings, stored and observed as a run's are; periods 1 and 2."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'lab.db'}"
    with _store(url) as store:
        run_id = new_run(store, make_plan(["h1"]))
        own = [period.period_id for period in store.periods(run_id)][:2]
        assert own == [1, 2]
        record_host_facts(store, run_id, seen["facts"])
        for period_id in own:
            start_period(store, period_id, NOW, seen["facts"].boot_id)
        store.append("h1", seen["readings"])
        for period_id in own:
            end_period(store, period_id, NOW + timedelta(seconds=10), PeriodState.COMPLETE)
        observe(store, own)
    return url


@contextlib.contextmanager
def _store(url: str) -> Iterator[Store]:
    with contextlib.closing(open_store(url)) as store:
        yield store


def test_the_map_of_the_host_is_in_its_own_sizes(seen: dict[str, Any]) -> None:
    facts = seen["facts"]
    assert (facts.architecture, facts.base_page_bytes, facts.thp_pmd_kib) == ("aarch64", 65536, SIZE_KIB)
    lines = doctor_lines(facts, "free", short=False, columns=80)
    text = "\n".join(lines)
    assert "virtual machine" in lines[0], "a guest that boots by device tree is not bare metal"
    assert "pages of 64K" in text
    assert "switchback of 64K against 512M: yes" in text
    assert "hugetlb 1G: no, pools here are of 2M, 512M, 16G" in text


def test_pages_of_512_mib_are_stored_in_their_columns_as_the_kernel_counts_them(
    seen: dict[str, Any], store_url: str
) -> None:
    sql = "select period_id, thp_524288kb_anon_fault_alloc, thp_524288kb_nr_anon from sample order by sequence"
    rows = query(store_url, sql, 999)[1]
    for period_id, given in ((1, 0), (2, PAGES)):
        kernel = seen["periods"][period_id]
        counts = [row[1] for row in rows if row[0] == period_id]
        assert kernel["invalid"] == ""
        assert kernel["during"]["anon_fault_alloc"] - kernel["before"]["anon_fault_alloc"] == given
        assert (counts[0], counts[-1]) == (kernel["before"]["anon_fault_alloc"], kernel["during"]["anon_fault_alloc"])
        assert [row[2] for row in rows if row[0] == period_id][-1] == kernel["during"]["nr_anon"]
        assert kernel["during"]["nr_anon"] - kernel["before"]["nr_anon"] == given
    backed = "select maximum from observation where period_id = 2 and metric = 'thp_524288kB_backed_bytes'"
    kernel = seen["periods"][2]["during"]
    assert query(store_url, backed, 9)[1] == [(float(kernel["nr_anon"] * SIZE),)]
    assert kernel["anon_huge_kib"] == kernel["nr_anon"] * SIZE_KIB


def test_used_memory_rises_by_512_mib_for_each_page_though_more_than_that_leaves_the_free_memory(
    seen: dict[str, Any],
) -> None:
    used = [derive(DERIVED["memory_used_bytes"], sample) for sample in seen["steps"]]
    assert [one["thp_524288kB_nr_anon"] for one in seen["steps"]] == list(range(PAGES + 1))
    rises = [(after - before) / MIB for before, after in itertools.pairwise(used)]
    assert rises == [pytest.approx(512, abs=32)] * PAGES
    available = [one["memory_available_bytes"] for one in seen["steps"]]
    falls = [(before - after) / MIB for before, after in itertools.pairwise(available)]
    assert max(falls) > 900, "this kernel no longer takes such pages two at a time: what is corrected?"


def test_the_memory_of_a_period_is_told_less_the_lists_of_cpus(store_url: str) -> None:
    with _store(store_url) as store:
        samples = {name: one.values for name, one in store.period_readings(2).samples.items()}
    used = samples["memory_total_bytes"] - samples["memory_available_bytes"] - samples["per_cpu_free_bytes"]
    sql = "select mean, maximum from observation where period_id = 2 and metric = 'memory_used_bytes'"
    assert query(store_url, sql, 9)[1] == [(pytest.approx(used.mean()), pytest.approx(used.max()))]
    assert (used.max() - used.min()) / MIB == pytest.approx(PAGES * 512, abs=64)


def test_free_memory_for_huge_pages_is_in_blocks_of_512_mib(store_url: str) -> None:
    with _store(store_url) as store:
        samples = store.period_readings(2).samples
    blocks, free = samples["buddyinfo_order13_free_blocks"].values, samples["free_huge_bytes"].values
    assert free.tolist() == (blocks * SIZE).tolist()
    assert free[-1] < free[0]


def test_settings_are_put_back_by_the_agent_and_by_the_guardian_of_one_that_was_killed(seen: dict[str, Any]) -> None:
    assert [seen["periods"][number]["during"]["switch"] for number in (1, 2)] == [
        "always inherit madvise [never]",
        "[always] inherit madvise never",
    ]
    assert seen["found"] == seen["switch"] == "always [inherit] madvise never"
    assert seen["reverted"]
    killed = seen["killed"]
    assert (killed["held"], killed["switch"]) == ("[always] inherit madvise never", seen["switch"])
    assert killed["seconds"] < 2 * LEASE_SECONDS
    assert killed["claim"] is None
