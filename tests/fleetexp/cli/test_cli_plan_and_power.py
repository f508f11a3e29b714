"""Before anything runs: what a plan says of a whole fleet, what it can show, and that looking touches nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from agents.messages import HostFacts
from agents.sysroot import FolderRoot
from analysis.aggregate import Summary
from fleetexp.cli.plan_screen import plan_lines
from fleetexp.control.planned_power import lacking_power, planned_power
from fleetexp.domain import PeriodKind, PeriodState
from fleetexp.earlier_runs import with_measures
from fleetexp.exit_codes import ExitCode
from fleetexp.experiment import experiment_to_json, parse_experiment
from fleetexp.experiment.schedule import HostInfo, host_info, make_plan
from fleetexp.store.store import open_store, schema_version
from tests.fleetexp.store.single import end_period, save_observations, start_period
from tests.postgresql_server import Server

CONFIGS = Path(__file__).parents[3] / "configs"
Invoke = Callable[..., Result]
SPEC = """
name: ramp
design: parallel
arms:
  control: {}
  treatment: {thp/2048kB/enabled: always}
stages: [{hosts: 10, hold: 1h}, {share: 100%, hold: 1h}]
periods: {baseline: 10m, washout: 0s, sample_every: 1m}
metrics: {primary: memory_used_bytes, expected: 5.9%}
assignment: {method: complete, strata: [pool]}
"""


def stored_run(url: str, hosts: int = 60, *, cv: float = 0.2, correlation: float = 0.9, fleet: str = "ray") -> None:
    """Store a run whose hosts spread by cv, and are foretold by their baseline with this correlation."""
    spec = parse_experiment(SPEC)
    plan = make_plan(spec, [HostInfo(name=f"web-{n:03}", labels={"pool": f"p{n % 2}"}) for n in range(hosts)])
    draw = np.random.default_rng(3)
    before = draw.normal(size=hosts)
    after = correlation * before + np.sqrt(1 - correlation**2) * draw.normal(size=hosts)
    with contextlib.closing(open_store(url)) as store:
        run_id = store.create_run(
            experiment_name="ramp",
            hypothesis="",
            spec_text=SPEC,
            spec_json=json.loads(experiment_to_json(spec)),
            plan=plan,
            launched_by="tester",
            versions={},
            fleet=fleet,
        )
        began = datetime(2026, 2, 2, tzinfo=UTC)
        for period in store.periods(run_id):
            place = int(period.host.removeprefix("web-"))
            own = before if period.plan.kind is PeriodKind.BASELINE else after
            value = 1e9 * (1 + cv * float(own[place]))
            start_period(store, period.period_id, began, "boot")
            end_period(store, period.period_id, began + timedelta(minutes=10), PeriodState.COMPLETE)
            flat = Summary(n=10, mean=value, variance=1.0, minimum=value, maximum=value, p50=value, p99=value)
            save_observations(store, period.period_id, {"memory_used_bytes": flat})


def pool(make_facts: Callable[..., HostFacts], number: int) -> list[HostFacts]:
    return [make_facts(host=f"web-{n:03}", labels={"pool": f"p{n % 2}"}) for n in range(number)]


# ------------------------------------------------------------------ power
@pytest.mark.slow
def test_power_from_numbers_gives_the_figures_of_the_design_paper(invoke: Invoke) -> None:
    """At a CV of 20 % an effect of 5.9 % needs 181 hosts an arm by the normal law, 182 by the t; 35 and 36 adjusted."""
    command = ("power", "--cv", "20%", "--hosts", "100", "--correlation", ".9", "--effect", "5.9%")
    found = json.loads(invoke(*command, "--json").stdout)
    row = next(row for row in found["needed"] if row["effect"] == pytest.approx(0.059))
    assert (row["unadjusted"], row["adjusted"]) == ([182, 182], [36, 36])
    text = invoke(*command).stdout
    assert "182" in text and "> 100" in text
    assert max(map(len, text.splitlines())) <= 80
    assert found["chance"]["unadjusted"] == pytest.approx(0.55, abs=0.01)


@pytest.mark.slow
def test_power_reads_the_newest_run_and_adjusts_for_its_pre_period(invoke: Invoke, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    stored_run(url, hosts=200)
    (tmp_path / "spec.yaml").write_text(SPEC)
    found = json.loads(invoke("power", "spec.yaml", "--store", url, "--json").stdout)
    assert found["cv"] == pytest.approx(0.2, rel=0.15)
    assert found["correlation"] == pytest.approx(0.9, abs=0.04)
    assert found["run_id"] == 1
    assert found["effect"] == pytest.approx(0.059)
    named = invoke("power", "--metric", "memory_used_bytes", "--store", url)
    assert "run 1 (ramp): 200 hosts" in named.stdout


def test_power_without_data_says_where_to_get_them(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("power", "--metric", "memory_used_bytes")
    assert result.exit_code == ExitCode.ERROR
    assert "no run in the store shows memory_used_bytes" in result.stderr
    assert "--cv" in result.stderr
    assert not list(tmp_path.iterdir())  # no store was made by asking
    for wrong in ([], ["--cv", "0%"], ["--cv", "20"], ["--cv", "20%", "--hosts", "5", "--blocks", "5"]):
        assert invoke("power", *wrong).exit_code == ExitCode.USAGE, wrong
    for option, values in {
        "--correlation": ("1", "-1", "nan"),
        "--alpha": ("0", "60%"),
        "--power": ("1", "4%"),
    }.items():
        for value in values:
            refused = invoke("power", "--cv", "20%", option, value)
            assert (refused.exit_code, option in refused.stderr) == (ExitCode.USAGE, True), (option, value)


def test_power_is_0_where_the_rule_cannot_decide_and_says_why(invoke: Invoke) -> None:
    """The t-test alone would see 20 % on 5 blocks, or on 3 + 3 hosts, with over 99 %."""
    for options, obstacle, why in (
        (("--blocks", "5"), "few_units", "5 blocks of at least 6"),
        (("--hosts", "3"), "few_hosts", "3 + 3 hosts of at least 4 + 4"),
        (("--blocks", "6", "--arms", "3"), "coarse_test", "gets no lower than p = 0.031"),
    ):
        command = ("power", "--cv", "1%", "--effect", "20%", *options)
        found = json.loads(invoke(*command, "--json").stdout)
        row = next(row for row in found["detectable"] if row["units"] == found["units"])
        assert (row["unadjusted"], row["obstacle"]) == (None, obstacle)
        assert found["chance"]["unadjusted"] == 0
        text = invoke(*command).stdout
        assert f"power 0, whatever the effect: cannot decide, {why}" in " ".join(text.split()) or why in text
        assert "power 0, whatever the effect" in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
def test_power_pays_for_arms_looks_and_strata(invoke: Invoke) -> None:
    base = ("power", "--cv", "20%", "--hosts", "20", "--effect", "20%")

    def chance(*options: str) -> float:
        return float(json.loads(invoke(*base, *options, "--json").stdout)["chance"]["unadjusted"])

    alone = chance()
    assert chance("--arms", "3") < alone - 0.05
    assert chance("--strata", "4") < alone - 0.05
    assert chance("--looks", "3") < alone
    text = " ".join(invoke(*base, "--arms", "3", "--looks", "3", "--strata", "2").stdout.split())
    assert "over 2 treatments, at the last of 3 looks; in none of 2 strata harm as large as the gain" in text
    assert invoke("power", "--cv", "5%", "--blocks", "8", "--strata", "2").exit_code == ExitCode.USAGE


# ------------------------------------------------------------------ what a plan can show
@pytest.mark.slow
def test_a_plan_knows_what_it_can_show_from_an_earlier_run_or_says_that_it_assumes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    spec = parse_experiment(SPEC)
    plan = make_plan(spec, [HostInfo(name=f"web-{n:03}", labels={"pool": "p0"}) for n in range(80)])
    guess = planned_power(spec, plan, url)
    assert guess.assumed and "ASSUMED: 20 %" in guess.text and "TOO SMALL TO BE SEEN" in guess.text
    stored_run(url, hosts=200)
    known = planned_power(spec, plan, url)
    assert not known.assumed
    assert known.detectable is not None and guess.detectable is not None
    assert known.detectable < 0.07 < guess.detectable
    refusal = lacking_power(guess)
    assert refusal is not None and "5.9 % is expected: TOO SMALL TO BE SEEN" in refusal.what
    assert "--acknowledge-power" in refusal.remedy


@pytest.mark.slow
def test_a_spread_of_few_hosts_is_told_with_how_much_larger_it_may_be(invoke: Invoke, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    stored_run(url, hosts=8)
    plan = make_plan(
        spec := parse_experiment(SPEC), [HostInfo(name=f"web-{n}", labels={"pool": "p0"}) for n in range(80)]
    )
    said = "(few show it: it may well be 1.4 times as large)"
    assert said in planned_power(spec, plan, url).text
    assert said in " ".join(invoke("power", "--metric", "memory_used_bytes", "--store", url).stdout.split())


@pytest.mark.slow
def test_what_a_rehearsal_or_a_run_without_spread_showed_is_no_spread_of_real_hosts(
    invoke: Invoke, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    spec = parse_experiment(SPEC)
    plan = make_plan(spec, [HostInfo(name=f"web-{n:03}", labels={"pool": "p0"}) for n in range(80)])
    stored_run(url, 16, cv=0.0)
    still = planned_power(spec, plan, url)
    assert still.assumed and "because the mean or the spread in run 1 (ramp): 16 hosts is 0" in still.text
    stored_run(url, 16, cv=0.01, fleet="simulated")
    asked = ("power", "--metric", "memory_used_bytes", "--store", url)
    assert "or its spread is 0" in invoke(*asked).stderr, "a real run goes before a rehearsal"
    assert planned_power(spec, plan, url) == still
    url = f"sqlite:///{tmp_path / 'rehearsed.db'}"
    stored_run(url, 16, cv=0.01, fleet="simulated")
    found = planned_power(spec, plan, url)
    assert found.assumed and found.too_small
    assert "no run on real hosts shows it, run 1 (ramp), SIMULATED" in found.text
    assert not planned_power(spec, plan, url, simulated=True).assumed


@pytest.mark.parametrize(
    ("hosts", "why"),
    [(6, "2 + 4 hosts of at least 4 + 4"), (8, "4 + 4 hosts gets no lower than p = 0.056")],
)
def test_a_plan_that_can_never_be_decided_has_power_0_and_is_refused_where_an_effect_is_expected(
    hosts: int, why: str, tmp_path: Path
) -> None:
    """8 hosts in two pools: the draw within them has 36 outcomes, so that its test never gets below p = .05."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    fleet = [HostInfo(name=f"web-{n:03}", labels={"pool": f"p{n % 2}"}) for n in range(hosts)]
    spec = parse_experiment(SPEC.replace("{hosts: 10", "{hosts: 4").replace("5.9%", "900%"))
    found = planned_power(spec, make_plan(spec, fleet), url)
    assert found.detectable is None and found.chance == 0
    assert "(power 0)" in found.text and why in found.text
    refusal = lacking_power(found)
    assert refusal is not None and "IT CANNOT BE SEEN" in refusal.what
    spec = parse_experiment(SPEC.replace("{hosts: 10", "{hosts: 4").replace(", expected: 5.9%", ""))
    silent = planned_power(spec, make_plan(spec, fleet), url)
    assert "(power 0)" in silent.text
    assert lacking_power(silent) is None


def test_a_plan_counts_its_strata_looks_and_the_coins_of_a_switchback(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    spec = parse_experiment(SPEC)
    pools = [HostInfo(name=f"web-{n:03}", labels={"pool": f"p{n % 2}"}) for n in range(80)]
    found = planned_power(spec, make_plan(spec, pools), url)
    assert "40 + 40 hosts in 2 strata, at the last of 2 looks" in found.text
    demo = (CONFIGS / "thp-2m-demo.yaml").read_text()
    for blocks, order, said in ((5, "pairs", "cannot decide: 5 blocks of at least 6"), (12, "abba", "on 6 blocks;")):
        text = re.sub(r"blocks: \d+", f"blocks: {blocks}", demo.replace("order: pairs", f"order: {order}"))
        spec = parse_experiment(text)
        assert said in planned_power(spec, make_plan(spec, [HostInfo(name="web-000", labels={})]), url).text


def test_a_run_that_will_show_nothing_starts_only_when_that_is_acknowledged(
    invoke: Invoke, host_tree: Callable[..., FolderRoot], tmp_path: Path
) -> None:
    root = host_tree()
    demo = (CONFIGS / "thp-2m-demo.yaml").read_text()
    start = demo.index("primary:")
    spec = tmp_path / "tiny.yaml"
    spec.write_text(f"{demo[:start]}expected: 0.1%\n  {demo[start:]}")
    result = invoke("run", str(spec), "--fleet", "inline", "--root", str(root.root))
    assert result.exit_code == ExitCode.ERROR
    assert "TOO SMALL TO BE SEEN" in result.stderr
    assert not (tmp_path / "fleetexp.db").exists()
    planned = json.loads(invoke("plan", str(spec), "--fleet", "inline", "--root", str(root.root), "--json").stdout)
    assert planned["power"]["too_small"]
    assert planned["power"]["assumed"]


# ------------------------------------------------------------------ a whole fleet on the screen
def test_a_fleet_is_summarised_and_named_whole_when_asked(make_facts: Callable[..., HostFacts]) -> None:
    facts = pool(make_facts, 100)
    facts[7] = replace(facts[7], knobs={**facts[7].knobs, "thp/2048kB/enabled": "always"})
    facts[8] = replace(facts[8], writable_knobs=(), not_writable_because="not root")
    plan = make_plan(parse_experiment(SPEC), [host_info(one) for one in facts])

    def text(*, every_host: bool) -> str:
        lines = plan_lines("ramp", "", plan, facts, columns=80, every_host=every_host, power="little")
        assert max(len(line) for part in lines for line in part.splitlines()) <= 80
        return " ".join(" ".join(lines).split())

    short, whole = text(every_host=False), text(every_host=True)
    assert "reads inherit on 99 hosts, always on 1 host now" in short
    assert "can NOT be written on web-008: not root" in short
    assert "by stage: 1: 5, 2: 50" in short
    assert "by pool: p0: 25 of 50, p1: 25 of 50" in short
    assert "can show little" in short
    assert "web-042: arm" not in short
    counted = [unit for unit in plan.units if (unit.stage, unit.arm, unit.stratum) == (1, "treatment", "p1")]
    assert f"stage 2, treatment, stratum p1: {len(counted)}" in short
    assert all(f"{one.host}: arm" in whole for one in facts)


def test_a_plan_ends_as_the_run_would(invoke: Invoke, host_tree: Callable[..., FolderRoot], tmp_path: Path) -> None:
    root = host_tree()
    spec = tmp_path / "gigantic.yaml"
    spec.write_text((CONFIGS / "thp-2m-demo.yaml").read_text().replace("thp/2048kB", "thp/1048576kB"))
    asked = (str(spec), "--fleet", "inline", "--root", str(root.root))
    planned, ran = invoke("plan", *asked), invoke("run", *asked)
    assert planned.exit_code == ran.exit_code == ExitCode.ERROR
    assert planned.stderr == ran.stderr
    assert "does not have the knob thp/1048576kB/enabled" in ran.stderr
    assert "NOT on this host" in planned.stdout
    found = json.loads(invoke("plan", *asked, "--json").stdout)
    assert "does not have the knob" in found["refusals"][0]["what"]
    assert not (tmp_path / "fleetexp.db").exists()


def test_a_plan_finds_what_the_preflight_of_the_run_would(
    invoke: Invoke, host_tree: Callable[..., FolderRoot], tmp_path: Path
) -> None:
    text = (CONFIGS / "thp-2m-demo.yaml").read_text()
    spec = tmp_path / "spec.yaml"
    spec.write_text(text.replace("thp/2048kB/enabled: always", "thp/2048kB/enabled: sometimes"))
    asked = (str(spec), "--fleet", "inline", "--root", str(host_tree().root))
    planned, ran = invoke("plan", *asked), invoke("run", *asked)
    assert planned.exit_code == ran.exit_code == ExitCode.ERROR
    assert "sometimes" in planned.stderr
    assert "sometimes" in ran.stdout + ran.stderr
    assert planned.stdout.startswith("experiment")


def test_a_plan_for_this_machine_checks_its_workload(invoke: Invoke, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text((CONFIGS / "thp-2m-demo.yaml").read_text().replace("region: 1GiB", "region: 900TiB"))
    planned = invoke("plan", str(spec), "--fleet", "inline")
    assert planned.exit_code == ExitCode.ERROR
    assert "memory" in planned.stderr or "can't be written" in planned.stderr or "knob" in planned.stderr


def test_plan_and_hosts_say_how_many_hosts_each_condition_took_away(invoke: Invoke, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.replace("arms:", 'population: {exclude: ["*-0001"], where: {cpus: "!=3"}}\narms:'))
    asked = ("--fleet", "simulated", "--simulated-hosts", "30")
    assert "left out     1 by exclude" in invoke("plan", str(spec), *asked, "--acknowledge-power").stdout
    listed = invoke("hosts", "--fleet", "simulated", "--spec", str(spec))
    assert "1 of 20 hosts left out: 1 by exclude" in listed.stdout
    found = json.loads(invoke("hosts", "--fleet", "simulated", "--spec", str(spec), "--json").stdout)
    assert found["left_out_by_condition"] == {"exclude": 1}
    assert [host["host"] for host in found["hosts"] if host["left_out"]] == ["sim-0001"]


# ------------------------------------------------------------------ balanced on stored metrics
def test_an_assignment_is_balanced_on_what_an_earlier_run_measured(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    stored_run(url)
    spec = parse_experiment(
        SPEC.replace("method: complete", "method: rerandomise, balance: [memory_used_bytes], accept: 1%")
    )
    hosts = [HostInfo(name=f"web-{n:03}", labels={"pool": f"p{n % 2}"}) for n in range(60)]
    plan = make_plan(spec, with_measures(spec, hosts, url))
    assert plan.assignment.draws > 1
    means = [np.mean([unit.balance[0] for unit in plan.units if unit.arm == arm]) for arm in ("control", "treatment")]
    assert abs(means[0] - means[1]) < 0.02 * 2e8
    with pytest.raises(Exception, match="no earlier run in the store has memory_used_bytes"):
        with_measures(spec, hosts, f"sqlite:///{tmp_path / 'none.db'}")


# ------------------------------------------------------------------ touches nothing
READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
if touch "$1/probe" 2>/dev/null; then echo "the folder can be written"; exit 99; fi
shift
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting read-only needs root")
@pytest.mark.parametrize("log_left", [False, True])
def test_plan_works_where_nothing_can_be_written_at_all(
    host_tree: Callable[..., FolderRoot], tmp_path: Path, log_left: bool
) -> None:
    """Host, store and working folder lie on a mount that the kernel refuses to write to."""
    allowed = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0
    if not allowed:
        pytest.skip("no mount namespaces here")
    root = host_tree()
    stored_run(f"sqlite:///{tmp_path / 'runs.db'}", hosts=8)
    reader = open_store(f"sqlite:///{tmp_path / 'runs.db'}") if log_left else None
    if reader is not None:
        reader.runs()  # its connection keeps the write-ahead log where it is
        assert (tmp_path / "runs.db-wal").exists()
    before = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    store = ["--store", f"sqlite:///{tmp_path / 'runs.db'}"]
    plan = ["plan", str(CONFIGS / "thp-2m-demo.yaml"), "--fleet", "inline", "--root", str(root.root), *store]

    def run(*arguments: str, code: int = 0) -> str:
        inside = [sys.executable, "-B", "-m", "fleetexp", *arguments]
        result = subprocess.run(
            ["unshare", "-m", "bash", "-c", READ_ONLY, "bash", str(tmp_path), *inside],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(CONFIGS.parent)},
        )
        assert result.returncode == code, result.stderr + result.stdout
        return " ".join(result.stdout.split())

    try:
        planned = run(*plan, code=1)  # as a run would: nothing can be written here
        known = run("power", "--metric", "memory_used_bytes", *store)
    finally:
        if reader is not None:
            reader.close()
    assert "reads inherit, and can NOT be written here" in planned
    assert "can show" in planned
    assert "run 1 (ramp): 8 hosts" in known  # the store was really read
    if not log_left:
        assert {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.postgresql
def test_an_empty_database_on_a_server_is_a_store_without_runs(postgresql: Server) -> None:
    url = postgresql.new_database()
    spec = parse_experiment(SPEC)
    hosts = [HostInfo(name=f"web-{n:03}", labels={"pool": f"p{n % 2}"}) for n in range(20)]
    assert with_measures(spec, hosts, url) == hosts
    assert "ASSUMED" in planned_power(spec, make_plan(spec, hosts), url).text
    assert schema_version(url) is None, "looking made the schema"
