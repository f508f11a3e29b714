"""Launch a run, resume or restore one: where the spec, the store, a fleet, the machine and the runner meet."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from agents.catalogue import CATALOGUE, MetricKind
from agents.claim import ClaimStatus
from agents.sysroot import SysRoot
from agents.versions import version_of
from fleetexp.control.central_readings import CentralJob
from fleetexp.control.controller import Controller
from fleetexp.control.host_registry import names
from fleetexp.control.interim_analysis import InterimAnalyst, Measured
from fleetexp.control.late_restores import Restoring
from fleetexp.control.messages import StopRequested
from fleetexp.control.prepare import PreparedRun
from fleetexp.control.progress import Progress, RunOutcome, progress_of
from fleetexp.control.run_context import Holder, Job
from fleetexp.control.run_machine import RunMachine
from fleetexp.control.run_recovery import awaits_approval, past_of, unrestored
from fleetexp.control.run_requests import approve
from fleetexp.control.tripwires import Tripwires
from fleetexp.domain import EventKind, Plan, RunCause, RunState
from fleetexp.errors import RunError
from fleetexp.exit_codes import ExitCode
from fleetexp.experiment import Experiment, analysis_plan, experiment_to_json, parse_experiment
from fleetexp.experiment.schedule import assigned_units
from fleetexp.fleets.by_name import FleetChoice, open_inventory
from fleetexp.fleets.inventory import Inventory, shown
from fleetexp.logs import of_run
from fleetexp.process_identity import is_running, this_process
from fleetexp.simulated import is_simulated, marked
from fleetexp.store.records import RunRecord
from fleetexp.store.store import Store, open_store
from fleetexp.store.url import StoreUrl

log = logging.getLogger(__name__)

Observer = Callable[[Progress], None]

# How long one write may wait for another writer: less than any lease, because no poll goes out meanwhile. What is
# refused after that waits in the queue.
STORE_WAIT_SECONDS = 0.5

_RENEWED_SECONDS = 0.5  # a lease that ends so much later than it was to has been renewed meanwhile

_VERSIONED = ("fleetexp", "ray", "sqlalchemy", "numpy", "pandas", "scipy", "numba")
_EXIT = {
    RunState.COMPLETED: ExitCode.DONE,
    RunState.FAILED: ExitCode.ERROR,
    RunState.HALTED: ExitCode.HALTED,
    RunState.RESTORE_INCOMPLETE: ExitCode.RESTORE_INCOMPLETE,
}


def launch(prepared: PreparedRun, observer: Observer) -> RunOutcome:
    """Run exactly what was prepared, to its findings; returns when every host is restored, the inventory closed.

    RunError where it is refused, or a host has been taken meanwhile; every other error of store, fleet or agent comes
    through as it is, after the hosts are restored.
    """
    with contextlib.closing(prepared.inventory) as hosts:
        prepared.require()
        prepared.require_free_hosts()
        experiment, plan = prepared.experiment, prepared.plan
        with contextlib.closing(open_store(prepared.store, wait_seconds=STORE_WAIT_SECONDS)) as store:
            run_id = store.create_run(
                experiment_name=experiment.name,
                hypothesis=experiment.hypothesis,
                spec_text=prepared.spec_text,
                spec_json=json.loads(experiment_to_json(experiment)),
                plan=plan,
                launched_by=this_process(),
                versions=_versions(),
                fleet=str(FleetChoice(name=hosts.name, address=hosts.address)),
            )
            if prepared.hosts.left_out:
                store.record_event(run_id, EventKind.HOSTS_LEFT_OUT, shown(prepared.hosts.left_out))
            machine = RunMachine(plan=plan)
            return _drive(
                store,
                run_id=run_id,
                plan=plan,
                experiment=experiment,
                machine=machine,
                inventory=hosts,
                observer=observer,
            )


def resume(
    run_id: int,
    *,
    store_url: StoreUrl,
    observer: Observer,
    root: SysRoot | None = None,
    inventory: Inventory | None = None,
    address: str = "",
) -> RunOutcome:
    """Go on with a run that was paused or interrupted: finished blocks stay, the broken one is repeated.

    Where a stage of a run that is under way waits for approval, this is the approval, and all that is done. The hosts
    are those of the run's record, in the `inventory` or in the one that the record names, at `address` where that has
    moved. A run whose restore was incomplete is taken up too: its hosts are looked for again, and verified. RunError
    where the run is over, or is still being driven by a process that is alive.
    """
    with contextlib.closing(open_store(store_url, create=False, wait_seconds=STORE_WAIT_SECONDS)) as store:
        record = store.run(run_id)
        if record.state.is_terminal and record.state is not RunState.RESTORE_INCOMPLETE:
            raise RunError(
                f"run {run_id} is over: {record.state.value}",
                where=f"run {run_id}",
                remedy="start a new one with 'fleetexp run'",
            )
        if awaits_approval(record) and (approved := approve(store, record, this_process())) is not None:
            return RunOutcome(
                run_id=run_id,
                state=RunState.RUNNING,
                decision=None,
                reason=f"approved: {approved}; the process that drives it goes on",
                exit_code=ExitCode.DONE,
            )
        experiment = parse_experiment(record.spec_text, source=f"run {run_id}")
        choice = FleetChoice.parse(record.fleet)
        choice = replace(choice, address=address if address and choice.address else choice.address)
        with contextlib.closing(inventory or open_inventory(choice, root)) as hosts:
            _wait_until_free(record, hosts, observer)
            machine = RunMachine.resumed(record.plan, store.periods(run_id), past_of(store, store.run(run_id)))
            store.record_event(run_id, EventKind.RESUMED, f"by {this_process()}")
            if machine.goal is not None:
                said = "run %d was being halted when it was interrupted: %s"
                log.warning(said, run_id, machine.goal.reason, extra={"run_id": run_id})
            return _drive(
                store,
                run_id=run_id,
                plan=record.plan,
                experiment=experiment,
                machine=machine,
                inventory=hosts,
                observer=observer,
            )


def restore_run(
    run_id: int, *, store_url: StoreUrl, root: SysRoot | None = None, inventory: Inventory | None = None
) -> Mapping[str, str]:
    """See to the hosts of a run that ended as restore incomplete; return those that are not restored yet, with why.

    Where none is left the run moves on to halted: every host restored. RunError where the run ended otherwise.
    """
    with contextlib.closing(open_store(store_url, create=False, wait_seconds=STORE_WAIT_SECONDS)) as store:
        record = store.run(run_id)
        if record.state is not RunState.RESTORE_INCOMPLETE:
            raise RunError(
                f"run {run_id} left no host unrestored: it is {record.state.value}",
                where=f"run {run_id}",
                remedy=f"'fleetexp status {run_id}' shows it; 'fleetexp restore' without --run looks at this host",
            )
        left = unrestored(store.events(run_id, kinds=[EventKind.NOT_RESTORED, EventKind.RESTORED]))
        store.record_event(run_id, EventKind.RESTORE_REQUESTED, f"by {this_process()}")
        with contextlib.closing(inventory or open_inventory(FleetChoice.parse(record.fleet), root)) as hosts:
            fleet = hosts.open(list(left), claim_name(record))
            restoring = Restoring(store=store, run_id=run_id, fleet=fleet, left=left)
            try:
                restoring.run()
            finally:
                fleet.close()
        if restoring.left:
            said = names(f"{host} ({why})" for host, why in restoring.left.items())
            store.set_run_state(run_id, RunState.RESTORE_INCOMPLETE, f"not restored: {said}", RunCause.RESTORE)
        else:
            said = f"every host restored: {names(restoring.restored)}"
            store.set_run_state(run_id, RunState.HALTED, said, RunCause.RESTORE)
        return restoring.left


def _drive(
    store: Store,
    *,
    run_id: int,
    plan: Plan,
    experiment: Experiment,
    machine: RunMachine,
    inventory: Inventory,
    observer: Observer,
) -> RunOutcome:
    analysis = analysis_plan(experiment, assigned_units(plan))
    counters = frozenset(name for name, metric in CATALOGUE.items() if metric.kind is MetricKind.COUNTER)
    counters = counters - set(experiment.metrics.sources) | experiment.counters

    name = claim_name(store.run(run_id))
    try:
        fleet = inventory.open([unit.host for unit in plan.units], name)
    except Exception as error:
        # A run that is being resumed keeps what it has: it can be resumed again.
        state = RunState.PAUSED if machine.again else RunState.FAILED
        store.set_run_state(run_id, state, f"the fleet did not start: {error}")
        raise
    central = _central(experiment, inventory.name)
    measured = Measured(
        store=store,
        run_id=run_id,
        plan=plan,
        counters=experiment.counters,
        elsewhere=frozenset() if central is None else frozenset(query.metric for query in central.queries),
        apart={} if is_simulated(inventory.name) else experiment.apart_at_most,
    )
    analyst = InterimAnalyst(measured=measured, analysis=analysis, now=fleet.clock.now)
    try:
        job = Job(
            run_id=run_id,
            holder=Holder(claim_name=name, owner=this_process()),
            machine=machine,
            store=store,
            fleet=fleet,
            tripwires=Tripwires(analysis.guardrails, counters=counters),
            central=central,
        )
        runner = Controller(
            job, analyst=analyst, progress=lambda runner: observer(progress_of(runner, analyst.verdicts))
        )
        with _signals(runner), of_run(run_id):
            state = runner.run()
    finally:
        fleet.close()
    observer(progress_of(runner, analyst.verdicts))
    return _outcome(store, run_id, state)


def _central(experiment: Experiment, fleet: str) -> CentralJob | None:
    """Return what is read from a metrics' server; None where nothing is, or the hosts are made up."""
    server, queries = experiment.metrics.server, experiment.central_queries
    return None if server is None or not queries or is_simulated(fleet) else CentralJob(server=server, queries=queries)


def claim_name(record: RunRecord) -> str:
    """Return the name under which a run claims hosts: run 1 of another database is another run."""
    stamp = hashlib.sha256(f"{record.experiment} {record.created_at.isoformat()}".encode()).hexdigest()[:8]
    return f"{record.run_id}-{stamp}"


def _outcome(store: Store, run_id: int, state: RunState) -> RunOutcome:
    record = store.run(run_id)
    findings = store.findings(run_id)
    if state is RunState.PAUSED:
        code = ExitCode.DONE if record.cause is RunCause.REQUEST else ExitCode.TOO_MANY_HOSTS_FAILED
    else:
        code = _EXIT[state]
    decided = findings is not None and state is RunState.COMPLETED
    return RunOutcome(
        run_id=run_id,
        state=state,
        decision=findings.decision if decided and findings is not None else None,
        reason=marked(findings.reason if decided and findings is not None else record.reason, record.fleet),
        exit_code=code,
    )


def _wait_until_free(record: RunRecord, inventory: Inventory, observer: Observer) -> None:
    """Wait for the leases of the orchestrator that died to run out; the guardians put the hosts back meanwhile."""
    run_id, plan, name = record.run_id, record.plan, claim_name(record)
    deadline = time.monotonic() + plan.safety.lease_seconds + 10.0
    ends_at: dict[str, float] = {}  # claim -> when its lease was to run out
    while held := [claim for claim in _claims(inventory, record) if claim.run == name and _upheld(claim)]:
        now = time.monotonic()
        for claim in held:
            end = now + claim.lease_remaining_seconds
            renewed = claim.agent_alive and end > ends_at.setdefault(claim.claim, end) + _RENEWED_SECONDS
            if renewed or is_running(claim.owner):
                raise RunError(
                    f"run {run_id} is still being driven by {claim.owner}",
                    where=f"run {run_id}",
                    remedy=f"pause it with 'fleetexp pause {run_id}', or end it with 'fleetexp abort {run_id}'",
                )
        if now > deadline:
            return  # claiming the hosts will say what is in the way
        hosts = f"{len(held)} hosts" if len(held) > 1 else "the host"
        observer(
            Progress(
                run_id=run_id,
                state=RunState.PREFLIGHT,
                planned_seconds=plan.seconds,
                elapsed_seconds=0.0,
                current=f"waiting for the guardian of the interrupted run to put {hosts} back",
            )
        )
        time.sleep(0.25)


def _claims(inventory: Inventory, record: RunRecord) -> list[ClaimStatus]:
    ours = {unit.host for unit in record.plan.units}
    return [found.claim for found in inventory.survey() if found.host in ours and found.claim is not None]


def _upheld(claim: ClaimStatus) -> bool:
    """Whether somebody will still act on a claim; where nobody is left, taking the host undoes it first."""
    return claim.lease_remaining_seconds > 0 or claim.guardian_alive


@contextlib.contextmanager
def _signals(runner: Controller) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run cleanly: restore, keep what was measured, say so. A second one changes nothing."""

    def stop(number: int, _frame: object) -> None:
        runner.ask(StopRequested(who=f"{this_process()} ({signal.Signals(number).name})"))

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


def _versions() -> Mapping[str, str]:
    return {"python": platform.python_version(), **{name: version_of(name) for name in _VERSIONED}}


__all__ = ["Observer", "launch", "restore_run", "resume"]
