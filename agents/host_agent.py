"""The agent of one host: answers each request of `agents.messages`, over the real root, a folder or a simulation."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from agents import host_pressure
from agents.claim import ClaimStatus, HostClaim, claim_status, closed_journals, restore, take_claim
from agents.collectors import Collectors
from agents.errors import AgentError, JournalError, LeaseExpired, WorkloadError
from agents.facts import survey
from agents.host_services import REAL_MEANS, HostServices
from agents.messages import (
    Applied,
    Apply,
    Begin,
    Begun,
    Claim,
    Claimed,
    End,
    Ended,
    HostFacts,
    KnobChange,
    KnobReason,
    Poll,
    Polled,
    Preflight,
    PreflightReport,
    Release,
    Released,
    Reply,
    Request,
    Revert,
    Reverted,
    Survey,
    WorkloadSpec,
    WorkloadState,
)
from agents.perf import probe_own_events
from agents.period import Fed, PeriodHost, PeriodReads, SampledPeriod, SampleSource
from agents.preflight import preflight
from agents.spool import Spool
from agents.survey.figures import SurveyPages
from agents.survey.survey import survey_pages
from agents.sysroot import SysRoot
from agents.tracing.period_calls import TracedSource
from agents.workloads import RunningWorkload

log = logging.getLogger(__name__)

T = TypeVar("T")
_BOOT_ID = "proc/sys/kernel/random/boot_id"


class HostAgent:
    """One host, one run at a time.

    `handle` may be called from several threads: a `Poll` renews the lease and is answered while another request is
    still at work; all others wait for each other. Errors are `agents.errors`, and leave the host as they found it or
    journaled for the guardian.
    """

    def __init__(
        self,
        *,
        root: SysRoot,
        host: str,
        run: str,
        labels: Mapping[str, str] | None = None,
        services: HostServices = REAL_MEANS,
    ) -> None:
        self.host = host
        self.run = run
        self._root = root
        self._services = services
        self._labels = dict(labels or {})
        self._changing = threading.Lock()
        self._claim: HostClaim | None = None
        self._collectors: Collectors | None = None
        self._collects_for: tuple[object, ...] = ()
        self._watch_sizes: tuple[int, ...] = ()
        self._period: SampledPeriod | None = None
        self._workload: RunningWorkload | None = None
        self._traced: TracedSource | None = None
        self._pressure: RunningWorkload | None = None
        self._hanging: list[RunningWorkload] = []
        self._spool: Spool | None = None

    def handle(self, request: Request) -> Reply:
        """Carry out one request; see `agents.messages` for what each does and answers."""
        match request:
            case Poll():
                return self._poll(request)
            case Survey():
                return self._facts()
            case SurveyPages():
                return survey_pages(self._root, self._facts(), request)
            case Preflight():
                return self._preflight(request)
            case Claim():
                return self._alone(lambda: self._take(request))
            case Apply():
                return self._alone(lambda: self._apply(request))
            case Begin():
                return self._alone(lambda: self._begin(request))
            case End():
                return self._alone(lambda: self._end(request))
            case Revert():
                return self._alone(lambda: self._revert(request))
            case Release():
                return self._alone(self._release)

    def close(self) -> None:
        """Put the host back where that is still ours to do, and stop everything. Never raises."""
        try:
            if self._claim is not None:
                self._alone(lambda: self._revert(Revert()))
            self._alone(self._release)
        except AgentError:
            log.exception("%s: closing the agent; the guardian holds the journal", self.host, extra={"host": self.host})
        finally:
            self._let_go()

    def abandon(self) -> None:
        """Stop sampling and let go of everything but the knobs: those are left to the agent that follows."""
        with self._changing:
            self._stop_everything("another agent took over")
            self._let_go()
            if self._claim is not None:
                self._claim.leave()
                self._claim = None

    def _alone(self, act: Callable[[], T]) -> T:
        with self._changing:
            return act()

    # ------------------------------------------------------------------ looking
    def _facts(self) -> HostFacts:
        return survey(self._root, host=self.host, labels=self._labels)

    def _preflight(self, request: Preflight) -> PreflightReport:
        facts = self._facts()
        held_by: ClaimStatus | JournalError | None
        try:
            held_by = claim_status(self._root)
        except JournalError as error:
            held_by = error
        ours = isinstance(held_by, ClaimStatus) and held_by.run == self.run
        own_events = probe_own_events(self._root, request.sources)
        return PreflightReport(
            own_events=own_events,
            problems=preflight(
                self._root,
                facts,
                request.arms,
                request.workloads,
                None if ours else held_by,
                check=self._services.check_workload,
                sources=request.sources,
                events=request.events,
                needed_events=request.needed_events,
                trace=request.trace,
                own_events=own_events,
                check_the_sources=self._services.check_sources,
            ),
        )

    def _boot_id(self) -> str:
        return self._root.read(_BOOT_ID).decode(errors="replace").strip()

    # ------------------------------------------------------------------ holding
    def _take(self, request: Claim) -> Claimed:
        undone = list(self._undone_without_us())
        claim = take_claim(
            self._root,
            run=request.run,
            owner=request.owner,
            knobs=request.knobs,
            lease_seconds=request.lease_seconds,
            guardian_command=self._services.guardian_command,
        )
        self._claim = claim
        self.run = request.run
        self._watch_sizes = _sizes_named(request.knobs)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", request.run)
        if self._spool is None:
            self._spool = Spool(self._root.state_dir / "spool" / f"{name}.jsonl")
        if request.pressure is not None:
            self._press(claim, request.pressure)
        return Claimed(found=dict(claim.found), leftovers=(*undone, *claim.leftovers), boot_id=self._boot_id())

    def _press(self, claim: HostClaim, spec: WorkloadSpec) -> None:
        """Have memory filled, renewing the lease meanwhile; where that fails the claim is given back."""
        self._stop_everything("the host was claimed anew")
        try:
            self._pressure = self._start(claim, spec, host_pressure.AT_MOST_SECONDS)
            host_pressure.wait_until_full(self._pressure, self._root.clock, claim.renew)
        except AgentError:
            self._release()
            raise

    def _undone_without_us(self) -> tuple[KnobChange, ...]:
        """What the guardian, or a person, has put back under an earlier claim of this run."""
        by_others = {KnobReason.GUARDIAN, KnobReason.RESTORE}
        return tuple(
            change
            for journal in closed_journals(self._root, run=self.run)
            for change in journal.changes
            if change.reason in by_others
        )

    def _held(self) -> HostClaim:
        if self._claim is None:
            raise LeaseExpired("this agent holds no claim", where=self.host, remedy="the run must claim the host again")
        return self._claim

    def _apply(self, request: Apply) -> Applied:
        changes = self._held().apply(request.arm, request.reason, short_pools=request.short_pools)
        if request.restart is not None:
            self._services.restart_service(request.restart, self._root)
        return Applied(arm=request.arm.name, changes=changes)

    def _revert(self, request: Revert) -> Reverted:
        try:
            self._stop_everything("the host was reverted")
        except Exception:  # whatever it is, it must not keep the host changed
            log.exception("%s: the period under way did not end well", self.host, extra={"host": self.host})
        if self._claim is not None:
            try:
                changes = self._claim.revert(request.reason)
                return Reverted(changes=changes, earlier=self._claim.take_untold())
            except LeaseExpired:
                self._claim.release()  # it has ended already: this closes its files
                self._claim = None
        return Reverted(changes=self._recover())

    def _recover(self) -> tuple[KnobChange, ...]:
        """Undo what an earlier agent of this run left, or say what the guardian has already put back."""
        status = claim_status(self._root)
        if status is not None and status.run == self.run:
            return restore(self._root, force=True)
        return self._undone_without_us()

    def _release(self) -> Released:
        self._stop_everything("the host was released")
        if self._claim is not None:
            self._claim.release()
            self._claim = None
        self._let_go()
        return Released()

    def _let_go(self) -> None:
        """Close what is kept open for sampling; what was not fetched stays on the disk."""
        if self._collectors is not None:
            self._collectors.close()
            self._collectors = None
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    # ------------------------------------------------------------------ measuring
    def _begin(self, request: Begin) -> Begun:
        claim = self._held()
        spool = self._spool
        if spool is None:
            raise LeaseExpired("the claim has no spool", where=self.host, remedy="the run must claim the host again")
        self._stop_period("the next period began")
        self._require_alone()
        if lost := host_pressure.why_gone(self._pressure):
            raise WorkloadError(lost, where=self.host, remedy="the block is repeated under a new claim of the host")
        workload: RunningWorkload | None = None
        try:
            if request.workload is not None:
                workload = self._launch(claim, request.workload, request.time_limit_seconds)
            source: SampleSource = self._sources(workload.cgroup if workload is not None else None, request)
            if request.trace:
                source = self._traced = TracedSource(source, claim.trace(request.trace))
            period = SampledPeriod(
                period_id=request.period_id,
                every_seconds=request.sample_every_seconds,
                reads=PeriodReads(
                    files=source,
                    workload=workload,
                    workload_kind=request.workload.kind if request.workload is not None else "",
                    metric_sources=self._metric_sources(request),
                ),
                claim=claim,
                spool=spool,
                host=PeriodHost(boot_id=self._boot_id, clock=self._root.clock, timer=self._services.timer),
            )
            period.start()
        except BaseException:
            self._end_trace()
            if workload is not None:
                self._halt_workload(workload)
            raise
        self._period, self._workload = period, workload
        return Begun(period_id=request.period_id, begun_at=period.begun_at, boot_id=self._boot_id())

    def _start(self, claim: HostClaim, spec: WorkloadSpec, time_limit_seconds: float) -> RunningWorkload:
        workload = self._services.start_workload(
            spec,
            root=self._root,
            work_dir=self._root.state_dir / "work",
            time_limit_seconds=time_limit_seconds,
            hold=True,
        )
        try:
            if workload.pid is not None:
                claim.guard_process(workload.pid)
        except AgentError:
            self._halt_workload(workload)
            raise
        return workload

    def _launch(self, claim: HostClaim, spec: WorkloadSpec, time_limit_seconds: float) -> RunningWorkload:
        workload = self._start(claim, spec, time_limit_seconds)
        try:
            workload.wait_until_ready(time_limit_seconds)
        except AgentError:
            self._halt_workload(workload)
            raise
        return workload

    def _sources(self, cgroup: str | None, request: Begin) -> Collectors:
        events, own = request.events, tuple(source for source in request.sources if source.perf)
        wanted = (self._watch_sizes, cgroup, events, own)
        if self._collectors is None or self._collects_for != wanted:
            if self._collectors is not None:
                self._collectors.close()
            self._collectors = Collectors(
                self._root, watch_sizes_kib=self._watch_sizes, cgroup=cgroup, events=events, own_events=own
            )
            self._collects_for = wanted
        return self._collectors

    def _metric_sources(self, request: Begin) -> Fed | None:
        if not request.sources:
            return None
        every = request.sample_every_seconds
        return self._services.metric_sources(request.sources, self._root, host=self.host, sample_every_seconds=every)

    def _end(self, request: End) -> Ended:
        period = self._period
        if period is None or period.period_id != request.period_id:
            raise WorkloadError(
                f"period {request.period_id} is not running", where=self.host, remedy="it is repeated with its block"
            )
        traced = self._traced
        self._stop_period(host_pressure.why_gone(self._pressure))
        state, detail = period.workload
        return Ended(
            period_id=period.period_id,
            ended_at=period.ended_at,
            last_position=self._spool.last_position if self._spool is not None else 0,
            workload=state,
            workload_detail=detail,
            invalid=period.invalid,
            calls=traced.calls if traced is not None else (),
        )

    def _stop_period(self, void: str) -> None:
        period, workload = self._period, self._workload
        self._period = self._workload = None
        if period is not None:
            if void:
                period.void(void)
            try:
                period.stop()
            finally:
                self._end_trace()
                if workload is not None:
                    self._halt_workload(workload)

    def _end_trace(self) -> None:
        traced, self._traced = self._traced, None
        if traced is not None:
            traced.close()

    def _stop_everything(self, void: str) -> None:
        pressure, self._pressure = self._pressure, None
        try:
            self._stop_period(void)
        finally:
            if pressure is not None:
                self._halt_workload(pressure)

    def _require_alone(self) -> None:
        """Refuse to measure beside what an earlier period has left behind, under another arm perhaps."""
        hanging, self._hanging = self._hanging, []
        for workload in hanging:
            self._halt_workload(workload)
        if self._hanging:
            pids = ", ".join(str(workload.pid) for workload in self._hanging)
            raise WorkloadError(
                f"the workload of an earlier period can't be killed: it hangs in the kernel (process {pids})",
                where=self.host,
                remedy="the block is repeated once it has ended; reboot the host where it does not",
            )

    def _halt_workload(self, workload: RunningWorkload) -> None:
        """End it. One that hangs in the kernel stays the guardian's to kill, and nothing is measured beside it."""
        if not workload.stop():
            self._hanging.append(workload)
            return
        if workload.pid is not None and self._claim is not None:
            self._claim.unguard_process(workload.pid)

    def _poll(self, request: Poll) -> Polled:
        claim, period, spool = self._claim, self._period, self._spool
        if claim is None or spool is None:
            raise LeaseExpired("this agent holds no claim", where=self.host, remedy="the run must claim the host again")
        claim.renew()
        if period is None:  # in a period, its tick sees to that, and tells
            claim.ensure_guardian()
        spool.acknowledge(request.acknowledged)
        readings, more = spool.pending(request.at_most)
        state, detail = period.workload if period is not None else (WorkloadState.NONE, "")
        return Polled(
            readings=readings,
            more=more,
            lease_remaining_seconds=claim.lease_remaining_seconds,
            period_id=period.period_id if period is not None else 0,
            workload=state,
            workload_detail=detail,
            drift=tuple(period.drift) if period is not None else (),
        )


def _sizes_named(knobs: tuple[str, ...]) -> tuple[int, ...]:
    """The page sizes, in KiB, that the knobs' names speak of."""
    return tuple(sorted({int(size) for knob in knobs for size in re.findall(r"/(\d+)kB/", knob)}))
