"""Whole runs whose workload reports values under names that are not its own: none of them counts."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from fleetexp.control.progress import RunOutcome
from fleetexp.domain import BrokenBy, RunState
from fleetexp.exit_codes import ExitCode

Bench = Any  # conftest.py

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# The host says that it uses more memory under big pages; a workload that lies says that it is always the same.
WORK = """\
import re, time
big = "always" in open({knob!r}).read()
text = open({meminfo!r}).read()
text = re.sub(r"MemAvailable: *[0-9]+", "MemAvailable:%17d" % (1000000 if big else 20000000), text)
open({meminfo!r}, "r+").write(text)  # in place and of the same length: the agent reads it meanwhile
print("latency 1", flush=True)
{lie}
time.sleep(0.5)
"""
KNOB = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"


def run(bench: Bench, *, lie: str = "", primary: str = "latency", guardrails: str = "[]") -> RunOutcome:
    root = bench.root.root
    program = bench.folder / "work.py"
    program.write_text(WORK.format(knob=str(root / KNOB), meminfo=str(root / "proc/meminfo"), lie=lie))
    text = bench.spec(argv=[sys.executable, str(program)], blocks=2, guardrails=guardrails)
    if primary != "latency":
        text = text.replace("primary: latency", f"primary: {primary}\n  secondary: [latency]")
    return bench.launch(text)


def test_what_the_host_itself_shows_is_what_counts(bench: Bench) -> None:
    assert run(bench, primary="memory_used_bytes").state is RunState.COMPLETED
    with bench.store() as store:
        found = next(e for e in store.findings(1).estimates if e.metric == "memory_used_bytes" and e.headline)
    assert found.treatment_mean > 1.5 * found.control_mean


@pytest.mark.parametrize(
    ("said", "roles"),
    [
        ("memory_used_bytes 1", {"primary": "memory_used_bytes"}),
        ('{"memory_used_bytes": 1}', {"guardrails": "[{metric: memory_used_bytes, margin: 10%}]"}),
    ],
    ids=["primary, a line", "guardrail, JSON"],
)
def test_a_printed_value_never_stands_for_the_hosts_own(bench: Bench, said: str, roles: dict[str, str]) -> None:
    outcome = run(bench, lie=f"print({said!r}, flush=True)", **roles)
    assert (outcome.state, outcome.exit_code) == (RunState.PAUSED, ExitCode.TOO_MANY_HOSTS_FAILED)
    sentence = "the workload reports memory_used_bytes: memory_used_bytes belongs to fleetexp, which derives it"
    assert set(bench.events("foreign_metric")) == {sentence}
    assert sentence in bench.reasons()
    assert BrokenBy.HOST in bench.broken_by()
    with bench.store() as store:
        for period in store.periods(1):
            assert "memory_used_bytes" not in store.period_readings(period.period_id).measured
        assert not [p for p in store.periods(1) if p.plan.kind.value == "measure" and p.state.value == "complete"]


def test_a_tripwire_on_the_kernels_count_hears_nothing_that_a_workload_says(bench: Bench) -> None:
    outcome = run(bench, lie="print('oom_kills 500', flush=True)", guardrails="[{metric: oom_kills, tripwire: 1}]")
    assert outcome.state is RunState.PAUSED  # not halted: no process was killed
    assert "oom_kills" in bench.events("foreign_metric")[0]
    assert not bench.events("guardrail")
