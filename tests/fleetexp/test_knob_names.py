"""How knobs are named in a spec, against what the agents find on a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.knobs import find_knobs
from agents.sysroot import FolderRoot
from fleetexp.experiment.knob_names import check_knob_name, check_knob_value, pool_of, thp_sizes
from fleetexp.experiment.problem import ValueRefused

THP = "sys/kernel/mm/transparent_hugepage"
FILES = (
    *(f"{THP}/{name}" for name in ("enabled", "defrag", "shmem_enabled", "shrink_underused", "use_zero_page")),
    *(f"{THP}/hugepages-{size}kB/{name}" for size in (16, 1048576) for name in ("enabled", "shmem_enabled")),
    *(f"{THP}/khugepaged/{name}" for name in ("defrag", "max_ptes_none", "alloc_sleep_millisecs")),
    *(f"sys/kernel/mm/hugepages/hugepages-2048kB/{name}" for name in ("nr_hugepages", "nr_overcommit_hugepages")),
    "sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages",
    "proc/sys/vm/compaction_proactiveness",
    "proc/sys/vm/overcommit_ratio",
    "proc/sys/kernel/numa_balancing",
)


def test_every_knob_that_an_agent_can_find_has_a_legal_name(tmp_path: Path) -> None:
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("0\n")
    found = [knob.name for knob in find_knobs(FolderRoot(tmp_path))]
    assert len(found) == len(FILES)
    assert [check_knob_name(name) for name in found] == found


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("thp/2M/enabled", "thp/2048kB/enabled"),
        ("thp/2MiB/enabled", "thp/2048kB/enabled"),
        ("thp/1g/enabled", "thp/1048576kB/enabled"),
        ("/thp/enabled", "thp/enabled"),
        ("thp/2048kB/enable", "thp/2048kB/enabled"),
        ("thp/2048KB/enabled", "thp/2048kB/enabled"),
        ("thp/khugepaged", "thp/khugepaged/defrag"),
        ("hugetlb/1048576kB/nr_hugepage", "hugetlb/1048576kB/nr_hugepages"),
        ("hugetlb/1GiB/nr_hugepages", "hugetlb/1048576kB/nr_hugepages"),
        ("vm.compaction_proactiveness", "sysctl/vm.compaction_proactiveness"),
        ("sysctl/vm/compaction_proactiveness", "sysctl/vm.compaction_proactiveness"),
    ],
)
def test_a_knob_named_otherwise_is_refused_with_the_right_name(name: str, meant: str) -> None:
    with pytest.raises(ValueRefused) as caught:
        check_knob_name(name)
    assert f"did you mean {meant!r}?" in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["", "/", "../enabled", "thp/0kB/enabled", "thp/٢kB/enabled", "sysctl/net.core", "thp/\n"]
)
def test_what_is_no_knob_at_all_is_refused_with_the_forms(name: str) -> None:
    with pytest.raises(ValueRefused) as caught:
        check_knob_name(name)
    assert "sysctl/vm.NAME" in caught.value.remedy


@pytest.mark.parametrize(
    ("value", "told"), [("always", "always"), ("defer+madvise", "defer+madvise"), (0, "0"), (-1, "-1")]
)
def test_values_are_words_or_whole_numbers(value: object, told: str) -> None:
    assert check_knob_value(value) == told


@pytest.mark.parametrize("value", [True, False, None, 1.5, "", " always", "a\nb", "a\x00", "ü", (), {}, "x" * 300])
def test_what_a_knob_can_not_be_told_is_refused(value: object) -> None:
    with pytest.raises(ValueRefused):
        check_knob_value(value)


def test_sizes_are_read_from_names() -> None:
    assert thp_sizes({"thp/2048kB/enabled": "", "thp/64kB/shmem_enabled": "", "thp/enabled": ""}) == (64, 2048)
    assert pool_of("hugetlb/1048576kB/nr_hugepages") == 1048576
    assert pool_of("hugetlb/node0/1048576kB/nr_hugepages") is None
