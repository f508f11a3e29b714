"""Specs: every file that must load, every file that must be refused, and what is made of what they say."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.messages import Arm, WorkloadSpec
from analysis.plan import AssignedUnit, Direction, GuardrailPlan, Role, Rule
from fleetexp.errors import ConfigError
from fleetexp.experiment import (
    Experiment,
    analysis_plan,
    experiment_to_json,
    load_experiment,
    parse_experiment,
    warnings_of,
)
from fleetexp.experiment.document import MAX_BYTES
from tests.cpu_time import no_hang

HERE = Path(__file__).parent
CASES = HERE.parent / "cases" / "config"
CONFIGS = HERE.parent.parent / "configs"
GOOD = sorted(CASES.glob("good/*.yaml"))
BAD = sorted(CASES.glob("bad/*.yaml"))
SHIPPED = sorted(CONFIGS.glob("*.yaml"))

MINIMAL = (CASES / "good" / "minimal.yaml").read_text()


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_experiment(text, "spec.yaml")
    return caught.value


@pytest.mark.parametrize("path", [*GOOD, *SHIPPED], ids=lambda path: path.stem)
def test_a_good_spec_loads_and_its_json_reads_back_the_same(path: Path) -> None:
    experiment = load_experiment(path)
    text = experiment_to_json(experiment)
    assert parse_experiment(text, "json") == experiment
    assert experiment_to_json(parse_experiment(text, "json")) == text
    assert json.loads(text)["name"] == experiment.name
    for arm in experiment.arms:
        experiment.workload_for(arm)
    assert analysis_plan(experiment).metrics[0].role is Role.PRIMARY


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_spec_is_refused_with_place_and_remedy(path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    error = caught.value
    assert re.search(expected, str(error)), f"{error}\n does not say\n{expected}"
    assert error.problems
    assert error.remedy
    for problem in error.problems:
        assert re.match(rf"{re.escape(str(path))}:\d+:\d+ .+ — .+", problem), problem
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.problems) == (str(error), error.problems)


def test_there_are_cases_of_both_kinds_and_the_promised_experiments() -> None:
    assert len(GOOD) > 5
    assert len(BAD) > 50
    assert {"thp-2m-demo", "rfc-table", "thp-1g-pointer-chase", "thp-1g-web"} <= {path.stem for path in SHIPPED}


def test_a_number_where_text_is_meant_is_the_text_that_was_written() -> None:
    text = MINIMAL + (
        "population: {pools: [7, 3.10], exclude: [1e3], where: {sku: '6226'}}\n"
        "assignment: {holdout: 10%, holdout_salt: +5}\nhypothesis: 2026\n"
    )
    experiment = parse_experiment(text, "spec.yaml")
    assert (experiment.population.pools, experiment.population.exclude) == (("7", "3.10"), ("1e3",))
    assert (experiment.holdout_salt, experiment.hypothesis) == ("+5", "2026")
    assert parse_experiment(experiment_to_json(experiment), "json") == experiment
    sources = "{a: {prometheus: 'http://h/m', labels: {code: 200, version: 1.10, le: .5}, unit: 1}}"
    metrics = MINIMAL.replace("metrics: {", f"metrics: {{sources: {sources}, better: {{a: increase}}, ")
    assert dict(parse_experiment(metrics, "spec.yaml").sources[0].labels) == {
        "code": "200",
        "version": "1.10",
        "le": ".5",
    }


@pytest.mark.parametrize("text", ["true", "~", "[1]", "{a: 1}"])
def test_what_is_neither_text_nor_a_number_is_answered_with_what_to_write(text: str) -> None:
    error = refused(f"{MINIMAL}population: {{pools: [{text}]}}\n")
    assert "stands where text is due" in error.what
    assert error.remedy


@pytest.mark.parametrize(("label", "text"), [("rack", ">=3-east"), ("sku", "<6226R"), ("memory", ">=lots")])
def test_an_order_of_what_has_none_is_refused_where_it_stands(label: str, text: str) -> None:
    error = refused(f"{MINIMAL}population: {{where: {{{label}: '{text}'}}}}\n")
    assert f"population.where.{label}" in error.what
    assert parse_experiment(f"{MINIMAL}population: {{where: {{kernel: '>=4.18.0-553.el8_10'}}}}\n", "spec.yaml")


def test_all_problems_are_told_at_once_in_the_order_of_the_text() -> None:
    error = refused(MINIMAL.replace("never", "true").replace("pointer_chase: {}", "pointer_chase: {region: 1GB}"))
    assert len(error.problems) == 2
    assert error.what == "2 problems"
    assert error.problems[0].startswith("spec.yaml:4:13 arms.control.thp/2048kB/enabled: the boolean true")
    assert error.problems[1].startswith("spec.yaml:6:28 workload.pointer_chase.region: '1GB'")
    assert str(error).count("\n") == 2


def test_a_flood_of_problems_is_cut_short() -> None:
    error = refused("".join(f"key{n}: 1\n" for n in range(100)))
    assert len(error.problems) == 104
    assert str(error).count("\n") == 21
    assert str(error).endswith("and 84 more")


def test_one_problem_is_told_in_one_line() -> None:
    error = refused(MINIMAL + "hypotesis: x\n")
    assert error.where == "spec.yaml:8:1"
    assert "\n" not in str(error)
    assert "did you mean 'hypothesis'?" in error.remedy


# ------------------------------------------------------------------ files
def test_a_file_that_is_not_there_names_the_nearest_that_is(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(MINIMAL)
    with pytest.raises(ConfigError, match=r"no such file .*dmeo.yaml.* did you mean .*demo.yaml"):
        load_experiment(tmp_path / "dmeo.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        load_experiment(tmp_path / "nowhere" / "demo.yaml")


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        load_experiment(tmp_path)


def test_a_file_of_another_encoding_is_refused_with_the_line(tmp_path: Path) -> None:
    spec = tmp_path / "latin.yaml"
    spec.write_bytes(MINIMAL.encode() + "hypothesis: schön\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"byte 0xf6 at offset \d+ is no UTF-8 \[.*latin.yaml:8:1\] — save"):
        load_experiment(spec)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    spec = tmp_path / "bom.yaml"
    spec.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_experiment(spec).name == "minimal"


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    spec = tmp_path / "large.yaml"
    spec.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="a spec has at most"):
        load_experiment(spec)
    assert "at most" in str(refused("#" * (MAX_BYTES + 1)))


def test_a_control_character_is_refused_with_its_line() -> None:
    error = refused(MINIMAL + "hypothesis: a\x00b\n")
    assert error.where == "spec.yaml:8:1"
    assert "U+0000" in error.what


def test_brackets_without_end_are_refused() -> None:
    assert "more than 20 levels" in str(refused("[" * 2_000))


_DIGITS = "9" * 5_000
_ALWAYS = "{thp/2048kB/enabled: always}"
ATTACKS = {
    "a key called [key]": '"[key]": 1\n',
    "half a character": 'hypothesis: "\\ud800"\n',
    "half a character as a key": '"\\ud800": 1\n',
    "NUL by an escape": 'hypothesis: "a\\0b"\n',
    "a knob of 5,000 digits": MINIMAL.replace("thp/2048kB", f"? thp/{_DIGITS}kB").replace("enabled: n", "enabled\n: n"),
    "a node of 5,000 digits": f'arms: {{"hugetlb/node{_DIGITS}/2048kB/nr_hugepages": 1}}\n',
    "a condition of 5,000 digits": f"population: {{where: {{memory: '>={_DIGITS}'}}}}\n",
    "800 arms alike": MINIMAL.replace("arms:\n", "arms:\n" + "".join(f"  a{n}: {_ALWAYS}\n" for n in range(800))),
    "6,000 misspelt metrics": MINIMAL.replace(
        "metrics: {", "metrics: {secondary: [" + ", ".join(f"thp_fault_alloz{n}" for n in range(6_000)) + "], "
    ),
    "6,000 unknown keys": "".join(f"kee{n}: 1\n" for n in range(4_000)),
    "a list of 100,000": f"hypothesis: [{'a,' * 100_000}]\n",
    "200,000 brackets": "hypothesis: " + "[" * 200_000,
    "60,000 mappings": "hypothesis: " + "{a: " * 60_000,
    "18,000 anchors": "hypothesis:\n" + "".join(f"- &a{n} x\n" for n in range(18_000)),
    "a name of 200,000 letters": MINIMAL.replace("name: minimal", "name: " + "a" * 200_000),
    "more bytes than a file of the kernel's": f"safety: {{max_failed_hosts: {'9' * 18}G}}\n",
}


@pytest.mark.parametrize("attack", ATTACKS)
@no_hang()
def test_a_spec_that_attacks_is_refused_in_time_and_in_few_words(attack: str) -> None:
    text = ATTACKS[attack]
    error = refused(text if "name:" in text else MINIMAL + text)
    assert sum(map(len, error.problems)) < 150_000
    for problem in error.problems:
        problem.encode()
        assert " — " in problem


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a spec has at most"):
        load_experiment("/dev/zero")
    with pytest.raises(ConfigError, match="can't be read"):
        load_experiment(tmp_path)


def test_each_arm_that_does_what_an_earlier_one_does_is_named_once() -> None:
    error = refused(MINIMAL.replace("arms:\n", f"arms:\n  a: {_ALWAYS}\n  b: {_ALWAYS}\n"))
    assert [problem.split(" — ")[0] for problem in error.problems] == [
        "spec.yaml:5:3 arms.b: the arm does just what 'a' does",
        "spec.yaml:7:3 arms.treatment: the arm does just what 'a' does",
    ]


@given(st.text(max_size=200))
def test_any_text_is_an_experiment_or_a_clear_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_experiment(text, "spec.yaml")
    assert caught.value.where.startswith("spec.yaml")
    assert caught.value.remedy


@given(st.integers(0, len(MINIMAL)), st.text(alphabet="{}[]:,&*!|>-'\" \t\n%@#xe1", max_size=6))
def test_a_spec_with_something_typed_in_is_an_experiment_or_a_clear_error(position: int, typed: str) -> None:
    try:
        assert isinstance(parse_experiment(MINIMAL[:position] + typed + MINIMAL[position:], "s"), Experiment)
    except ConfigError as error:
        assert error.where.startswith("s")
        assert error.remedy


# ------------------------------------------------------------------ what is made of it
def test_a_minimal_spec_has_sensible_defaults() -> None:
    experiment = parse_experiment(MINIMAL)
    assert experiment.blocks >= 6
    assert experiment.order == "pairs"
    assert experiment.sample_every_seconds == 1.0
    assert experiment.measure_seconds == 60.0
    assert experiment.safety_rules.on_drift == "invalidate"
    assert experiment.alpha == 0.05
    assert warnings_of(experiment) == ()
    assert experiment.agent_arms[0] == Arm(name="control", knobs={"thp/2048kB/enabled": "never"})


def test_the_default_seed_comes_from_the_name() -> None:
    one, other = parse_experiment(MINIMAL), parse_experiment(MINIMAL.replace("minimal", "another"))
    assert one.seed == parse_experiment(MINIMAL).seed != other.seed
    assert parse_experiment(MINIMAL + "assignment: {seed: 5}").seed == 5


def test_pressure_arrives_with_the_claim_as_whole_percents() -> None:
    experiment = load_experiment(CASES / "good/pressure.yaml")
    assert experiment.pressure_workload == WorkloadSpec(
        kind="pressure", options={"fill_percent": 57, "thin_percent": 29}
    )
    assert experiment.safety_rules.on_short_pool == "accept"
    without = parse_experiment(MINIMAL)
    assert (without.pressure_workload, without.safety_rules.on_short_pool) == (None, "fail")


def test_workload_options_arrive_in_base_units_and_per_arm() -> None:
    experiment = load_experiment(CONFIGS / "rfc-table.yaml")
    small, large = experiment.workload_for("4k"), experiment.workload_for("hugetlb-1g")
    assert small is not None
    assert large is not None
    assert small.kind == "pointer_chase"
    assert small.options == {
        "region_bytes": 2 * 2**30,
        "dereferences": 4_000_000,
        "backing": "anonymous",
        "page_size_kib": 2048,
        "repeats": 0,
        "pretouch": True,
        "madvise": False,
        "process_thp": "as_found",
        "seed": 0,
    }
    assert large.options == {**small.options, "backing": "hugetlb", "page_size_kib": 1048576}
    with pytest.raises(KeyError):
        experiment.workload_for("nobody")


def test_a_page_size_not_given_is_left_to_the_host() -> None:
    spec = parse_experiment(MINIMAL).workload_for("control")
    assert spec is not None
    assert spec.options["page_size_kib"] == 0


def test_a_command_keeps_its_words_and_environment() -> None:
    spec = load_experiment(CASES / "good" / "command.yaml").workload_for("control")
    assert spec is not None
    assert spec.options == {
        "argv": ("/usr/bin/stress", "--vm", "2"),
        "timeout_seconds": 60.0,
        "user": "nobody",
        "env": ("LANG=C", "THREADS=2"),
        "capture": "metrics",
    }


def test_a_command_without_options_has_its_words_only() -> None:
    text = MINIMAL.replace("pointer_chase: {}", "command: {argv: [run]}").replace("access_seconds", "throughput")
    spec = parse_experiment(text).workload_for("control")
    assert spec is not None
    assert spec.options == {"argv": ("run",), "capture": "metrics"}


def test_a_service_is_a_unit_or_a_cgroup() -> None:
    web = load_experiment(CONFIGS / "thp-1g-web.yaml").workload_for("treatment")
    assert web is not None
    assert (web.kind, web.options) == ("service", {"unit": "web.service", "restart": "on_apply"})
    group = load_experiment(CASES / "good" / "service-cgroup.yaml").workload_for("control")
    assert group is not None
    assert group.options == {"cgroup": "/system.slice/web.service", "restart": "never"}


def test_no_workload_means_watching() -> None:
    assert load_experiment(CASES / "good" / "watch-only.yaml").workload_for("control") is None


def test_words_that_yaml_takes_for_booleans_stay_words() -> None:
    experiment = load_experiment(CASES / "good" / "words-that-yaml-mistakes.yaml")
    assert experiment.name == "no"
    assert experiment.arm_names == ("off", "on", "yes")
    assert experiment.hypothesis == "1:30"


def test_numbers_are_knob_values_and_octal_is_not_guessed() -> None:
    experiment = load_experiment(CASES / "good" / "watch-only.yaml")
    assert experiment.arms["treatment"]["thp/khugepaged/max_ptes_none"] == "0"
    text = MINIMAL.replace("thp/2048kB/enabled: always", "sysctl/vm.swappiness: 010")
    assert parse_experiment(text).arms["treatment"] == {"sysctl/vm.swappiness": "010"}


def test_the_plan_of_analysis_gives_each_metric_one_role() -> None:
    units = (AssignedUnit(host="a", stratum="all", arm="control"),)
    plan = analysis_plan(load_experiment(CONFIGS / "thp-1g-web.yaml"), units)
    roles = {metric.name: metric.role for metric in plan.metrics}
    assert len(roles) == len(plan.metrics)
    assert roles["dtlb_load_misses_per_kilo_instruction"] is Role.PRIMARY
    assert roles["memory_used_bytes"] is Role.SECONDARY
    assert roles["oom_kills"] is Role.GUARDRAIL
    assert roles["thp_1048576kB_split"] is Role.EXPOSURE
    assert roles["agent_cpu_seconds"] is Role.OBSERVER
    assert plan.arms == ("control", "treatment")
    assert plan.units == units
    assert plan.guardrails == (
        GuardrailPlan(metric="memory_used_bytes", worse=Direction.INCREASE, margin=0.1),
        GuardrailPlan(metric="oom_kills", worse=Direction.INCREASE, tripwire=1.0),
    )


def test_the_pages_that_an_arm_really_holds_are_exposure_for_pools_too() -> None:
    plan = analysis_plan(load_experiment(CASES / "good" / "acquire.yaml"))
    exposure = [metric.name for metric in plan.metrics if metric.role is Role.EXPOSURE]
    assert exposure == ["hugetlb_1048576kB_total_pages", "hugetlb_1048576kB_free_pages"]


def test_what_decides_where_there_is_a_trade_is_said_or_both() -> None:
    said = {
        name: analysis_plan(load_experiment(CASES / "good" / f"{name}.yaml")).trade
        for name in ("trade", "trade-decides")
    }
    assert {name: trade and trade.rule for name, trade in said.items()} == {
        "trade": Rule.BOTH,
        "trade-decides": Rule.SERVERS,
    }


def test_where_the_top_level_is_switched_the_exposure_is_what_every_kernel_counts() -> None:
    plan = analysis_plan(load_experiment(CASES / "good" / "command.yaml"))
    exposure = [metric.name for metric in plan.metrics if metric.role is Role.EXPOSURE]
    assert exposure == ["anon_huge_bytes", "thp_fault_alloc", "thp_fault_fallback"]


def test_units_and_directions_come_from_the_catalogue_and_the_spec_overrules() -> None:
    experiment = load_experiment(CASES / "good" / "service-cgroup.yaml")
    by_name = {metric.name: metric for metric in analysis_plan(experiment).metrics}
    assert (by_name["memory_used_bytes"].unit, by_name["memory_used_bytes"].better) == ("bytes", Direction.DECREASE)
    assert by_name["pgmajfault"].counter
    assert by_name["pgmajfault"].unit == "faults per second"
    assert not by_name["memory_used_bytes"].counter
    text = MINIMAL.replace("primary: access_seconds", "primary: access_seconds, better: {access_seconds: increase}")
    assert analysis_plan(parse_experiment(text)).metrics[0].better is Direction.INCREASE


def test_the_bad_direction_of_a_guardrail_is_the_opposite_of_the_good_one() -> None:
    text = MINIMAL.replace(
        "access_seconds",
        "access_seconds, guardrails: [{metric: pgfault, margin: 10%}, {metric: memory_free_bytes, tripwire: 7}, "
        "{metric: thp_2048kB_nr_anon, tripwire: 1}, {metric: fault_seconds, worse: decrease, margin: 150%}]"
        ", better: {memory_free_bytes: increase}",
    )
    worse = {guardrail.metric: guardrail.worse for guardrail in analysis_plan(parse_experiment(text)).guardrails}
    assert worse == {
        "pgfault": Direction.INCREASE,
        "memory_free_bytes": Direction.DECREASE,
        "thp_2048kB_nr_anon": Direction.INCREASE,
        "fault_seconds": Direction.DECREASE,
    }


def test_a_metric_with_a_source_may_have_any_name_and_needs_a_direction() -> None:
    source = "sources: {rps: {prometheus: 'http://localhost/metrics'}}"
    error = refused(MINIMAL.replace("primary: access_seconds", f"primary: rps, {source}"))
    assert "which way is better for rps?" in str(error)
    text = MINIMAL.replace("primary: access_seconds", f"primary: rps, {source}, better: {{rps: increase}}")
    assert analysis_plan(parse_experiment(text)).metrics[0].unit == ""


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("periods: {blocks: 5}", "5 blocks can't show an effect"),
        ("periods: {washout: 0s}", "without a washout"),
    ],
)
def test_what_is_unwise_is_a_warning(added: str, said: str) -> None:
    (warning,) = warnings_of(parse_experiment(MINIMAL + added))
    assert said in warning


def test_a_service_that_is_never_restarted_is_a_warning() -> None:
    (warning,) = warnings_of(load_experiment(CASES / "good" / "service-cgroup.yaml"))
    assert "on_apply" in warning


@pytest.mark.parametrize(
    "metrics",
    [
        '{x: "http://me:Wint3r@h/m"}',
        '{x: "http://me:Wint3r-that-is-longer-than-what-a-message-says-of-a-text@h/m"}',
        '{x: {prometheus: "ftp://me:Wint3r@h/m"}}',
        '{x: {prometheus: "http://me:Wint3r@h:port/m"}}',
        '{x: {prometheus: "http://me:Wint3r@h/m#x"}}',
        '{x: {prometheus: ["http://me:Wint3r@h/m"]}}',
        '{x: {json: "http://h/m?api_key=Wint3r", path: a}}',
        '{x: {json: "http://h/m?X-Amz-Signature=Wint3r", path: a}}',
        '{x: {file: "http://me:Wint3r@h/m"}}',
        "{x: {command: [tool, --token=Wint3r]}}",
        "{x: {command: [tool, --auth-token, Wint3r]}}",
        "{x: {command: 'tool --token=Wint3r'}}",
        '{"http://me:Wint3r@h/m": {}}',
    ],
)
def test_a_secret_in_a_spec_is_refused_and_no_message_repeats_it(metrics: str) -> None:
    text = MINIMAL.replace("metrics: {", f"metrics: {{sources: {metrics}, ")
    error = refused(text)
    assert "Wint3r" not in f"{error} {error!r} {error.problems}"


@pytest.mark.parametrize(
    "source",
    [
        '{prometheus: "http://h/m?collect[]=cpu&monkey=1"}',
        "{command: [sort, --key=2, /x], user: nobody}",
        "{command: [tool, --token-file=/etc/token, --max-tokens, 5]}",
        '{command: [tool, "me@host"]}',
        '{command: [pgbench, "postgresql://fleet@db/x"]}',
    ],
)
def test_what_only_looks_a_little_like_a_secret_is_no_obstacle(source: str) -> None:
    text = MINIMAL.replace("metrics: {", f"metrics: {{sources: {{x: {source}}}, better: {{x: increase}}, ")
    assert parse_experiment(text, "spec.yaml").sources


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ("{x: {perf: cache-mises}}", "did you mean 'cache-misses'"),
        ('{x: {perf: "cpu/event=0x24,umask=/"}}', "is not a term of an event"),
        ("{x: {perf: uprobe/config=1/}}", "places probes"),
        ("{x: {perf: cycles, file: /x}}", "a source is one place"),
        ("{x: {perf: cycles, every: 10s}}", "says nothing of an event"),
        ("{x: {perf: cycles, name: y}}", "says nothing of an event"),
        ("{x: {perf: cycles, kind: gauge}}", "it is not a gauge"),
        ("{x: {perf: cycles, scope: cgroup}}", "no cgroup to count in"),
        ("{x: {file: /x, scope: host}}", "only an event of perf"),
        ("{cycles: {perf: cycles}}", "the name cycles is taken"),
        ("{dtlb_walks_1g: {perf: cycles}}", "belongs to the host's perf events"),
        ("{x: {perf: cycles}, x_coverage: {file: /x}}", "taken by the event x"),
        ("{x: {perf: cycles}, x_time_running_seconds: {file: /x}}", "taken by the event x"),
    ],
)
def test_a_source_that_is_no_event_says_what_to_write(sources: str, words: str) -> None:
    error = refused(MINIMAL.replace("metrics: {", f"metrics: {{sources: {sources}, better: {{x: increase}}, "))
    assert words in str(error)
    assert "metrics.sources" in str(error)


def test_an_event_is_a_counter_with_its_times() -> None:
    text = MINIMAL.replace(
        "metrics: {", "metrics: {sources: {x: {perf: 'cpu/event=0x24,umask=0x3f/u', unit: misses}}, "
    )
    experiment = parse_experiment(text, "spec.yaml")
    (source,) = experiment.sources
    assert (source.perf, source.counter, source.in_cgroup) == ("cpu/event=0x24,umask=0x3f/u", True, False)
    assert experiment.counters == {"x", "x_time_enabled_seconds", "x_time_running_seconds"}
