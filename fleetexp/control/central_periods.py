"""Which instants of which periods a metrics' server is still to be asked for, and what its answers come to. No I/O."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agents.messages import AT_LEAST, AT_MOST
from analysis.aggregate import Summary, summarise
from fleetexp.central_metrics.client import MOST_POINTS, MOST_STEPS
from fleetexp.central_metrics.reading import Stretch, StretchRead
from fleetexp.domain import CentralGap
from fleetexp.experiment.central import CentralQuery

LEAST_SHARE = 0.8  # of a period's instants: with fewer values than that it has none
_ROUNDING = 1e-6  # of a step: an instant on the edge of a period is in it


@dataclass(slots=True, kw_only=True)
class OpenPeriod:
    """A period that is read. Instants are counted in steps since 1970; `ended` is None while it runs."""

    period_id: int
    metric: str
    host: str
    arm: str
    first: int  # the first instant at which the query sees nothing of before the period
    ended: float | None = None
    over_since: float = math.inf  # it has been known to be over, and is asked for
    next: int = 0  # all before it are read
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    ends: dict[str, list[float]] = field(default_factory=dict)  # of a histogram's buckets, NaN for none
    seen: bool = False  # a series of the host has been in an answer
    ambiguous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPoints:
    """What an answer added to a period: instants in steps since 1970, their places from the first, and values."""

    period: OpenPeriod
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def places(self) -> Iterator[int]:
        return (step - self.period.first for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPeriod:
    """A period of which nothing more is read. `summary` is None where `gap` says why it has no value."""

    period: OpenPeriod
    due: int
    read: int
    gap: CentralGap
    summary: Summary | None
    ends: Mapping[str, Summary] = field(default_factory=dict)  # of a histogram's buckets: ending of the metric's name


class QueryPeriods:
    """The periods that one query is asked for. Times are Unix seconds."""

    def __init__(self, query: CentralQuery) -> None:
        self.query = query
        self._open: dict[int, OpenPeriod] = {}
        self._asked_at = -math.inf

    def begin(self, period_id: int, host: str, arm: str, started: float) -> None:
        first = math.ceil((started + self.query.lookback_seconds) / self.query.step_seconds - _ROUNDING)
        self._open[period_id] = OpenPeriod(
            period_id=period_id, metric=self.query.metric, host=host, arm=arm, first=first, next=first
        )

    def end(self, period_id: int, ended: float, *, known_at: float = -math.inf) -> None:
        """Say that a period is over; `known_at`: only then was it known, by a run that was taken up again."""
        if (period := self._open.get(period_id)) is not None:
            period.ended, period.over_since = ended, max(ended, known_at)

    def drop(self, period_id: int) -> None:
        """Read no more of a period: it was struck out."""
        self._open.pop(period_id, None)

    def outstanding(self, upto: float) -> bool:
        """Whether anything from before `upto` is still to be read."""
        return any(period.ended is not None or period.next <= self._step_at(upto) for period in self._open.values())

    def stretch(self, now: float, *, awaited: Collection[float] = ()) -> Stretch | None:
        """Return what is to be asked for now; None while nothing has settled, or it is too soon to ask again.

        Periods of many hosts end one by one: they are gathered for half a settling delay, so that the number of
        requests does not grow with the hosts. `awaited`: up to when somebody waits for everything, also of periods
        that go on: for that nothing is gathered.
        """
        settled = self._step_at(now - self.query.settle_seconds)
        gathered = self._step_at(now - 1.5 * self.query.settle_seconds)
        wanted = [period for period in self._open.values() if period.next <= self._last(period, settled)]
        due = any(period.ended is not None and self._end(period) <= gathered for period in wanted) or any(
            self._step_at(upto) <= settled and self.outstanding(upto) for upto in awaited
        )
        apart = max(1.0, self.query.settle_seconds / 2) if due else self.query.every_seconds
        if not wanted or now < self._asked_at + min(apart, self.query.every_seconds):
            return None
        first = min(period.next for period in wanted)
        hosts = tuple(dict.fromkeys(period.host for period in wanted))
        most = max(1, min(MOST_STEPS, MOST_POINTS // len(hosts)))
        last = min(max(self._last(period, settled) for period in wanted), first + most - 1)
        return Stretch(query=self.query, first=first, last=last, hosts=hosts)

    def asked(self, now: float) -> None:
        self._asked_at = now

    def take(self, read: StretchRead) -> Iterator[NewPoints]:
        """Share an answer out among the periods: no instant is taken twice, none outside of its period."""
        last = read.stretch.last
        for period in self._open.values():
            upto = self._last(period, last)
            if period.next > upto or period.next < read.stretch.first or period.host not in read.stretch.hosts:
                continue
            begin, period.next = period.next, upto + 1
            period.ambiguous |= period.host in read.ambiguous
            points = read.points.get(period.host)
            if points is None:
                continue
            period.seen = True
            low, high = np.searchsorted(points.steps, [begin - 0.5, upto + 0.5])
            steps = [int(step) for step in points.steps[low:high]]
            values = points.values[low:high].tolist()
            period.steps += steps
            period.values += values
            if (histogram := points.histogram) is not None:
                for ending, ends in ((AT_LEAST, histogram.at_least), (AT_MOST, histogram.at_most)):
                    period.ends.setdefault(ending, []).extend(ends[low:high].tolist())
            if steps:
                yield NewPoints(period=period, steps=tuple(steps), values=tuple(values))

    def finished(self) -> Iterator[FinishedPeriod]:
        """Take out the periods that are over and read to their end."""
        for period in [one for one in self._open.values() if one.ended is not None]:
            if period.next > self._end(period):
                yield self._finish(period, CentralGap.NONE)

    def give_up(self, before: float) -> Iterator[FinishedPeriod]:
        """Take out the periods that have been over since before and could not be read."""
        for period in [one for one in self._open.values() if one.over_since < before]:
            yield self._finish(period, CentralGap.NO_ANSWER)

    def _finish(self, period: OpenPeriod, gap: CentralGap) -> FinishedPeriod:
        del self._open[period.period_id]
        due, read = max(0, self._end(period) - period.first + 1), len(period.values)
        if gap is CentralGap.NONE:
            gap = _gap(period, due, read)
        if gap is not CentralGap.NONE:
            return FinishedPeriod(period=period, due=due, read=read, gap=gap, summary=None)
        return FinishedPeriod(
            period=period,
            due=due,
            read=read,
            gap=gap,
            summary=_summary(period.values),
            ends={ending: _summary(ends) for ending, ends in period.ends.items() if np.isfinite(ends).all()},
        )

    def _step_at(self, seconds: float) -> int:
        return math.floor(seconds / self.query.step_seconds + _ROUNDING)

    def _end(self, period: OpenPeriod) -> int:
        assert period.ended is not None  # noqa: S101 - asked of those that are over
        return self._step_at(period.ended)

    def _last(self, period: OpenPeriod, settled: int) -> int:
        return settled if period.ended is None else min(settled, self._end(period))


def _summary(values: Sequence[float]) -> Summary:
    return summarise(np.arange(float(len(values))), np.array(values), "gauge")


def _gap(period: OpenPeriod, due: int, read: int) -> CentralGap:
    if due == 0:
        return CentralGap.TOO_SHORT
    if period.ambiguous:
        return CentralGap.SEVERAL_SERIES
    if not period.seen:
        return CentralGap.NO_SERIES
    return CentralGap.TOO_FEW if read < LEAST_SHARE * due else CentralGap.NONE
