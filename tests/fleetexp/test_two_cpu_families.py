"""A fleet whose hosts count different events, or pages of different sizes: stored by host, and never averaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agents.perf.cpu_kind import CpuKind
from agents.perf.tables import find_table
from agents.simulated import MachineFiles
from agents.simulated.files import THP
from analysis.results import Cause, Findings
from fleetexp.reporting.content import report_content
from tests.agents.perf.cpu_files import cpuinfo, pmu_files
from tests.fleetexp.simulated_runs import Ran, run_simulated, spec

pytestmark = pytest.mark.slow  # three whole runs
RATIO = "dtlb_load_misses_per_kilo_instruction"
SPEC = spec(stages="[{share: 100%, hold: 3m}]").replace("primary: throughput", f"primary: {RATIO}")
INTEL = CpuKind(vendor="GenuineIntel", family=6, model=0x8F, stepping=8)  # Sapphire Rapids
OLDER = CpuKind(vendor="GenuineIntel", family=6, model=0x6A, stepping=6)  # Ice Lake-SP
AMD = CpuKind(vendor="AuthenticAMD", family=25, model=0x11, stepping=1)  # Zen 4
HOSTS = [f"sim-{number:04d}" for number in range(1, 25)]
WALKS, BOTH = "DTLB_LOAD_MISSES.WALK_COMPLETED", "loads and stores that missed both levels"


def machine(kind: CpuKind) -> MachineFiles:
    found = find_table(kind)
    assert found is not None
    about = cpuinfo(kind.vendor, kind.family, kind.model, kind.stepping)
    return MachineFiles(shows={"proc/cpuinfo": about, **pmu_files(kind.vendor, "cpu")})


def run(folder: Path, kinds: Mapping[str, CpuKind], text: str = SPEC) -> tuple[Ran, Findings]:
    ran = run_simulated(folder, text, hosts=len(HOSTS), machines={host: machine(kind) for host, kind in kinds.items()})
    with ran.store() as store:
        found = store.findings(ran.outcome.run_id)
    assert found is not None
    return ran, found


def test_two_families_are_taken_apart_and_what_each_host_counted_is_stored(tmp_path: Path) -> None:
    kinds = {host: (INTEL, AMD)[number % 2] for number, host in enumerate(HOSTS)}
    ran, found = run(tmp_path, kinds)
    assert (found.arms[0].cause, found.arms[0].about) == (Cause.MIXED_MEANINGS, (RATIO, WALKS, BOTH))
    rows = {row.metric: row for row in found.estimates if row.headline}
    assert RATIO not in rows
    for meaning in (WALKS, BOTH):
        assert rows[f"{RATIO} ({meaning})"].n_control + rows[f"{RATIO} ({meaning})"].n_treatment == 12
    with ran.store() as store:
        counted = {
            (one.host, one.metric): one for one in store.counted_events(ran.outcome.run_id) if one.scope == "host"
        }
    intel, amd = (counted[host, "dtlb_load_misses"] for host in HOSTS[:2])
    assert (intel.event, intel.encoding, intel.pmu, intel.meaning) == (WALKS, "type=0x4,config=0xe12", "cpu", WALKS)
    assert (amd.event, amd.encoding, amd.meaning) == ("ls_l1_d_tlb_miss.all_l2_miss", "type=0x4,config=0xf045", BOTH)
    assert {one.meaning for (_, metric), one in counted.items() if metric == "instructions"} == {"instructions"}


def test_the_report_says_what_was_counted_and_on_how_many_hosts(tmp_path: Path) -> None:
    ran, _ = run(tmp_path, {host: (INTEL, AMD)[number % 2] for number, host in enumerate(HOSTS)})
    with ran.store() as store:
        content = report_content(store, ran.outcome.run_id)
    (note,) = [note for note in content.notes if note.metric == RATIO]
    assert note.meaning.endswith(f"; counted here: {WALKS} (12 hosts), {BOTH} (12 hosts)")


def test_two_encodings_of_the_same_event_are_one_metric(tmp_path: Path) -> None:
    _, found = run(tmp_path, {host: (INTEL, OLDER)[number % 2] for number, host in enumerate(HOSTS)})
    rows = {row.metric: row for row in found.estimates if row.headline}
    assert rows[RATIO].n_control + rows[RATIO].n_treatment == len(HOSTS)
    assert rows[RATIO].lift is not None
    assert rows[RATIO].lift < -0.1


def test_hosts_of_an_unknown_cpu_are_not_averaged_with_known_ones(tmp_path: Path) -> None:
    _, found = run(tmp_path, dict.fromkeys(HOSTS[:12], AMD))
    assert found.arms[0].cause is Cause.MIXED_MEANINGS
    assert "what the kernel counts as dTLB-load-misses on a CPU without numbers" in found.arms[0].about


def test_pages_of_two_sizes_are_never_averaged(tmp_path: Path) -> None:
    larger = MachineFiles(shows={f"{THP}/hpage_pmd_size": "536870912"})
    text = SPEC.replace(f"primary: {RATIO}", "primary: thp_split_pmd")
    ran = run_simulated(tmp_path, text, hosts=len(HOSTS), machines=dict.fromkeys(HOSTS[:12], larger))
    with ran.store() as store:
        found = store.findings(ran.outcome.run_id)
        notes = report_content(store, ran.outcome.run_id).notes
    assert found is not None
    of_2m, of_512m = "huge pages of 2048 KiB", "huge pages of 524288 KiB"
    assert (found.arms[0].cause, found.arms[0].about) == (Cause.MIXED_MEANINGS, ("thp_split_pmd", of_2m, of_512m))
    rows = {row.metric: row for row in found.estimates if row.headline}
    assert "thp_split_pmd" not in rows
    for size in (of_2m, of_512m):
        assert rows[f"thp_split_pmd ({size})"].n_control + rows[f"thp_split_pmd ({size})"].n_treatment == 12
    (note,) = [note for note in notes if note.metric == "thp_split_pmd"]
    assert note.meaning.endswith(f"; counted here: {of_2m} (12 hosts), {of_512m} (12 hosts)")
