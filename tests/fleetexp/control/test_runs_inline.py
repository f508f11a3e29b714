"""Whole runs over a host in a folder: what is stored, what breaks, and that the host is always put back."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from agents.claim import claim_status
from agents.sysroot import FolderRoot
from fleetexp.control import controller, write_queue
from fleetexp.control.run_requests import stop
from fleetexp.domain import BrokenBy, RunRequest, RunState
from fleetexp.errors import RunError, StoreError
from fleetexp.exit_codes import ExitCode
from fleetexp.experiment import parse_experiment
from fleetexp.reporting import report_content
from fleetexp.store.store import Store, open_store
from tests.fleetexp.control.requests_to_runs import request_stop
from tests.launching import launch
from tests.naps import napping, new_nap

KNOB = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
Bench = Any  # conftest.py

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def once(act: Callable[[], None], during: str = "big, measuring") -> Callable[[Any], None]:
    """Do something once, the first time that a (treated) period is being measured."""
    done: list[bool] = []

    def when(progress: Any) -> None:  # noqa: ANN401
        if not done and during in progress.current:
            done.append(True)
            act()

    return when


def test_a_run_ends_with_findings_a_report_and_a_host_as_it_was(bench: Bench) -> None:
    outcome = bench.run(blocks=6)
    assert (outcome.state, outcome.exit_code) == (RunState.COMPLETED, ExitCode.DONE)
    with bench.store() as store:
        findings = store.findings(1)
        primary = next(e for e in findings.estimates if e.metric == "latency" and e.headline)
        assert (primary.control_mean, primary.treatment_mean) == (3.0, 2.0)
        frame = store.observations(1, ["latency"])
        assert sorted(frame["arm"].tolist()) == ["big"] * 6 + ["small"] * 6
        assert {p.state.value for p in store.periods(1)} == {"complete"}
        changes = [change for _, change in store.knob_changes(1)]
        assert changes[0].before == changes[-1].after == "inherit"
        content = report_content(store, 1)
        assert content.findings == findings
        assert {metric.metric for metric in content.unavailable} >= {"dtlb_load_misses"}
        assert store.host_facts(1)[0].thp_top_level == "madvise"
    assert bench.seen[-1].state is RunState.COMPLETED
    assert bench.seen[-1].share == 1.0


def test_a_counter_in_the_store_rises_by_what_the_kernel_counted(bench: Bench) -> None:
    stat = bench.root.root / "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/stats/anon_fault_alloc"
    # In one write, as the kernel's counter is never empty for a moment.
    rise = f"f=open({str(stat)!r}, 'r+'); n=int(f.read()); f.seek(0); f.write(str(n+512)); f.flush(); import time; "
    rise += "time.sleep(.3)"
    bench.run(script=rise + "; print('latency 1')", blocks=1)
    with bench.store() as store:
        rows = {row.arm: row for row in report_content(store, 1).exposure}
    assert rows["big"].faulted_pages == rows["small"].faulted_pages == 512
    assert (rows["big"].assigned, rows["small"].assigned) == ("always", "never")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit(7)", "exit status 7"),
        ("print('what is this')", "what is this"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    ],
    ids=["crashes", "prints garbage", "is killed"],
)
def test_a_workload_that_fails_is_tried_again_and_then_the_run_pauses(bench: Bench, script: str, said: str) -> None:
    outcome = bench.run(script=script, blocks=1)
    assert (outcome.state, outcome.exit_code) == (RunState.PAUSED, ExitCode.TOO_MANY_HOSTS_FAILED)
    assert "broken 3 times" in outcome.reason
    assert any(said in reason for reason in bench.reasons())
    assert bench.broken_by() <= {BrokenBy.HOST, BrokenBy.BLOCK}
    assert BrokenBy.HOST in bench.broken_by()


def test_a_workload_that_hangs_is_ended_with_its_period(bench: Bench) -> None:
    nap = new_nap()
    outcome = bench.run(
        script=f"import time\nprint('latency 1', flush=True)\ntime.sleep({nap})", blocks=1, measure="1s"
    )
    assert outcome.state is RunState.COMPLETED
    assert napping(nap) == []


def test_a_knob_this_kernel_does_not_have_is_refused_before_anything_is_written(bench: Bench) -> None:
    text = bench.spec().replace("thp/2048kB/enabled: always", "thp/1048576kB/enabled: always")
    with pytest.raises(RunError, match="does not have the knob thp/1048576kB/enabled"):
        bench.launch(text)
    assert claim_status(bench.root) is None
    assert not (bench.folder / "fleetexp.db").exists()


def test_somebody_elses_write_breaks_the_block_which_is_repeated(bench: Bench) -> None:
    bench.when = once(lambda: bench.root.write(KNOB, b"madvise"))
    outcome = bench.run(script="import time; time.sleep(1); print('latency 1')")
    assert outcome.state is RunState.COMPLETED
    assert any("drift" in reason for reason in bench.reasons())
    assert BrokenBy.HOST in bench.broken_by()
    assert bench.events("drift")


def test_somebody_elses_write_halts_where_the_spec_says_so(bench: Bench) -> None:
    bench.when = once(lambda: bench.root.write(KNOB, b"madvise"))
    outcome = bench.run(script="import time; time.sleep(1); print('latency 1')", on_drift="halt")
    assert (outcome.state, outcome.exit_code) == (RunState.HALTED, ExitCode.HALTED)
    assert "changed from outside" in outcome.reason
    assert bench.broken_by() == {BrokenBy.HOST}


def test_a_sick_kernel_halts_the_run(bench: Bench) -> None:
    log = bench.root.root / "dev/kmsg"

    def oops() -> None:
        with log.open("a") as file:
            file.write("1,900,5000000,-;BUG: unable to handle page fault for address: ffff888000000000\n")

    bench.when = once(oops)
    outcome = bench.run(script="import time; time.sleep(2); print('latency 1')")
    assert outcome.exit_code is ExitCode.HALTED
    assert "kernel_oops" in outcome.reason
    assert bench.broken_by() == {BrokenBy.HOST}


def test_a_tripwire_halts_the_run(bench: Bench) -> None:
    outcome = bench.run(guardrails="[{metric: latency, worse: increase, tripwire: 2.5}]")
    assert (outcome.state, outcome.exit_code) == (RunState.HALTED, ExitCode.HALTED)
    assert "latency: 3 reached the tripwire 2.5" in outcome.reason


@pytest.mark.parametrize("how", [RunRequest.PAUSE, RunRequest.ABORT])
def test_a_request_from_another_process_is_heard(bench: Bench, how: RunRequest) -> None:
    bench.when = once(lambda: request_stop(bench.url, 1, how, "ann"))
    outcome = bench.run(script="import time; time.sleep(3); print('latency 1')")
    assert outcome.state is (RunState.PAUSED if how is RunRequest.PAUSE else RunState.HALTED)
    assert "by ann" in outcome.reason
    assert bench.broken_by() == {BrokenBy.RUN}
    if how is RunRequest.PAUSE:
        assert outcome.exit_code is ExitCode.DONE
        bench.when = lambda _: None
        assert bench.resume().state is RunState.COMPLETED
        with bench.store() as store:
            done = [p.plan.block for p in store.periods(1) if p.state.value == "complete" and p.plan.kind == "measure"]
        assert sorted(done) == [0, 0, 1, 1]
        assert bench.broken_by() <= {BrokenBy.RUN, BrokenBy.BLOCK}
    else:
        with pytest.raises(RunError, match="is over"):
            bench.resume()
    with pytest.raises(RunError, match="is over"):
        stop(bench.url, 1, RunRequest.PAUSE, "ann")


def test_ctrl_c_ends_a_run_cleanly(bench: Bench) -> None:
    handler = signal.getsignal(signal.SIGINT)
    bench.when = once(lambda: os.kill(os.getpid(), signal.SIGINT))
    outcome = bench.run(script="import time; time.sleep(3); print('latency 1')")
    assert (outcome.state, outcome.exit_code) == (RunState.HALTED, ExitCode.HALTED)
    assert "SIGINT" in outcome.reason
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_defect_in_the_orchestrator_still_puts_the_host_back(bench: Bench) -> None:
    def defect() -> None:
        raise ZeroDivisionError("a defect")

    bench.when = once(defect)
    with pytest.raises(ZeroDivisionError):
        bench.run(script="import time; time.sleep(3); print('latency 1')")
    assert claim_status(bench.root) is None


def test_a_locked_database_delays_writes_and_loses_none(bench: Bench) -> None:
    other: list[sqlite3.Connection] = []

    def lock() -> None:
        connection = sqlite3.connect(bench.folder / "fleetexp.db", check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        other.append(connection)
        threading.Timer(6.0, connection.rollback).start()

    bench.when = once(lock)
    outcome = bench.run(script="import time; time.sleep(2); print('latency 1')", blocks=1, lease="30s")
    other[0].close()
    assert outcome.state is RunState.COMPLETED
    with bench.store() as store:
        for period in store.periods(1):
            sequence = sorted(store.samples(1, period_ids=[period.period_id])["sequence"])
            assert len(sequence) == len(set(sequence)) >= 2


def test_a_database_that_stays_away_stops_the_run_and_the_host_is_put_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "STORE_OUTAGE_SECONDS", 2.0)
    away: list[bool] = []
    for name in ("append_many", "together", "record_event", "set_run_state"):
        real = getattr(Store, name)

        def refuse(self: Store, *words: Any, _real: Any = real, **named: Any) -> Any:  # noqa: ANN401
            if away:
                raise write_queue.PASSING[0]("the disk is full", where="db", remedy="make room")
            return _real(self, *words, **named)

        monkeypatch.setattr(Store, name, refuse)
    bench.when = once(lambda: away.append(True), during=", measuring")
    with pytest.raises(StoreError, match="the disk is full"):
        bench.run(script="import time; time.sleep(30); print('latency 1')", measure="30s")
    assert claim_status(bench.root) is None


class LyingRoot(FolderRoot):
    """A kernel that takes a write and goes on saying what it said before."""

    __slots__ = ()

    def write(self, path: str, value: bytes) -> None:
        if path == KNOB and value.strip() == b"always":
            return
        super().write(path, value)


def test_a_kernel_that_lies_on_read_back_is_found_out(bench: Bench) -> None:
    bench.root = LyingRoot(bench.root.root)
    outcome = bench.run(argv=[sys.executable, "-c", "print('latency 1')"])
    assert outcome.state is RunState.PAUSED
    assert "thp/2048kB/enabled" in outcome.reason
    with bench.store() as store:
        failed = [change for _, change in store.knob_changes(1) if not change.ok]
    assert failed, "a write that did not hold belongs in the audit"
    assert {change.wanted for change in failed} == {"always"}


def test_another_run_on_the_host_is_named_and_left_alone(bench: Bench) -> None:
    from agents.claim import take_claim

    claim = take_claim(
        bench.root, run="77-other", owner="bob@web-017 pid 9", knobs=["thp/2048kB/enabled"], lease_seconds=60
    )
    outcome = bench.run()
    assert outcome.state is RunState.FAILED
    assert "77-other" in outcome.reason
    assert "bob@web-017" in outcome.reason
    claim.revert()
    claim.release()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("design: switchback", "design: parallel"), "parallel"),
        (("assignment:", "stages: [{share: 100%, hold: 1s, approve: manual}]\nassignment:"), "approval"),
    ],
)
def test_what_one_machine_can_not_do_is_refused_before_anything_is_written(
    bench: Bench, change: tuple[str, str], said: str
) -> None:
    text = bench.spec().replace(*change)
    if "parallel" in said:
        text = text.replace("measure: 5s, blocks: 2, ", "") + "stages: [{share: 100%, hold: 1h}]\n"
    with pytest.raises(RunError, match=said):
        launch(parse_experiment(text), text, store_url=bench.url, observer=bench.observe, root=bench.root)
    assert not (bench.folder / "fleetexp.db").exists()


def test_an_unknown_fleet_is_an_error_before_anything_is_written(bench: Bench) -> None:
    text = bench.spec()
    with pytest.raises(RunError, match="no fleet is called"):
        launch(parse_experiment(text), text, store_url=bench.url, observer=bench.observe, fleet="x", root=bench.root)
    assert not (bench.folder / "fleetexp.db").exists()


def test_a_run_that_a_live_process_drives_can_not_be_resumed_by_another(bench: Bench) -> None:
    text = bench.spec(script="import time; time.sleep(60); print('latency 1')", measure="60s")
    (bench.folder / "spec.yaml").write_text(text)
    command = [sys.executable, "-m", "fleetexp", "run", "spec.yaml", "--fleet", "inline", "--json"]
    words = ["--store", bench.url, "--root", str(bench.root.root)]
    process = subprocess.Popen([*command, *words], cwd=bench.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while claim_status(bench.root) is None:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        with pytest.raises(RunError, match="still being driven"):
            bench.resume()
        process.kill()
        process.communicate()
        bench.when = once(lambda: request_stop(bench.url, 1, RunRequest.ABORT, "ann"), during=", measuring")
        assert bench.resume().state is RunState.HALTED
    finally:
        process.kill()
        process.communicate()


def test_the_same_database_may_be_read_while_a_run_writes_it(bench: Bench) -> None:
    states: list[RunState] = []

    def look() -> None:
        store = open_store(bench.url, create=False)
        states.append(store.run(1).state)
        store.close()

    bench.when = once(look)
    bench.run(blocks=1)
    assert states == [RunState.RUNNING]
