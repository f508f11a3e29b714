"""One place read at its own interval, from the start of a period to its end."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from agents.histograms.buckets import UnusableHistogram
from agents.messages import SourceForm
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.instants import check_age
from agents.metric_sources.period_histogram import PeriodHistogram
from agents.metric_sources.picking import Found
from agents.metric_sources.prometheus_text import SeriesValue
from agents.metric_sources.reading import SourceReading, boottime, read_place
from agents.metric_sources.summed import SummedCounter
from agents.metric_sources.unreadable import Unreadable
from agents.sysroot import SysRoot

log = logging.getLogger(__name__)

Measured = tuple[datetime, str, float]

KEPT_AT_MOST = 100_000  # values between two ticks of the period


class SourceReader:
    """A thread that reads, and what it has read since it was last asked.

    Each value has the instant at which it was read: the middle of the asking, or what the page itself gives. One that
    the page gives again, or that is older than the period, is not a new value.
    """

    def __init__(self, place: SourceReading, root: SysRoot, *, every_seconds: float) -> None:
        self._place = place
        self._root = root
        self._every = every_seconds
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._cut = Cancellation()
        self._measured: list[Measured] = []
        self._lost: list[tuple[str, str]] = []  # the metric, and a sentence
        self._out: set[str] = set()  # metrics without a value at present, and that has been told
        self._last_at: dict[str, float] = {}
        self._sums: defaultdict[str, SummedCounter] = defaultdict(SummedCounter)
        self._histograms = {
            source.metric: PeriodHistogram(source) for source in place.sources if source.form is SourceForm.HISTOGRAM
        }
        self._began_at = datetime.now(UTC)
        self._began_boottime = boottime()
        self._thread = threading.Thread(target=self._run, name=f"feed-{place.first.metric}", daemon=True)

    def start(self) -> None:
        self._began_at, self._began_boottime = datetime.now(UTC), boottime()
        self._thread.start()

    def stop(self) -> None:
        """Take no value any more, and cut off the reading under way; does not wait for it."""
        with self._lock:
            if not self._stopped.is_set():
                self._stopped.set()
                self._sum_up()
        self._cut.now()

    def take(self) -> tuple[list[Measured], list[tuple[str, str]]]:
        """Return the values, and the metric and a sentence for each outage that began, since the last call."""
        with self._lock:
            measured, self._measured = self._measured, []
            lost, self._lost = self._lost, []
        return measured, lost

    # ------------------------------------------------------------------ the thread
    def _run(self) -> None:
        tick = time.monotonic()
        while not self._stopped.wait(max(0.0, tick - time.monotonic())):
            self._cut = cut = Cancellation()
            if self._stopped.is_set():  # stopped just now: its cut was for the reading before
                return
            try:
                self._keep(read_place(self._place, self._root, cut))
            except BaseException as error:  # a thread that ended here would take its metrics along without a word
                log.exception("%s: reading it failed", self._place.name)
                defect = Unreadable(f"a defect: {error!r}")
                self._keep({source.metric: defect for source in self._place.sources})
            tick += self._every
            late = time.monotonic() - tick
            if late > 0:  # ticks that have passed are dropped, not made up for in a burst
                tick += (late // self._every + 1) * self._every

    def _keep(self, found: Found) -> None:
        with self._lock:
            if self._stopped.is_set():
                return  # it was cut off, or answers for a period that is over
            for metric, one in found.items():
                try:
                    if isinstance(one, Unreadable):
                        raise one
                    at = self._instant(metric, one)
                except Unreadable as error:
                    self._lose(metric, error)
                    continue
                self._out.discard(metric)
                self._last_at[metric] = at.timestamp()
                if metric in self._histograms:
                    self._add_buckets(metric, at, one)
                    continue
                value = self._value(metric, one)
                if len(self._measured) < KEPT_AT_MOST:
                    self._measured.append((at, metric, value))

    def _instant(self, metric: str, one: SeriesValue) -> datetime:
        """Return when a value was read, or what the page itself gives; Unreadable where that is not new."""
        if one.at_seconds is None:
            return self._began_at + timedelta(seconds=one.asked_boottime - self._began_boottime)
        began = self._began_at.timestamp()
        check_age(one.at_seconds, oldest_seconds=began, now_seconds=time.time(), since="which was before the period")
        at = datetime.fromtimestamp(one.at_seconds, UTC)
        if one.at_seconds <= self._last_at.get(metric, 0.0):
            raise Unreadable(f"the page repeats a value of {at.isoformat()}")
        return at

    def _value(self, metric: str, one: SeriesValue) -> float:
        if not one.parts:
            return one.value
        total, fell = self._sums[metric].add(one.parts, one.created)
        if fell:
            self._tell(metric, f"its series {fell} began anew: this period has no rate of it")
        return total

    def _add_buckets(self, metric: str, at: datetime, one: SeriesValue) -> None:
        try:
            self._histograms[metric].add(at, one)
        except UnusableHistogram as error:
            self._tell(metric, f"{error}: this period has no value")

    def _sum_up(self) -> None:
        """Say what each histogram rose by, now that the period is over."""
        for metric, histogram in self._histograms.items():
            try:
                self._measured += histogram.values(
                    began=self._began_boottime, ended=boottime(), every_seconds=self._every
                )
            except UnusableHistogram as error:
                if not histogram.lost:  # that was told when it happened
                    self._tell(metric, f"{error}: this period has no value")

    def _lose(self, metric: str, why: Unreadable) -> None:
        if metric not in self._out:
            self._out.add(metric)
            self._tell(metric, why.what)

    def _tell(self, metric: str, what: str) -> None:
        self._lost.append((metric, f"{metric}: {self._place.name}: {what}"))
