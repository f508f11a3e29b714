"""Users' own packages: used where the host's administrator allowed them, not even imported anywhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.user_package import POINTS, ROOT, WORKLOAD, allow, beside, install

PROBLEM = """
from agents.messages import WorkloadSpec
from agents.workloads.options import parse_options
options, problems = parse_options(WorkloadSpec(kind="ticks", options={"ticks": 5}))
result = [str(options), [problem.remedy for problem in problems]]
"""
COLLECTOR = """
from agents.catalogue.metric import Metric, MetricKind
from agents.collectors.collector import Collector


def metric(name):
    return Metric(name=name, unit="things", kind=MetricKind.GAUGE, source="the user", meaning="things", column=True)


class Source:
    paths = ()

    def collect(self, out):
        out["things"] = 4.0
        out["swap_free_bytes"] = 1.0
        out["pgfault"] = 1.0
        if BROKEN:
            raise RuntimeError("broken")

    def retry(self): ...
    def close(self): ...


BROKEN = False
NAMES = ("things", "pgfault", "memory_used_bytes", "thp_64kB_things")
COLLECTOR = Collector(metrics=tuple(map(metric, NAMES)), open=lambda root, notes: [Source()])
"""
SAMPLED = """
from agents.catalogue import CATALOGUE, describe
from agents.collectors import Collectors
from agents.sysroot import FolderRoot
import sys
collectors = Collectors(FolderRoot({root!r}))
sample = collectors.sample()
result = [sample, collectors.unavailable.get("things", ""), describe("pgfault").source, CATALOGUE["things"].column,
          describe("memory_used_bytes").owner, "thp_64kB_things" in CATALOGUE]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install(tmp_path / "site", "ticker-tools", {"ticker": WORKLOAD}, POINTS)


def test_what_nobody_allowed_is_not_imported_and_the_line_to_add_is_told(site: Path, tmp_path: Path) -> None:
    for allowed in (tmp_path / "nowhere" / "extensions", allow(tmp_path / "etc", "another", "#ticker-tools")):
        options, (remedy,) = beside(site, allowed, PROBLEM)
        assert options == "None"
        assert f"{allowed} does not name ticker-tools" in remedy and "add the line ticker-tools" in remedy
    assert not (site / "imported").exists()


@pytest.mark.parametrize("line", ["ticker-tools", "Ticker_Tools   # reviewed"])
def test_what_the_administrator_allowed_is_used(site: Path, tmp_path: Path, line: str) -> None:
    allowed = allow(tmp_path / "etc", "# what may run here as root", "", line)
    assert beside(site, allowed, PROBLEM) == ["Ticks(ticks=5)", []]


def test_a_spec_its_schema_and_the_catalogue_know_it(site: Path, tmp_path: Path) -> None:
    spec = (
        "{name: t, design: switchback, arms: {control: {}, b: {thp/enabled: never}}, "
        "workload: {ticks: {ticks: 2k}}, metrics: {primary: ticks_counted}}"
    )
    code = f"""
import json
from agents.catalogue import describe
from agents.sysroot import FolderRoot
from agents.workloads.emit import Emit
from agents.workloads.run import run_spec
from fleetexp.experiment import parse_experiment
from fleetexp.experiment.json_schema import experiment_schema
lines = []
spec = parse_experiment({spec!r}).workload_for("control")
run_spec(spec, FolderRoot(), Emit(lines.append))
result = [json.loads(lines[1])["values"], describe("ticks_counted").unit, '"ticks"' in json.dumps(experiment_schema())]
"""
    assert beside(site, allow(tmp_path / "etc", "ticker-tools"), code) == [{"ticks_counted": 2000.0}, "ticks", True]


def test_a_spec_for_what_is_not_allowed_says_what_to_do(site: Path, tmp_path: Path) -> None:
    code = """
from fleetexp.experiment import parse_experiment
from fleetexp.errors import ConfigError
try:
    parse_experiment("{name: t, design: switchback, arms: {control: {}, b: {thp/enabled: never}}, "
                     "workload: {ticks: {}}, metrics: {primary: pgfault}}")
except ConfigError as error:
    result = str(error)
"""
    assert "add the line ticker-tools" in beside(site, tmp_path / "extensions", code)


def test_a_file_that_others_could_have_written_allows_nothing(site: Path, tmp_path: Path) -> None:
    allowed = allow(tmp_path / "etc", "ticker-tools")
    allowed.chmod(0o666)
    options, (remedy,) = beside(site, allowed, PROBLEM)
    assert options == "None" and "other users may write there" in remedy and "chmod go-w" in remedy
    allowed.chmod(0o644)
    allowed.parent.chmod(0o777)
    assert beside(site, allowed, PROBLEM)[0] == "None"
    (tmp_path / "link").symlink_to(allowed)
    allowed.parent.chmod(0o755)
    assert beside(site, tmp_path / "link", PROBLEM)[0] == "None"
    assert not (site / "imported").exists()
    assert beside(site, allowed, PROBLEM)[1] == []


def test_a_package_in_a_folder_that_others_can_write_is_not_used(site: Path, tmp_path: Path) -> None:
    site.chmod(0o777)
    options, (remedy,) = beside(site, allow(tmp_path / "etc", "ticker-tools"), PROBLEM)
    assert options == "None" and str(site) in remedy
    assert not (site / "imported").exists()


def test_a_package_that_can_not_be_imported_is_told_and_nothing_else_suffers(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "ticker-tools", {"ticker": "import nothing_of_the_kind"}, POINTS)
    options, (remedy,) = beside(site, allow(tmp_path / "etc", "ticker-tools"), PROBLEM)
    assert options == "None" and "No module named 'nothing_of_the_kind'" in remedy


def test_a_name_of_ours_is_not_given_away(tmp_path: Path) -> None:
    text = WORKLOAD.replace('name="ticks"', 'name="acquire"').replace("ticks_counted", "acquire_seconds")
    site = install(tmp_path / "site", "ticker-tools", {"ticker": text}, POINTS)
    code = """
from agents.catalogue import describe
from agents.workloads.workload import workloads
result = [workloads()["acquire"].options.__module__, describe("acquire_seconds").unit]
"""
    allowed = allow(tmp_path / "etc", "ticker-tools")
    assert beside(site, allowed, code) == ["agents.workloads.kinds.acquire", "seconds"]


PLACE = """
from agents.metric_sources.place_kind import PlaceKind

ECHO = PlaceKind(
    key="echo", meaning="says itself", example="5", called="text", pattern=".*",
    wrong=lambda at: None, read=lambda at, root, timeout_seconds, cut: at.encode(),
)
"""
READ = """
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.reading import places, read_place
from agents.messages import MetricSource
from agents.sysroot import FolderRoot
from fleetexp.experiment import parse_experiment
from fleetexp.errors import ConfigError
(place,) = places([MetricSource(metric="m", place="echo", at="41")], "host")
read = read_place(place, FolderRoot(), Cancellation())["m"]
try:
    said = parse_experiment("{name: t, design: switchback, arms: {control: {}, b: {thp/enabled: never}}, "
        "metrics: {primary: m, better: {m: decrease}, sources: {m: {echo: '41'}}}}").sources[0].at
except ConfigError as error:
    said = str(error)
result = [getattr(read, "value", None), getattr(read, "what", ""), getattr(read, "remedy", ""), said]
"""


def test_a_place_of_a_source_is_read_where_it_is_allowed_and_told_where_not(tmp_path: Path) -> None:
    points = {"fleetexp.sources": {"echo": "echo_place:ECHO"}}
    site = install(tmp_path / "site", "echo-place", {"echo_place": PLACE}, points)
    assert beside(site, allow(tmp_path / "etc", "echo-place"), READ) == [41.0, "", "", "41"]
    value, what, remedy, said = beside(site, allow(tmp_path / "etc", "# nobody"), READ)
    assert (value, what) == (None, "this host knows no place 'echo'")
    assert "add the line echo-place" in remedy and "add the line echo-place" in said


@pytest.mark.parametrize("broken", [False, True])
def test_a_collector_adds_its_own_metrics_and_a_defect_of_it_costs_only_these(tmp_path: Path, broken: bool) -> None:
    text = COLLECTOR.replace("BROKEN = False", f"BROKEN = {broken}")
    site = install(
        tmp_path / "site", "things", {"things": text}, {"fleetexp.collectors": {"things": "things:COLLECTOR"}}
    )
    (tmp_path / "host/proc").mkdir(parents=True)
    (tmp_path / "host/proc/vmstat").write_text("pgfault 77\n")
    code = SAMPLED.format(root=str(tmp_path / "host"))
    sample, why, source, column, owner, family = beside(site, allow(tmp_path / "etc", "things"), code)
    assert sample == {"pgfault": 77.0} | ({} if broken else {"things": 4.0})
    assert ("RuntimeError('broken')" in why) is broken
    assert (source, column, owner, family) == ("/proc/vmstat pgfault", False, "derived", False)


def test_a_guardian_knows_nothing_that_can_be_added() -> None:
    """It undoes a host whatever anybody installed there: it starts without site packages, and looks for none."""
    code = "import sys; sys.path.append(sys.argv[1]); import agents.guardian; print(*sys.modules)"
    words = [sys.executable, "-I", "-S", "-c", code, str(ROOT)]
    loaded = set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert "agents.knobs.families" in loaded
    for name in ("registry", "extensions", "catalogue", "workloads", "collectors", "feeds"):
        assert f"agents.{name}" not in loaded


def test_options_that_are_declared_otherwise_leave_the_workload_out_and_the_others_in(tmp_path: Path) -> None:
    text = WORKLOAD.replace('count("how many", 3, default=2, least=1)', "2")
    site = install(tmp_path / "site", "ticker-tools", {"ticker": text}, POINTS)
    code = """
from fleetexp.experiment.workload import kinds
result = sorted(kinds())
"""
    known = beside(site, allow(tmp_path / "etc", "ticker-tools"), code)
    assert "ticks" not in known
    assert {"acquire", "command", "page_fault", "pointer_chase", "pressure", "service"} <= set(known)
