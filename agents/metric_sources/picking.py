"""What sources pick from a page: a function of its bytes alone, which opens, asks and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from agents.messages import MetricSource, SourceForm
from agents.metric_sources.exposition import Exposition, exposition
from agents.metric_sources.finite_number import as_number
from agents.metric_sources.json_document import ParsedJson, number_at, parse_document
from agents.metric_sources.page import SourcePage, as_text
from agents.metric_sources.prometheus_histogram import histogram_buckets
from agents.metric_sources.prometheus_text import SeriesValue, series_value
from agents.metric_sources.unreadable import Unreadable

Found: TypeAlias = Mapping[str, SeriesValue | Unreadable]  # metric -> its value, or why there is none


def pick(page: SourcePage, sources: Sequence[MetricSource]) -> Found:
    """Return what each source finds on the page. What they share, they share the understanding of."""
    understood: dict[SourceForm, Exposition | ParsedJson | str | Unreadable] = {}
    for form in dict.fromkeys(source.form for source in sources):
        try:
            understood[form] = _UNDERSTAND[form](page)
        except Unreadable as error:
            understood[form] = error
    return {source.metric: _picked(understood[source.form], source) for source in sources}


_UNDERSTAND: Mapping[SourceForm, Callable[[SourcePage], Exposition | ParsedJson | str]] = {
    SourceForm.PROMETHEUS: exposition,
    SourceForm.HISTOGRAM: exposition,
    SourceForm.JSON: lambda page: parse_document(page.body),
    SourceForm.NUMBER: lambda page: as_text(page.body).strip(),
}


def _picked(page: Exposition | ParsedJson | str | Unreadable, source: MetricSource) -> SeriesValue | Unreadable:
    try:
        match page:
            case Unreadable():
                return page
            case Exposition():
                return (histogram_buckets if source.form is SourceForm.HISTOGRAM else series_value)(page, source)
            case ParsedJson():
                return SeriesValue(value=number_at(page, source.pick))
            case str():
                return SeriesValue(value=as_number(page))
    except Unreadable as error:
        return error
