"""The tables of events: whole, chosen by the host's CPU, and encoded as libpfm4 encodes the same events."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agents.catalogue.table import EVENT_NAMES
from agents.event_text import GENERIC
from agents.perf.cpu_kind import CpuKind
from agents.perf.events import find_events
from agents.perf.events_page import render_events
from agents.perf.tables import EventTable, TableCpu, event_tables, find_table
from agents.sysroot import FolderRoot
from tests.agents.perf.cpu_files import DEVICES, cpuinfo, files_of, pmu_files
from tests.agents.perf.libpfm4 import Libpfm4

Host = Callable[[Mapping[str, str]], FolderRoot]
PAGE = Path(__file__).parents[3] / "docs/EVENTS.md"
CPUS = [pytest.param(table, cpu, id=cpu.name) for table in event_tables() for cpu in table.cpus]
KNOWN = [parameter for parameter in CPUS if parameter.values[1].libpfm4]
NAMES = {table.cpus[0].name: table for table in event_tables()}

_RELOADS = [f"TLB_RELOAD_{size}" for size in ("4K_L2", "COALESCED_PAGE", "2M_L2", "1G_L2")]
_MISSES, _HITS = ([f"{reload}_{what}" for reload in _RELOADS] for what in ("MISS", "HIT"))
# AMD's names -> libpfm4's
_AMD = {
    "l2_dtlb_misses": "L1_DTLB_MISS:" + ":".join(_MISSES),
    "ls_l1_d_tlb_miss.all_l2_miss": "L1_DTLB_MISS:" + ":".join(_MISSES),
    "ls_l1_d_tlb_miss.all": "L1_DTLB_MISS:" + ":".join(_MISSES + _HITS),
    **{f"ls_l1_d_tlb_miss.{name.lower()}": f"L1_DTLB_MISS:{name}" for name in _MISSES + _HITS},
    "bp_l1_tlb_miss_l2_hit": "L1_ITLB_MISS_L2_ITLB_HIT",
    "bp_l1_tlb_miss_l2_tlb_hit": "L1_ITLB_MISS_L2_ITLB_HIT",
    **{
        f"bp_l1_tlb_miss_l2_tlb_miss.{size}": f"L1_ITLB_MISS_L2_ITLB_MISS:{size.upper()}"
        for size in ("if4k", "if2m", "if1g")
    },
}
# What 4.13 lacks: Ice Lake's walks to 1G pages, and AMD's walks of instruction fetches to coalesced pages.
_COALESCED = {"itlb_walks", "itlb_walks_coalesced"}
_NOT_IN_LIBPFM4 = {
    "skx": set(),
    "clx": set(),
    "icx": {"dtlb_load_walks_1g", "dtlb_store_walks_1g"},
    "spr": set(),
    "amd64_fam17h_zen2": _COALESCED,
    "amd64_fam19h_zen3": _COALESCED,
    "amd64_fam19h_zen4": _COALESCED,
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host that shows these files and nothing else."""

    def make(files: Mapping[str, str]) -> FolderRoot:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return FolderRoot(tmp_path)

    return make


@pytest.fixture(scope="module")
def libpfm4() -> Libpfm4:
    try:
        return Libpfm4()
    except OSError as error:
        sentence = f"libpfm4 is not installed ({error}): .ci/system-packages installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)


@pytest.mark.parametrize(("table", "cpu"), KNOWN)
def test_libpfm4_encodes_each_event_the_same(table: EventTable, cpu: TableCpu, libpfm4: Libpfm4, host: Host) -> None:
    """From the numbers in /proc/cpuinfo to the config that perf_event_open is given."""
    root = host(files_of(table, cpu))
    ours = {event.name: (event.event, event.config) for event in find_events(root)[0] if event.pmu}
    assert set(ours) == set(table.events)
    theirs: dict[str, int] = {}
    for metric, (name, _) in ours.items():
        with contextlib.suppress(LookupError):
            said = _AMD.get(name, "") if table.vendor == "AuthenticAMD" else name.replace(".", ":")
            theirs[metric] = libpfm4.config(f"{cpu.libpfm4}::{said}")
    assert {metric: ours[metric][1] for metric in theirs} == theirs
    assert set(ours) - set(theirs) == _NOT_IN_LIBPFM4[cpu.libpfm4] & set(ours)


def test_the_page_of_events_is_current() -> None:
    assert PAGE.read_text() == render_events(), "write it again: see docs/EVENTS.md, its head"


def test_the_kernels_own_events_by_perfs_names_mean_what_libpfm4_says(libpfm4: Libpfm4) -> None:
    known = []
    for name, (_, config) in GENERIC.items():
        with contextlib.suppress(LookupError):
            assert libpfm4.config(f"perf::{name.upper()}") == config, name
            known.append(name)
    assert len(known) >= 30
    assert {"cycles", "page-faults", "dTLB-load-misses", "LLC-stores"} <= set(known)


def test_libpfm4_knows_seven_of_the_cpus(libpfm4: Libpfm4) -> None:
    assert len(KNOWN) == 7
    with pytest.raises(LookupError):
        libpfm4.config("skx::NO_SUCH_EVENT")


@pytest.mark.parametrize(("table", "cpu"), CPUS)
def test_a_cpu_of_a_table_is_found_by_its_numbers(table: EventTable, cpu: TableCpu) -> None:
    for first, last in cpu.models:
        for model, stepping in itertools.product((first, last), cpu.steppings):
            kind = CpuKind(vendor=table.vendor, family=cpu.family, model=model, stepping=stepping)
            found = find_table(kind)
            assert found is not None
            assert found[1].name == cpu.name


def test_no_two_cpus_have_the_same_numbers() -> None:
    for (_, one), (_, other) in itertools.combinations([(t.vendor, c) for t in event_tables() for c in t.cpus], 2):
        same_family = one.family == other.family
        steppings_meet = one.steppings[0] <= other.steppings[1] and other.steppings[0] <= one.steppings[1]
        models_meet = any(a <= d and c <= b for a, b in one.models for c, d in other.models)
        assert not (same_family and steppings_meet and models_meet), (one.name, other.name)


@pytest.mark.parametrize("table", event_tables(), ids=lambda table: table.cpus[0].name)
def test_a_table_is_whole(table: EventTable) -> None:
    assert set(table.events) <= set(EVENT_NAMES)
    assert "dtlb_load_misses" in table.events
    assert all(event.table.endswith(".json") for event in table.events.values())
    assert all(cpu.source for cpu in table.cpus)
    by_terms: dict[str, set[str]] = {}
    for event in table.events.values():
        by_terms.setdefault(event.terms, set()).add(event.event)
    assert all(len(names) == 1 for names in by_terms.values()), "one encoding, one event"


def test_every_metric_of_the_tlb_is_in_some_table() -> None:
    counted = set().union(*(table.events for table in event_tables()))
    assert {name for name in EVENT_NAMES if "tlb" in name} == counted


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (CpuKind(vendor="GenuineIntel", family=6, model=0x55, stepping=4), "Intel Skylake-SP"),
        (CpuKind(vendor="GenuineIntel", family=6, model=0x55, stepping=7), "Intel Cascade Lake, Cooper Lake"),
        (CpuKind(vendor="GenuineIntel", family=6, model=0x6A, stepping=6), "Intel Ice Lake-SP"),
        (CpuKind(vendor="GenuineIntel", family=6, model=0x8F, stepping=8), "Intel Sapphire Rapids"),
        (CpuKind(vendor="AuthenticAMD", family=23, model=0x31, stepping=0), "AMD Zen 2"),  # Rome
        (CpuKind(vendor="AuthenticAMD", family=25, model=0x01, stepping=1), "AMD Zen 3"),  # Milan
        (CpuKind(vendor="AuthenticAMD", family=25, model=0x11, stepping=1), "AMD Zen 4"),  # Genoa
        (CpuKind(vendor="AuthenticAMD", family=25, model=0xA0, stepping=2), "AMD Zen 4"),  # Bergamo
        (CpuKind(vendor="AuthenticAMD", family=26, model=0x02, stepping=1), "AMD Zen 5"),  # Turin
        (CpuKind(vendor="0x41", family=0, model=0xD0C, stepping=0), "Arm Neoverse N1"),
        (CpuKind(vendor="0x41", family=0, model=0xD4F, stepping=0), "Arm Neoverse V2"),
        (CpuKind(vendor="AuthenticAMD", family=23, model=0x01, stepping=2), None),  # Zen 1
        (CpuKind(vendor="GenuineIntel", family=6, model=0x9E, stepping=9), None),  # a desktop
        (CpuKind(vendor="HygonGenuine", family=24, model=0x01, stepping=1), None),
        (CpuKind(vendor="0x48", family=0, model=0xD0C, stepping=0), None),  # another maker's part of the same number
    ],
)
def test_servers_by_their_numbers(kind: CpuKind, name: str | None) -> None:
    found = find_table(kind)
    assert (found[1].name if found else None) == name


def events_and_reasons(root: FolderRoot) -> tuple[dict[str, str], dict[str, str]]:
    found, missing = find_events(root)
    return {event.name: event.event for event in found}, missing


def test_an_unknown_cpu_has_the_generic_events_and_the_reason(host: Host) -> None:
    about = cpuinfo("GenuineIntel", 6, 0x9E, 9)
    found, missing = events_and_reasons(host({"proc/cpuinfo": about, **pmu_files("GenuineIntel", "cpu")}))
    assert (found["dtlb_load_misses"], found["dtlb_store_misses"]) == ("dTLB-load-misses", "dTLB-store-misses")
    assert missing["dtlb_load_walks_1g"] == ("no table of events has this CPU (GenuineIntel family 6 model 0x9e)")
    assert missing["dtlb_walk_cycles"] == missing["dtlb_load_walks_1g"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"proc/cpuinfo": "Features: none\n"}, "gives no family and model"),
        ({"proc/cpuinfo": cpuinfo("GenuineIntel", 6, 0x8F)}, "the kernel has no PMU of Intel Sapphire Rapids"),
        (
            {"proc/cpuinfo": cpuinfo("0x41", 0, 0xD4F, cpus=1) + cpuinfo("0x41", 0, 0xD8E, cpus=1)},
            "CPUs of 2 kinds here",
        ),
        (
            {
                "proc/cpuinfo": cpuinfo("0x41", 0, 0xD4F),
                **pmu_files("0x41", "armv8_pmuv3_0", 8),
                **pmu_files("0x41", "armv8_pmuv3_1", 9),
            },
            "2 PMUs for the cores of Arm Neoverse V2: armv8_pmuv3_0, armv8_pmuv3_1",
        ),
    ],
)
def test_where_no_table_can_be_chosen_the_generic_events_are_counted(
    host: Host, files: dict[str, str], reason: str
) -> None:
    found, missing = events_and_reasons(host(files))
    assert found["dtlb_load_misses"] == "dTLB-load-misses"
    assert reason in missing["dtlb_walks"]


def test_an_event_that_the_cpu_lacks_is_not_replaced_by_a_generic_one(host: Host) -> None:
    zen = NAMES["AMD Zen 3"]
    found, missing = find_events(host(files_of(zen, zen.cpus[0])))
    assert "dtlb_store_misses" not in {event.name for event in found}
    assert missing["dtlb_store_misses"] == "AMD Zen 3 has no such event"
    (loads,) = [event for event in found if event.name == "dtlb_load_misses"]
    assert (loads.config, loads.pmu, loads.counts) == (0xF045, "cpu", "loads and stores that missed both levels")


def test_each_term_goes_where_the_kernel_says(host: Host) -> None:
    zen = NAMES["AMD Zen 5"]
    moved = {**files_of(zen, zen.cpus[0]), f"{DEVICES}/cpu/format/umask": "config1:4-11", f"{DEVICES}/cpu/type": "17"}
    (walks,) = [one for one in find_events(host(moved))[0] if one.name == "dtlb_walks"]
    assert (walks.kind, walks.config, walks.config1, walks.config2) == (17, 0x45, 0xF00, 0)


@pytest.mark.parametrize(
    "place", ["config:0-1", "config9:8-15", "nonsense", "config:x", "config:0-9999999999", "config:-1", "config:15-8"]
)
def test_a_term_that_the_kernel_does_not_take_is_a_reason(host: Host, place: str) -> None:
    zen = NAMES["AMD Zen 5"]
    files = {**files_of(zen, zen.cpus[0]), f"{DEVICES}/cpu/format/umask": place}
    found, missing = events_and_reasons(host(files))
    assert "dtlb_walks" not in found
    assert "PMU cpu does not take umask=0xf0" in missing["dtlb_walks"]
    assert "itlb_l2_hits" in found, "it has no umask"


@pytest.mark.parametrize("number", ["", "x", "-1", "9" * 5000, str(1 << 40)])
def test_a_pmu_without_a_number_that_can_be_is_a_reason(host: Host, number: str) -> None:
    zen = NAMES["AMD Zen 5"]
    found, missing = events_and_reasons(host({**files_of(zen, zen.cpus[0]), f"{DEVICES}/cpu/type": number}))
    assert "dtlb_walks" not in found
    assert missing["dtlb_walks"] == f"PMU cpu has no number (/{DEVICES}/cpu/type)"


@pytest.mark.parametrize("model", ["9" * 5000, "-1", "0x8f", "\u0661", "143 144", ""])
def test_numbers_of_a_cpu_that_no_kernel_gives_choose_no_table(host: Host, model: str) -> None:
    about = cpuinfo("GenuineIntel", 6, 143).replace(": 143", f": {model}")
    _, missing = events_and_reasons(host({"proc/cpuinfo": about, **pmu_files("GenuineIntel", "cpu")}))
    assert "gives no family and model" in missing["dtlb_walks"]
