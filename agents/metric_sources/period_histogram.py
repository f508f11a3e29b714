"""A histogram over one period: read with each tick, one value at the end."""

from __future__ import annotations

from datetime import datetime

from agents.histograms.buckets import UnusableHistogram, classic_histogram, merged
from agents.histograms.increase import HistogramIncrease
from agents.messages import AT_LEAST, AT_MOST, MetricSource
from agents.metric_sources.prometheus_text import SeriesValue

_UNREAD_SHARE = 0.2  # of a period, before the first reading and after the last: else it tells of another time


class PeriodHistogram:
    """What a source's histogram rose by from the first reading of a period to the last."""

    def __init__(self, source: MetricSource) -> None:
        self._source = source
        self._increase = HistogramIncrease()
        self._first: float | None = None  # CLOCK_BOOTTIME, seconds
        self._last = 0.0
        self._at: datetime | None = None
        self._readings = 0
        self.lost = False  # a series began anew, and that was told

    def add(self, at: datetime, one: SeriesValue) -> None:
        """Take a reading of `at`; UnusableHistogram, once, where a series began anew."""
        if self._first is None:
            self._first = one.asked_boottime
        self._last, self._at = one.asked_boottime, at
        self._readings += 1
        try:
            self._increase.add({series: dict(buckets) for series, buckets in one.buckets.items()}, one.created)
        except UnusableHistogram:
            self.lost = True
            raise

    def values(self, *, began: float, ended: float, every_seconds: float) -> list[tuple[datetime, str, float]]:
        """Return the period's value and the ends of its bucket, all at the last reading.

        `began` and `ended` are the period's, CLOCK_BOOTTIME in seconds. UnusableHistogram where the readings leave out
        much of it, where nothing was observed in it, or a series began anew. An end that is not there is left out.
        """
        if self._first is None or self._at is None:
            return []  # why it could not be read was told
        unread = (self._first - began) + (ended - self._last)
        if unread > max(2 * every_seconds, _UNREAD_SHARE * (ended - began)):
            raise UnusableHistogram(
                f"it was not read for {unread:.1f} s of {ended - began:.1f} s", "let the page answer all the time"
            )
        if self._readings < 2:  # a period this short has no increase, and lost none
            return []
        found = self._source.question.answer(classic_histogram(self._increase.total()))
        ends = {AT_LEAST: found.at_least, AT_MOST: found.at_most}
        metric = self._source.metric
        return [
            (self._at, metric, found.value),
            *((self._at, metric + ending, end) for ending, end in ends.items() if end is not None),
        ]


def too_coarse(source: MetricSource, one: SeriesValue) -> tuple[str, str] | None:
    """Say why the buckets of a page can't tell what the source wants, and what to do; None where they can.

    They are looked at as they were filled since the exporter began.
    """
    try:
        found = source.question.answer(classic_histogram(merged(dict(buckets) for buckets in one.buckets.values())))
    except UnusableHistogram as error:
        return None if one.value == 0 else (error.what, error.remedy)
    if source.quantile is None:
        if found.at_least == found.at_most:
            return None
        ends = f"the share up to {source.share_below:g} is between {found.at_least:g} and {found.at_most:g} so far"
        return f"{source.share_below:g} is no bucket's bound: {ends}", "name a bound of the histogram's buckets"
    if found.at_most is None:
        what = (
            f"the quantile {source.quantile:g} is above the last bound {found.at_least:g} so far, nobody knows how far"
        )
        return what, "let the histogram have higher bounds, or take a lower quantile"
    if found.at_least is None:
        what = f"the quantile {source.quantile:g} is below the first bound {found.at_most:g} so far"
        return what, "let the histogram have lower bounds, or take a higher quantile"
    return None
