"""One period being sampled: what is read on each tick, what of it is kept, and what makes the period invalid."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

from agents.catalogue import FOR_A_SERVICE, find_foreign
from agents.clock import SYSTEM_CLOCK, Clock
from agents.errors import AgentError, LeaseExpired
from agents.messages import HostEvent, HostEventKind, Measurement, Reading, Sample, WorkloadState
from agents.sampling_timer import ThreadTimer, TimerMaker
from agents.spool import Spool

log = logging.getLogger(__name__)

# What a tick may raise without ending the period's sampling; anything else is a defect and must be seen.
_TICK_ERRORS = (OSError, ValueError, AgentError)
FOREIGN_NAMES_TOLD = 20  # in one period: who makes names up has no end of them


class SampleSource(Protocol):
    """What a period reads on each tick (`agents.collectors.Collectors`)."""

    def sample(self) -> dict[str, float]: ...
    def boundary(self) -> dict[str, float]: ...
    def events(self) -> list[tuple[HostEventKind, str]]: ...


class Watched(Protocol):
    """The workload under the period (`agents.workloads.RunningWorkload`)."""

    def poll(self) -> tuple[WorkloadState, str]: ...
    def go(self) -> None: ...
    def measurements(self) -> list[tuple[datetime, str, float]]: ...
    def stop(self, timeout_seconds: float = 10.0) -> bool: ...


class Fed(Protocol):
    """The sources of the user's own metrics (`agents.metric_sources`): each has its own times, none is waited for."""

    @property
    def metrics(self) -> frozenset[str]: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def measurements(self) -> list[tuple[datetime, str, float]]: ...
    def lost(self) -> list[tuple[str, str]]: ...


class Drift(Protocol):
    """A knob that does not hold what its arm wants (`agents.claim.Drift`)."""

    @property
    def knob(self) -> str: ...
    @property
    def wanted(self) -> str: ...
    @property
    def actual(self) -> str: ...


class Held(Protocol):
    """What a period asks of the claim."""

    @property
    def lease_remaining_seconds(self) -> float: ...
    def drift(self) -> Sequence[Drift]: ...
    def ensure_guardian(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodReads:
    """What a period reads: the host's files, the workload (of a kind, None: none), the user's own metrics."""

    files: SampleSource
    workload: Watched | None = None
    workload_kind: str = ""
    metric_sources: Fed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodHost:
    """What a period asks of the host it is on: which boot this is, what time it is, and to be woken."""

    boot_id: Callable[[], str]
    clock: Clock = SYSTEM_CLOCK
    timer: TimerMaker = ThreadTimer


class SampledPeriod:
    """A period from its first boundary sample to its last. `stop` may be called from any thread, once or more."""

    def __init__(
        self, *, period_id: int, every_seconds: float, reads: PeriodReads, claim: Held, spool: Spool, host: PeriodHost
    ) -> None:
        self.period_id = period_id
        # Of the first and the last sample: a rate times this length is what a counter really rose by.
        self.begun_at = self.ended_at = host.clock.now()
        self.invalid = ""
        self.drift: dict[str, str] = {}
        self._source = reads.files
        self._claim = claim
        self._workload = reads.workload
        self._workload_kind = reads.workload_kind
        self._metric_sources = reads.metric_sources
        self._spool = spool
        self._boot_id = host.boot_id
        self._began_on = host.boot_id()
        self._sequence = 0
        self._workload_state: tuple[WorkloadState, str] = (WorkloadState.NONE, "")
        self._seen_failed = False
        self._foreign: set[str] = set()  # names of others under which something was reported, and that has been told
        self._clock = host.clock
        self._stopped = False
        self._stopping = threading.Lock()
        self._timer = host.timer(every_seconds, self._on_tick, f"period-{period_id}")

    @property
    def workload(self) -> tuple[WorkloadState, str]:
        return self._workload_state

    def start(self) -> None:
        """Take the first boundary sample, let the workload go, start sampling; OSError where the reading fails."""
        self._read(boundary=True)
        if self._workload is not None:
            self._workload.go()
        self.begun_at = self.ended_at
        if self._metric_sources is not None:
            self._metric_sources.start()
        self._timer.start()

    def stop(self) -> None:
        """Take the last boundary sample, stop the workload, keep what it still said. Idempotent."""
        with self._stopping:
            if self._stopped:
                return
            self._stopped = True
            self._timer.stop()
            if self._metric_sources is not None:
                self._metric_sources.stop()
            self._tick(boundary=True)
            if self._workload is not None:
                if not self._workload.stop():
                    self._event(HostEventKind.WORKLOAD_FAILED, self._workload.poll()[1])
                self._drain()
            if self._boot_id() != self._began_on:
                self.void("the host was rebooted in this period")
                self._event(HostEventKind.REBOOT, f"boot id was {self._began_on}")

    def void(self, reason: str) -> None:
        """Mark the period as not to be used; the first reason stays."""
        self.invalid = self.invalid or reason

    # ------------------------------------------------------------------ the tick
    def _on_tick(self) -> None:
        try:
            self._tick(boundary=False)
        except BaseException as error:  # without it nobody watches the knobs: never used, and seen
            what = f"sampling ended with a defect: {error!r}"
            self.void(what)
            with suppress(OSError, AgentError):  # the spool may be what failed
                self._event(HostEventKind.SOURCE_LOST, what)
            raise

    def _tick(self, *, boundary: bool) -> None:
        try:
            self._read(boundary=boundary)
        except _TICK_ERRORS as error:
            log.exception("period %d: a reading failed", self.period_id)
            self.void(f"a reading failed: {error}")

    def _read(self, *, boundary: bool) -> None:
        values = self._source.boundary() if boundary else self._source.sample()
        taken_at, boottime = self._clock.now(), self._clock.boot_seconds()
        self.ended_at = taken_at
        self._keep(partial(Sample, taken_at=taken_at, boottime_seconds=boottime, values=values))
        self._drain()
        self._drain_feeds()
        for kind, detail in self._source.events():
            self._event(kind, detail)
        self._watch_claim()
        self._watch_workload()

    def _drain(self) -> None:
        if self._workload is not None:
            sources = self._metric_sources.metrics if self._metric_sources is not None else frozenset()
            self._keep_own(self._workload.measurements(), "the workload", self._workload_kind, sources)

    def _keep_own(
        self, measured: Sequence[tuple[datetime, str, float]], who: str, reporter: str, sources: frozenset[str]
    ) -> None:
        """Keep what was reported under a name that is the reporter's to use; anything else makes the period invalid."""
        for taken_at, metric, value in measured:
            owned = find_foreign(metric, reporter=reporter, sources=sources)
            if owned is None:
                self._keep(partial(Measurement, taken_at=taken_at, metric=metric, value=value))
            elif metric not in self._foreign and len(self._foreign) < FOREIGN_NAMES_TOLD:
                self._foreign.add(metric)
                what = f"{who} reports {metric}: {owned}"
                self._event(HostEventKind.FOREIGN_METRIC, what)
                self.void(what)

    def _drain_feeds(self) -> None:
        if self._metric_sources is None:
            return
        self._keep_own(self._metric_sources.measurements(), "a source", FOR_A_SERVICE, self._metric_sources.metrics)
        for metric, detail in self._metric_sources.lost():
            self._event(HostEventKind.SOURCE_LOST, detail, metric)

    def _watch_claim(self) -> None:
        if self._claim.lease_remaining_seconds <= 0:
            if not self.invalid:
                self._event(
                    HostEventKind.LEASE_EXPIRED, "no word from the orchestrator; the guardian has undone the knobs"
                )
            self.void("the lease ran out")
            if self._workload is not None:
                self._workload.stop()
            return
        try:
            drift = {d.knob: f"wanted {d.wanted!r}, reads {d.actual!r}" for d in self._claim.drift()}
            if self._claim.ensure_guardian():
                self._event(HostEventKind.GUARDIAN_RESTARTED, "the guardian was gone and has been started again")
        except LeaseExpired:
            self.void("the lease ran out")
            return
        for knob, detail in drift.items():
            if self.drift.get(knob) != detail:
                self._event(HostEventKind.DRIFT, f"{knob}: {detail}")
                self.void(f"drift: {knob}: {detail}")
        self.drift = drift

    def _watch_workload(self) -> None:
        if self._workload is None:
            return
        self._workload_state = self._workload.poll()
        state, detail = self._workload_state
        if state is WorkloadState.FAILED and not self._seen_failed:
            self._seen_failed = True
            self._event(HostEventKind.WORKLOAD_FAILED, detail)
            self.void(f"workload failed: {detail}")

    # ------------------------------------------------------------------ what is kept
    def _keep(self, make: Callable[..., Reading]) -> None:
        """Number a reading within the period and the stream, and spool it."""
        self._sequence += 1
        sequence = self._sequence
        self._spool.append(lambda position: make(position=position, period_id=self.period_id, sequence=sequence))

    def _event(self, kind: HostEventKind, detail: str, metric: str = "") -> None:
        self._keep(partial(HostEvent, taken_at=self._clock.now(), kind=kind, detail=detail, metric=metric))
