"""Launch a run, resume one, ask one to stop: where the spec, the store, a fleet, the machine and the runner meet."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from agents.catalogue import CATALOGUE, MetricKind
from agents.claim import claim_status
from agents.facts import survey
from agents.messages import WorkloadSpec
from agents.sysroot import FolderRoot, SysRoot
from fleetexp.config import Experiment, experiment_to_json, parse_experiment
from fleetexp.design import assigned_units, host_info, make_plan
from fleetexp.domain import Design, Plan, RunState
from fleetexp.errors import RunError
from fleetexp.exit_codes import ExitCode
from fleetexp.orchestrator.fleet import Fleet
from fleetexp.orchestrator.guardrails import Tripwires
from fleetexp.orchestrator.inline_fleet import InlineFleet
from fleetexp.orchestrator.looks import Looks
from fleetexp.orchestrator.machine import HALTING_TO, Machine
from fleetexp.orchestrator.messages import StopRequested
from fleetexp.orchestrator.observe import observe
from fleetexp.orchestrator.progress import Outcome, Progress, progress_of
from fleetexp.orchestrator.resumption import Past
from fleetexp.orchestrator.runner import Runner, utc_now
from fleetexp.store.records import LIVE, RunRecord
from fleetexp.store.store import Store, open_store

log = logging.getLogger(__name__)

Observer = Callable[[Progress], None]

# How long one write may wait for another writer: less than any lease, because no poll goes out meanwhile. What is
# refused after that waits in the ledger.
STORE_WAIT_SECONDS = 0.5

_VERSIONED = ("fleetexp", "ray", "sqlalchemy", "numpy", "pandas", "scipy", "numba")
_EXIT = {
    RunState.COMPLETED: ExitCode.DONE,
    RunState.FAILED: ExitCode.ERROR,
    RunState.HALTED: ExitCode.HALTED,
    RunState.RESTORE_INCOMPLETE: ExitCode.RESTORE_INCOMPLETE,
}


def launch(
    experiment: Experiment,
    spec_text: str,
    *,
    store_url: str,
    observer: Observer,
    fleet: str = "local",
    root: SysRoot | None = None,
) -> Outcome:
    """Run an experiment on this machine from plan to findings; returns when every host is restored.

    `fleet` is 'local' (the agent is a Ray actor) or 'inline' (in this process). RunError where the design needs more
    hosts than one; every other error of store, fleet or agent comes through as it is, after the hosts are restored.
    """
    if experiment.kind is Design.PARALLEL:
        raise RunError(
            "a parallel design needs hosts of its own for each arm, and this is one machine",
            where="design",
            remedy="use 'design: switchback': every arm in turn on this host",
        )
    if any(stage.approve == "manual" for stage in experiment.stages):
        raise RunError(
            "a stage that waits for approval would keep this one machine changed meanwhile",
            where="stages",
            remedy="leave out 'approve: manual'",
        )
    root = root or FolderRoot()
    plan = make_plan(experiment, [host_info(survey(root, host=platform.node()))])
    with contextlib.closing(open_store(store_url, wait_seconds=STORE_WAIT_SECONDS)) as store:
        run_id = store.create_run(
            experiment_name=experiment.name,
            hypothesis=experiment.hypothesis,
            spec_text=spec_text,
            spec_json=json.loads(experiment_to_json(experiment)),
            plan=plan,
            launched_by=_who(),
            versions=_versions(),
            fleet=fleet,
        )
        machine = Machine(plan=plan)
        return _drive(
            store,
            run_id=run_id,
            plan=plan,
            experiment=experiment,
            machine=machine,
            fleet_name=fleet,
            root=root,
            observer=observer,
        )


def resume(run_id: int, *, store_url: str, observer: Observer, root: SysRoot | None = None) -> Outcome:
    """Go on with a run that was paused or interrupted: finished blocks stay, the broken one is repeated.

    RunError where the run is over, or is still being driven by a process that is alive.
    """
    root = root or FolderRoot()
    with contextlib.closing(open_store(store_url, create=False, wait_seconds=STORE_WAIT_SECONDS)) as store:
        record = store.run(run_id)
        if record.state.is_terminal:
            raise RunError(
                f"run {run_id} is over: {record.state.value}",
                where=f"run {run_id}",
                remedy="start a new one with 'fleetexp run'",
            )
        experiment = parse_experiment(record.spec_text, source=f"run {run_id}")
        _wait_until_free(record, root, observer)
        machine = Machine.resumed(record.plan, store.periods(run_id), Past(goal=_halt_under_way(store, record)))
        store.record_event(run_id, "resumed", _who())
        if machine.goal is not None:
            log.warning("run %d was being halted when it was interrupted: %s", run_id, machine.goal[1])
        return _drive(
            store,
            run_id=run_id,
            plan=record.plan,
            experiment=experiment,
            machine=machine,
            fleet_name=record.fleet,
            root=root,
            observer=observer,
        )


def _halt_under_way(store: Store, record: RunRecord) -> tuple[RunState, str] | None:
    """Return where a halt was heading that the orchestrator did not live to finish: a sick kernel, an abort."""
    if record.state not in LIVE:
        return None
    events = [event for event in store.events(record.run_id) if event.kind in {HALTING_TO, "resumed"}]
    if not events or events[-1].kind != HALTING_TO:
        return None
    state, _, reason = events[-1].detail.partition(": ")
    return None if state == RunState.PAUSED.value else (RunState(state), reason)


def request_stop(store_url: str, run_id: int, how: str, who: str = "") -> None:
    """Ask the process that drives a run to pause ('pause') or to end ('abort') it; it listens within a second."""
    with contextlib.closing(open_store(store_url, create=False)) as store:
        record = store.run(run_id)
        if record.state.is_terminal:
            raise RunError(f"run {run_id} is over: {record.state.value}", where=f"run {run_id}", remedy="nothing to do")
        store.request(run_id, how, who or _who())


def _drive(
    store: Store,
    *,
    run_id: int,
    plan: Plan,
    experiment: Experiment,
    machine: Machine,
    fleet_name: str,
    root: SysRoot,
    observer: Observer,
) -> Outcome:
    analysis_plan = experiment.analysis_plan(assigned_units(plan))
    counters = frozenset(name for name, metric in CATALOGUE.items() if metric.kind is MetricKind.COUNTER)
    counters = counters - set(experiment.metrics.sources) | experiment.counters

    looks = Looks(store=store, run_id=run_id, plan=plan, analysis=analysis_plan, now=utc_now)

    name = claim_name(store.run(run_id))
    try:
        fleet = _fleet(fleet_name, name, plan, root)
    except Exception as error:
        # A run that is being resumed keeps what it has: it can be resumed again.
        state = RunState.PAUSED if machine.again else RunState.FAILED
        store.set_run_state(run_id, state, f"the fleet did not start: {error}")
        raise
    try:
        runner = Runner(
            run_id=run_id,
            claim_name=name,
            plan=plan,
            store=store,
            fleet=fleet,
            machine=machine,
            owner=_who(),
            restart=_restarts(plan),
            tripwires=Tripwires(analysis_plan.guardrails, counters=counters),
            observe=lambda period_id: observe(store, period_id, experiment.counters),
            analyse=looks.analyse,
            test_guardrails=looks.test_guardrails,
            progress=lambda runner: observer(progress_of(runner)),
        )
        with _signals(runner):
            state = runner.run()
    finally:
        fleet.close()
    observer(progress_of(runner))
    return _outcome(store, run_id, state)


def claim_name(record: RunRecord) -> str:
    """Return the name under which a run claims hosts: run 1 of another database is another run."""
    stamp = hashlib.sha256(f"{record.experiment} {record.created_at.isoformat()}".encode()).hexdigest()[:8]
    return f"{record.run_id}-{stamp}"


def _fleet(name: str, run: str, plan: Plan, root: SysRoot) -> Fleet:
    hosts = [unit.host for unit in plan.units]
    if name == "inline":
        return InlineFleet(dict.fromkeys(hosts, root), run=run, labels={})
    if name == "local":
        from fleetexp.orchestrator.local_fleet import LocalFleet  # noqa: PLC0415 - Ray takes a second to import

        where = str(root.root) if isinstance(root, FolderRoot) else "/"
        return LocalFleet(hosts[0], run=run, root=where)
    raise RunError(f"no fleet is called {name!r}", where="--fleet", remedy="use 'local' or 'inline'")


def _restarts(plan: Plan) -> dict[str, WorkloadSpec]:
    """For each arm, the service that is restarted when the arm is applied."""
    return {
        arm: spec
        for arm, spec in plan.workloads.items()
        if spec.kind == "service" and spec.options.get("restart") == "on_apply"
    }


def _outcome(store: Store, run_id: int, state: RunState) -> Outcome:
    record = store.run(run_id)
    findings = store.findings(run_id)
    if state is RunState.PAUSED:
        asked = record.reason.startswith("paused by")
        code = ExitCode.DONE if asked else ExitCode.TOO_MANY_HOSTS_FAILED
    else:
        code = _EXIT[state]
    decided = findings is not None and state is RunState.COMPLETED
    return Outcome(
        run_id=run_id,
        state=state,
        decision=findings.decision if decided and findings is not None else "",
        reason=findings.reason if decided and findings is not None else record.reason,
        exit_code=code,
    )


def _wait_until_free(record: RunRecord, root: SysRoot, observer: Observer) -> None:
    """Wait for the lease of the orchestrator that died to run out; the guardian puts the host back meanwhile."""
    run_id, plan, name = record.run_id, record.plan, claim_name(record)
    deadline = time.monotonic() + plan.safety.lease_seconds + 10.0
    while (status := claim_status(root)) is not None and status.run == name:
        if status.lease_remaining_seconds <= 0 and not status.guardian_alive:
            return  # nobody is left to undo it: taking the host does that first
        if _alive(status.owner):
            raise RunError(
                f"run {run_id} is still being driven by {status.owner}",
                where=f"run {run_id}",
                remedy=f"pause it with 'fleetexp pause {run_id}', or end it with 'fleetexp abort {run_id}'",
            )
        if time.monotonic() > deadline:
            return  # claiming the host will say what is in the way
        observer(
            Progress(
                run_id=run_id,
                state=RunState.PREFLIGHT,
                planned_seconds=plan.seconds,
                elapsed_seconds=0.0,
                current="waiting for the guardian of the interrupted run to put the host back",
            )
        )
        time.sleep(0.25)


def _alive(owner: str) -> bool:
    """Whether the process in 'user@host pid N' runs on this machine, and is not this one."""
    where, _, pid = owner.rpartition(" pid ")
    if not pid.isdigit() or not where.endswith(f"@{platform.node()}") or int(pid) == os.getpid():
        return False
    with contextlib.suppress(OSError):
        return b"fleetexp" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@contextlib.contextmanager
def _signals(runner: Runner) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run cleanly: restore, keep what was measured, say so. A second one changes nothing."""

    def stop(number: int, _frame: object) -> None:
        runner.ask(StopRequested(who=f"{_who()} ({signal.Signals(number).name})"))

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():  # its signals are somebody else's
        yield
        return
    saved = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def _who() -> str:
    """Return 'user@host pid N' of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{platform.node()} pid {os.getpid()}"


def _versions() -> Mapping[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONED}}


__all__ = ["Observer", "launch", "request_stop", "resume"]
