"""Read metrics from a server during a run: ask in a thread of its own, store what comes, watch the limits.

The run never waits for the server but before an analysis, and there for a bounded time.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from agents.messages import HostFacts, Measurement
from fleetexp.central_metrics.client import MetricsClient
from fleetexp.central_metrics.failure import CentralFailure
from fleetexp.central_metrics.reading import StretchRead, read_stretch, warnings_of
from fleetexp.control.central_periods import FinishedPeriod, NewPoints, QueryPeriods
from fleetexp.control.messages import RecordFact, TripwireCrossed
from fleetexp.control.run_context import RunContext
from fleetexp.control.write_queue import each
from fleetexp.domain import CentralGap, CentralOutcome, EventKind, PeriodKind, PeriodPlan, PeriodState
from fleetexp.experiment.central import CentralQuery, MetricsServer
from fleetexp.experiment.schedule import host_info
from fleetexp.store.records import CentralRequest, CentralValue

log = logging.getLogger(__name__)

GIVE_UP_SECONDS = 600.0  # after a period should have been read
WAIT_SECONDS = 60.0  # of an analysis, beyond the settling delay and the time of a request
RETRY_SECONDS = 5.0  # after a request that failed; twice as long after each more, up to the query's own interval
CLOCK_EVERY_SECONDS = 600.0
FIRST_SEQUENCE = 1_000_000_000  # of the values of a server within a period: far behind what a host reports
PLACES = 1_000_000  # instants of one metric within a period
_STORED = each(7)  # behind the closing of the period
_READ = frozenset({PeriodKind.BASELINE, PeriodKind.MEASURE})


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralJob:
    """What a run reads from a metrics' server."""

    server: MetricsServer
    queries: tuple[CentralQuery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """What a look at the server's clock gave."""

    ahead: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    act: Callable[[frozenset[str]], None]
    upto: float
    until: float


class CentralReadings:
    """The server's side of a runner: `turn` is called in each of its turns. Used from the runner's thread."""

    def __init__(self, context: RunContext, job: CentralJob) -> None:
        self._context = context
        self._job = job
        self._periods = [QueryPeriods(query) for query in job.queries]
        self._labels: dict[str, Mapping[str, str]] = {unit.host: {} for unit in context.plan.units}
        self._places = {query.metric: place for place, query in enumerate(job.queries)}
        self._client = MetricsClient(job.server)
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._under_way = False
        self._failed: Counter[str] = Counter()  # metric -> requests in a row that failed
        self._not_before: dict[str, float] = {}
        self._warned: set[tuple[str, str]] = set()
        self._clock_at = 0.0
        self._clock: _Clock | None = None
        self._waiting: list[_Waiting] = []
        self._given_up: set[str] = set()  # metrics of periods that got no answer, since somebody last waited
        self._sent_at: dict[str, float] = {}  # host -> when it was last asked to begin a period
        self._apart: set[str] = set()  # hosts whose clock was told to be another than the server's
        self._thread = threading.Thread(target=self._work, name="central-metrics", daemon=True)
        self._thread.start()
        self._take_up()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._found.put(task())
            except CentralFailure as failure:
                self._found.put(failure)
            except Exception as error:
                log.exception("asking the metrics' server failed")
                self._found.put(error)

    def close(self) -> None:
        """Ask nothing more; a request under way is left to its timeout."""
        self._tasks.put(None)

    # ------------------------------------------------------------------ which periods there are
    def _take_up(self) -> None:
        """Begin with the periods that an earlier process of this run saw ending and did not read."""
        store, run_id = self._context.store, self._context.run_id
        have = {(value.period_id, value.metric) for value in store.central_values(run_id)}
        for one in store.periods(run_id):
            if one.state is PeriodState.COMPLETE and one.plan.kind in _READ and one.started_at and one.ended_at:
                for periods in self._periods:
                    if (one.period_id, periods.query.metric) not in have:
                        periods.begin(one.period_id, one.host, one.plan.arm, one.started_at.timestamp())
                        periods.end(one.period_id, one.ended_at.timestamp(), known_at=self._now())

    def surveyed(self, facts: HostFacts) -> None:
        self._labels[facts.host] = host_info(facts).labels

    def asked_to_begin(self, host: str) -> None:
        self._sent_at[host] = self._now()

    def begun(self, period_id: int, host: str, plan: PeriodPlan, started_at: datetime) -> None:
        self._compare_clocks(host, started_at.timestamp())
        if plan.kind in _READ:
            for periods in self._periods:
                periods.begin(period_id, host, plan.arm, started_at.timestamp())

    def ended(self, period_id: int, ended_at: datetime) -> None:
        for periods in self._periods:
            periods.end(period_id, ended_at.timestamp())

    def dropped(self, period_id: int) -> None:
        for periods in self._periods:
            periods.drop(period_id)

    def once_read(self, act: Callable[[frozenset[str]], None]) -> None:
        """Do something once everything up to now is read, or the server has been waited for long enough.

        It is told the metrics of which the server did not give everything.
        """
        now = self._now()
        settle = max(query.settle_seconds for query in self._job.queries)
        until = now + settle + self._job.server.timeout + WAIT_SECONDS
        self._waiting.append(_Waiting(act=act, upto=now, until=until))

    # ------------------------------------------------------------------ a turn
    def turn(self) -> None:
        now = self._now()
        while not self._found.empty():
            self._under_way = False
            self._take(self._found.get(), now)
        for periods in self._periods:
            self._write([], list(periods.finished()))
            self._write([], list(periods.give_up(now - periods.query.settle_seconds - GIVE_UP_SECONDS)))
        if not self._under_way:
            self._ask(now)
        for waiting in list(self._waiting):
            late = now > waiting.until
            if late:
                self._given_up |= {one.query.metric for one in self._periods if one.outstanding(waiting.upto)}
                for periods in self._periods:
                    self._write([], list(periods.give_up(waiting.upto + 1.0)))
            if late or not (self._under_way or any(one.outstanding(waiting.upto) for one in self._periods)):
                self._waiting.remove(waiting)
                unread, self._given_up = frozenset(self._given_up), set()
                waiting.act(unread)

    def _ask(self, now: float) -> None:
        if now >= self._clock_at + CLOCK_EVERY_SECONDS:
            self._clock_at = now
            self._start(lambda: _Clock(**dict(zip(("ahead", "error"), self._client.clock_ahead(), strict=True))))
            return
        awaited = [waiting.upto for waiting in self._waiting]
        for periods in sorted(self._periods, key=lambda one: self._not_before.get(one.query.metric, 0.0)):
            if now < self._not_before.get(periods.query.metric, 0.0):
                continue
            stretch = periods.stretch(now, awaited=awaited)
            if stretch is not None:
                periods.asked(now)
                self._start(partial(read_stretch, self._client, stretch, dict(self._labels)))
                return

    def _start(self, task: Callable[[], object]) -> None:
        self._under_way = True
        self._tasks.put(task)

    def _take(self, found: object, now: float) -> None:
        match found:
            case StretchRead():
                self._taken(found, now)
            case _Clock():
                self._tell_clock(found)
            case CentralFailure():
                return  # the clock could not be asked for: what a metric's own request says is enough
            case Exception():
                self._context.note(RecordFact(kind=EventKind.CENTRAL_WARNING, detail=f"a defect: {found!r}"))

    def _taken(self, read: StretchRead, now: float) -> None:
        query = read.stretch.query
        (periods,) = (one for one in self._periods if one.query is query)
        context, run_id = self._context, self._context.run_id
        requests = [_request(self._job.server.url, read, place) for place in range(len(read.asked))]
        context.write_queue.add(_STORED, lambda: context.store.record_central_requests(run_id, requests))
        failure = read.failure
        if failure is not None:
            self._failed[query.metric] += 1
            wait = RETRY_SECONDS * 2 ** min(self._failed[query.metric] - 1, 10)
            self._not_before[query.metric] = now + min(wait, max(RETRY_SECONDS, query.every_seconds))
            periods.asked(-1e300)  # as soon as that has passed
            if self._failed[query.metric] == 1:
                self._note(EventKind.CENTRAL_AWAY, query.metric, f"{failure.outcome.value}: {failure}")
            return
        if self._failed.pop(query.metric, 0):
            self._note(EventKind.CENTRAL_BACK, query.metric, "what was missed meanwhile is asked for again")
        for text in warnings_of(read):
            if (query.metric, text) not in self._warned and len(self._warned) < 100:
                self._warned.add((query.metric, text))
                self._note(EventKind.CENTRAL_WARNING, query.metric, text)
        self._write(list(periods.take(read)), list(periods.finished()))

    # ------------------------------------------------------------------ what is stored, and told
    def _write(self, points: Sequence[NewPoints], finished: Sequence[FinishedPeriod]) -> None:
        context = self._context
        if points:
            batches: dict[str, list[Measurement]] = {}
            for new in points:
                batches.setdefault(new.period.host, []).extend(self._measurements(new))
            context.write_queue.add(_STORED, lambda: context.store.append_many(batches))
            for new in points:
                self._watch(new)
        if not finished:
            return
        values = {
            CentralValue(
                period_id=one.period.period_id,
                metric=one.period.metric + ending,
                due=one.due,
                read=one.read,
                gap=one.gap,
            ): summary
            for one in finished
            for ending, summary in {"": one.summary, **one.ends}.items()
        }
        context.write_queue.add(_STORED, lambda: context.store.save_central_values(values))
        missing = Counter((one.period.metric, one.gap) for one in finished if one.gap is not CentralGap.NONE)
        self._given_up |= {metric for metric, gap in missing if gap is CentralGap.NO_ANSWER}
        for (metric, gap), number in missing.items():
            hosts = sorted({one.period.host for one in finished if one.gap is gap})
            said = f"{metric}: {number} periods have no value: {gap.value.replace('_', ' ')}: {', '.join(hosts[:5])}"
            self._note(EventKind.CENTRAL_MISSING, metric, said + (" and others" if len(hosts) > 5 else ""))

    def _measurements(self, new: NewPoints) -> Iterator[Measurement]:
        metric = new.period.metric
        query = self._job.queries[self._places[metric]]
        begin = FIRST_SEQUENCE + self._places[metric] * PLACES
        for step, place, value in zip(new.steps, new.places, new.values, strict=True):
            yield Measurement(
                position=0,
                period_id=new.period.period_id,
                sequence=begin + place % PLACES,
                taken_at=datetime.fromtimestamp(step * query.step_seconds, UTC),
                metric=metric,
                value=value,
            )

    def _watch(self, new: NewPoints) -> None:
        """Look for a tripwire that was crossed. It was under the arm of the period, whatever holds by now."""
        measurements = list(self._measurements(new))
        self._context.latest[new.period.metric] = measurements[-1].value
        crossed = self._context.job.tripwires.watch(new.period.host, measurements)
        if isinstance(crossed, TripwireCrossed):
            self._context.events.append(replace(crossed, arm=new.period.arm))

    def _tell_clock(self, clock: _Clock) -> None:
        """Tell it once, and again where it has moved by more than can be an error of the measurement."""
        before, self._clock = self._clock, clock
        context, run_id = self._context, self._context.run_id
        at = context.now()
        request = CentralRequest(
            metric="",
            server=self._job.server.url,
            promql="time()",
            start_at=at,
            end_at=at,
            step_seconds=0.0,
            asked_at=at,
            took_seconds=2 * clock.error,
            outcome=CentralOutcome.ANSWERED,
            ahead_seconds=clock.ahead,
            ahead_error_seconds=clock.error,
        )
        context.write_queue.add(_STORED, lambda: context.store.record_central_requests(run_id, [request]))
        step = min(query.step_seconds for query in self._job.queries)
        if before is None or abs(clock.ahead - before.ahead) > clock.error + before.error + step / 2:
            far = " — more than half a step: values may be counted for the period before or after" * (
                abs(clock.ahead) - clock.error > step / 2
            )
            which = "ahead of" if clock.ahead >= 0 else "behind"
            said = f"the server's clock is {abs(clock.ahead):.3f} s {which} ours, within {clock.error:.3f} s{far}"
            self._note(EventKind.CENTRAL_CLOCK, "", said)

    def _compare_clocks(self, host: str, started: float) -> None:
        """Tell, once a host, that its clock is provably more than half a step from the server's.

        The host began between our asking and its answer: its clock is ahead of ours by `started` less either, or by
        anything between.
        """
        sent, clock = self._sent_at.pop(host, None), self._clock
        if sent is None or clock is None or host in self._apart:
            return
        least, most = started - self._now() - clock.ahead - clock.error, started - sent - clock.ahead + clock.error
        apart = least if least > 0 else most if most < 0 else 0.0
        if abs(apart) > min(query.step_seconds for query in self._job.queries) / 2:
            self._apart.add(host)
            which = "ahead of" if apart > 0 else "behind"
            said = (
                f"its clock is at least {abs(apart):.1f} s {which} the metrics' server's: set both by one time server"
            )
            self._context.note(RecordFact(kind=EventKind.CENTRAL_CLOCK, detail=said, host=host))

    def _note(self, kind: EventKind, metric: str, detail: str) -> None:
        self._context.note(RecordFact(kind=kind, detail=detail, metric=metric))

    def _now(self) -> float:
        return self._context.now().timestamp()


def _request(server: str, read: StretchRead, place: int) -> CentralRequest:
    one = read.asked[place]
    start, end = read.stretch.seconds
    answer = one.answer
    return CentralRequest(
        metric=read.stretch.query.metric,
        server=server,
        promql=one.promql,
        start_at=datetime.fromtimestamp(start, UTC),
        end_at=datetime.fromtimestamp(end, UTC),
        step_seconds=read.stretch.query.step_seconds,
        asked_at=datetime.fromtimestamp(one.asked_at, UTC),
        took_seconds=one.took_seconds,
        outcome=one.outcome,
        detail="" if one.failure is None else str(one.failure),
        warnings=() if answer is None else (*answer.warnings, *answer.infos),
        series=0 if answer is None else len(answer.series),
        size_bytes=0 if answer is None else answer.size_bytes,
        sha256=None if answer is None else answer.sha256,
    )
