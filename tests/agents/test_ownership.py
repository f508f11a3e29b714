"""Names have owners: whose each is, and who may report a value under it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents.catalogue import CATALOGUE, DERIVED, FOR_A_SERVICE, PATTERNS, Owner, find_foreign, owner_of
from agents.collectors import Collectors
from agents.messages import WorkloadSpec
from agents.sysroot import FolderRoot
from agents.workloads import metric_names

OWN = ("pointer_chase", "page_fault", "acquire")
FAMILIES = [pattern.example for pattern in PATTERNS]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("oom_kills", Owner.KERNEL),
        ("psi_memory_some_seconds", Owner.KERNEL),
        ("cgroup_memory_bytes", Owner.KERNEL),
        ("hugetlb_1048576kB_free_pages", Owner.KERNEL),
        ("thp_2048kB_anything_of_a_kernel_to_come", Owner.KERNEL),
        ("cycles", Owner.PERF),
        ("cgroup_cycles", Owner.PERF),
        ("cgroup_cycles_time_running_seconds", Owner.PERF),
        ("memory_used_bytes", Owner.DERIVED),
        ("thp_2048kB_backed_bytes", Owner.DERIVED),
        ("thp_64kB_fallback_share", Owner.DERIVED),
        ("dtlb_load_misses_per_kilo_instruction", Owner.DERIVED),
        ("dtlb_load_misses_coverage", Owner.DERIVED),
        ("agent_cpu_seconds", Owner.FLEETEXP),
        ("agent_of_a_version_to_come", Owner.FLEETEXP),
        ("fleetexp_runs", Owner.FLEETEXP),
        ("access_seconds", Owner.WORKLOAD),
    ],
)
def test_a_name_has_one_owner_in_whatever_letters_it_is_written(name: str, owner: Owner) -> None:
    for written in (name, name.upper(), name.lower(), f" {name}", f"{name} ", f"{name}\n"):
        owned = owner_of(written)
        assert owned is not None
        assert (owned.name, owned.owner) == (name, owner)


@pytest.mark.parametrize(
    "name", ["latency", "requests_total", "my_oom_kills", "workb_ench", "line_coverage", "cache_misses", "agents", ""]
)
def test_any_other_name_is_the_users(name: str) -> None:
    assert owner_of(name) is None
    assert find_foreign(name, reporter="command") is None


@pytest.mark.parametrize("reporter", ["", "command", FOR_A_SERVICE, *OWN])
def test_nobody_reports_what_the_host_or_fleetexp_measures(reporter: str) -> None:
    for name in (*CATALOGUE, *DERIVED, *FAMILIES):
        workloads = CATALOGUE[name].reporters if name in CATALOGUE else ()
        assert (find_foreign(name, reporter=reporter) is None) == (reporter in workloads), name


def test_everything_that_a_host_is_sampled_for_is_owned(host_tree: Callable[..., FolderRoot]) -> None:
    collectors = Collectors(host_tree(), cgroup="/web")
    try:
        for name in (*collectors.boundary(), *collectors.sample()):
            assert find_foreign(name, reporter="command") is not None, name
    finally:
        collectors.close()


@pytest.mark.parametrize("kind", OWN)
def test_a_workload_of_ours_reports_names_of_its_own(kind: str) -> None:
    names = [name for name, _, _ in metric_names(WorkloadSpec(kind=kind, options={}))]
    assert names
    for name in names:
        assert find_foreign(name, reporter=kind) is None
        assert find_foreign(name, reporter="command") is not None


def test_a_command_and_a_source_share_the_name_that_is_for_both() -> None:
    for reporter in ("command", FOR_A_SERVICE):
        assert find_foreign("throughput", reporter=reporter) is None
        assert find_foreign("Throughput", reporter=reporter) is not None
    assert find_foreign("throughput", reporter="pointer_chase") is not None


def test_what_a_source_gives_is_no_workloads_to_report() -> None:
    sources = frozenset({"rps", "latency"})
    assert find_foreign("queue", reporter="command", sources=sources) is None
    for written in ("rps", "rPs"):
        owned = find_foreign(written, reporter="command", sources=sources)
        assert owned is not None
        assert (owned.name, owned.owner) == ("rps", Owner.SOURCE)
    assert find_foreign("rps", reporter=FOR_A_SERVICE, sources=sources) is None
    assert find_foreign("rPs", reporter=FOR_A_SERVICE, sources=sources) is not None


def test_an_owner_is_said_in_words() -> None:
    assert str(owner_of("OOM_kills")) == "oom_kills belongs to the host's kernel"
    assert str(owner_of("pages_granted")) == "pages_granted belongs to the workload acquire or page_fault"
