"""One series of a Prometheus or OpenMetrics page, read by the Prometheus project's own parsers.

Only the lines of the wanted family reach them: to parse a whole page of 2,000 series takes 20 times as long as to
find them, and would be seen in what is measured. In both formats a line is a line: newlines in labels are escaped.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from agents.feeds.number import as_number
from agents.feeds.unreadable import Unreadable
from agents.messages import MetricSource

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Sample

# What people see with curl first: an exporter may name a counter differently in OpenMetrics.
ACCEPT = "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
_SUFFIXES = ("_total", "_created", "_bucket", "_count", "_sum", "_gcount", "_gsum", "_info")
_COUNTED = ("_bucket", "_count", "_sum")
_SHOWN = 3
_ALIKE = 3
_LOOKED_AT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesValue:
    """A value, and the instant that the page itself gives for it (seconds since 1970), where it does."""

    value: float
    at_seconds: float | None


def series_value(page: bytes, content_type: str, source: MetricSource) -> SeriesValue:
    """Return the value of the one series that the source names, or of their sum; Unreadable where there is none."""
    text = _decoded(page)
    openmetrics = content_type.lower().startswith("application/openmetrics-text")
    if openmetrics and not text.rstrip().endswith("# EOF"):
        raise Unreadable("the page was cut off: it does not end with '# EOF'")
    if not text.endswith("\n") and not openmetrics:
        raise Unreadable("the page was cut off: its last line has no end")
    lines = "".join(match[0] for match in _lines_of(source.pick).finditer(text))
    if openmetrics and lines:
        lines = f"{lines.rstrip()}\n# EOF\n"
    found = [
        (family, sample)
        for family in _families(lines, openmetrics=openmetrics)
        for sample in family.samples
        if sample.name == source.pick or (family.type == "counter" and sample.name == f"{source.pick}_total")
    ]
    if not found:
        raise Unreadable(f"the page has no series {source.pick!r}", _nearest(text, source.pick))
    chosen = [one for one in found if all(one[1].labels.get(k) == v for k, v in source.labels.items())]
    if not chosen:
        there = _written(sample for _, sample in found)
        raise Unreadable(f"no series {source.pick!r} has {_labels(source.labels.items())}", f"there are {there}")
    if len({tuple(sorted(sample.labels.items())) for _, sample in chosen}) < len(chosen):
        raise Unreadable(f"{_written(sample for _, sample in chosen)}: the same series stands on the page twice")
    if len(chosen) > 1 and not source.sum_series:
        there = _written(sample for _, sample in chosen)
        raise Unreadable(f"{len(chosen)} series match: {there}", "choose one with labels, or write 'sum: true'")
    for family, sample in chosen:
        _agree(source, family, sample)
    stamps = [float(sample.timestamp) for _, sample in chosen if sample.timestamp is not None]
    value = as_number(sum(float(sample.value) for _, sample in chosen))
    return SeriesValue(value=value, at_seconds=min(stamps) if stamps else None)


def _decoded(page: bytes) -> str:
    try:
        return page.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"the page is no UTF-8: {error.reason} at byte {error.start}") from error


@lru_cache(maxsize=256)
def _lines_of(name: str) -> re.Pattern[str]:
    """The lines of the families that a series may belong to, with what is said about them."""
    bases = {name, *(name.removesuffix(suffix) for suffix in _SUFFIXES)} - {""}
    names = {base + suffix for base in bases for suffix in ("", *_SUFFIXES)}
    every = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    return re.compile(rf"^[ \t]*(?:#[ \t]*(?:TYPE|HELP|UNIT)[ \t]+)?(?:{every})(?=[ \t{{]).*\n?", re.MULTILINE)


def _families(lines: str, *, openmetrics: bool) -> list[Metric]:
    if not lines:
        return []
    # Imported where a page is read: most experiments read none.
    if openmetrics:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families  # noqa: PLC0415
    else:
        from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415
    try:
        return list(text_string_to_metric_families(lines))  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a parser raises on what it was not made for
        raise Unreadable(f"the page is not understood: {error}"[:200]) from error


def _agree(source: MetricSource, family: Metric, sample: Sample) -> None:
    """What the page says of a series must not contradict what is made of it, unless the user says so."""
    counter = _is_counter(family, sample)
    if source.kind_said or counter is source.counter:
        return
    if counter is None:
        if not source.pick.endswith(_COUNTED):
            return
        what = f"the page does not say whether {source.pick!r} is a counter"
        raise Unreadable(what, "write 'kind: counter' or 'kind: gauge'")
    word = "counter" if counter else "gauge"
    raise Unreadable(f"the page says that {source.pick!r} is a {word}", f"write 'kind: {word}'")


def _is_counter(family: Metric, sample: Sample) -> bool | None:
    """Tell by the family's type; None where the page gives none."""
    match family.type:
        case "counter":
            return not sample.name.endswith("_created")
        case "histogram" | "summary":
            return sample.name.endswith(_COUNTED)
        case "unknown" | "untyped":
            return None
        case _:
            return False


def _written(samples: Iterable[Sample]) -> str:
    every = [f"{sample.name}{_labels(sample.labels.items())}" for sample in samples]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN])[:300] + more


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels) + "}"


def _nearest(text: str, name: str) -> str:
    """Name the series on the page that look like this one, among those that begin alike: it may be asked often."""
    beginning = re.escape(name[:_ALIKE])
    known = dict.fromkeys(re.findall(rf"^({beginning}[a-zA-Z0-9_:]*)(?=[ \t{{])", text, re.MULTILINE))
    close = difflib.get_close_matches(name, list(known)[:_LOOKED_AT], n=_SHOWN, cutoff=0.5)
    return f"the nearest are {', '.join(close)}" if close else ""


__all__ = ["ACCEPT", "SeriesValue", "series_value"]
