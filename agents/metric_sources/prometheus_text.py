"""One series of a Prometheus or OpenMetrics page, or the sum of several.

Only the lines of the wanted family are understood: to parse a whole page of 2,000 series takes 20 times as long as to
find them, and would be seen in what is measured. An OpenMetrics family must also pass the Prometheus project's own
parser, which knows every rule of that format.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from agents.messages import MetricSource
from agents.metric_sources.exposition import Exposition, ExpositionSample, Line, broken, lines_about, sample_of
from agents.metric_sources.finite_number import as_number
from agents.metric_sources.unreadable import Unreadable

# What people see with curl first: an exporter may name a counter differently in OpenMetrics.
ACCEPT = "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
SUMMED_AT_MOST = 10_000
_COUNTED = ("_bucket", "_count", "_sum")
_SUMMARY = {"summary": ("", "_count", "_sum"), "histogram": ("", *_COUNTED)}
_TEXT_SAMPLES: Mapping[str, Collection[str]] = _SUMMARY
_OPENMETRICS_SAMPLES: Mapping[str, Collection[str]] = {
    "summary": (*_SUMMARY["summary"], "_created"),
    "histogram": (*_SUMMARY["histogram"], "_created"),
    "counter": ("_total", "_created"),
    "gaugehistogram": ("", "_bucket", "_gcount", "_gsum"),
    "info": ("_info",),
}
_UNTYPED = frozenset({"unknown", "untyped"})
_NOT_FINITE = re.compile(r"[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE)
_SHOWN = 3
_ALIKE = 3
_LOOKED_AT = 200
_NAMED = 120  # longest label set that stands for itself


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesValue:
    """A value, and the instant that the page itself gives for it (seconds since 1970), where it does.

    `asked_boottime` is the middle of the asking: what it takes to understand a page does not make its values younger.
    `parts` has the series of a counter, each under its labels: one may begin anew, or give way to another, while the
    value rises. `created` has when each began by the page's own word, seconds since 1970, where it gives that.
    `buckets` has those of a histogram: a series' labels -> upper bound and observations up to it; the value is then
    that of all observations.
    """

    value: float
    at_seconds: float | None = None
    asked_boottime: float = 0.0
    written_as: float = 1.0  # how many of the page's own units of time make a second
    parts: Mapping[str, float] = field(default_factory=dict)
    created: Mapping[str, float] = field(default_factory=dict)
    buckets: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenSeries:
    """The samples that a source chooses, each by what its series is known by; `counter` as the page has it.

    `instant` is the oldest that the page gives for one of them, in seconds since 1970; None where it gives none.
    """

    samples: Mapping[str, ExpositionSample]
    counter: bool | None
    instant: float | None


def series_value(page: Exposition, source: MetricSource) -> SeriesValue:
    """Return the value of the one series that the source names, or of their sum; Unreadable where there is none."""
    chosen = chosen_series(page, source.pick, source.labels)
    many = len(chosen.samples)
    if many > 1 and not source.sum_series:
        written = _written(tuple(chosen.samples.values()))
        raise Unreadable(f"{many} series match: {written}", "choose one with labels, or write 'sum: true'")
    _agree(source, chosen.counter)
    values = {key: number_of(page, sample) for key, sample in chosen.samples.items()}
    if source.counter and min(values.values()) < 0:
        what = f"{source.pick!r} stands at {min(values.values()):g}: no counter is below 0"
        raise Unreadable(what, "write 'kind: gauge', or let the service count up from 0")
    return SeriesValue(
        value=as_number(sum(values.values())),
        at_seconds=chosen.instant,
        written_as=_per_second(page),
        parts=values if source.counter else {},
        created=created_at(page, source.pick, values) if source.counter else {},
    )


def created_at(page: Exposition, name: str, series: Collection[str]) -> dict[str, float]:
    """Return when these series began, by the page's own `_created` samples; those that have none are left out."""
    family = next((name.removesuffix(end) for end in ("_total", *_COUNTED) if name.endswith(end)), name)
    found: dict[str, float] = {}
    for line in lines_about(page, f"{family}_created"):
        if not line.word and line.name == f"{family}_created":
            try:
                sample = sample_of(page, line)
                if (key := key_of(sample.labels)) in series:
                    found[key] = number_of(page, sample)
            except Unreadable:  # it is said beside the value, which stands without it
                continue
    return found


def chosen_series(page: Exposition, name: str, labels: Mapping[str, str]) -> ChosenSeries:
    """Return the series of a name that have these labels; Unreadable where none has, or the page breaks a rule."""
    lines = list(lines_about(page, name))
    found, types = _found(page, lines, name)
    if not found:
        raise Unreadable(f"the page has no series {name!r}", _nearest(page.text, name))
    chosen = [one for one in found if all(one.labels.get(k) == v for k, v in labels.items())]
    if not chosen:
        raise Unreadable(f"no series {name!r} has {_labels(labels)}", f"there are {_written(found)}: choose among them")
    if page.openmetrics:
        _judge(page, lines, chosen)
        chosen = _newest(chosen)
    named = {key_of(sample.labels): sample for sample in chosen}
    if len(named) < len(chosen):
        raise Unreadable(f"{_written(chosen)}: the same series stands on the page twice", "let it be written once")
    if len(chosen) > SUMMED_AT_MOST:
        raise Unreadable(f"{len(chosen)} series are too many to add up", f"choose {SUMMED_AT_MOST} at most with labels")
    stamps = [_stamp(page, sample) for sample in chosen if sample.stamp]
    return ChosenSeries(
        samples=named,
        counter=_is_counter(page, chosen[0].name, types),
        instant=min(stamps) if stamps else None,
    )


def _found(page: Exposition, lines: Sequence[Line], pick: str) -> tuple[list[ExpositionSample], dict[str, set[str]]]:
    """Return the samples of a name, and the types that the page gives to families nearby.

    The exact name wins. Else a counter's name goes with and without `_total`: exporters differ, by format too.
    """
    types: dict[str, set[str]] = {}
    for line in lines:
        if line.word == "TYPE" and (kind := line.rest[:_NAMED].strip().lower()):
            types.setdefault(line.name, set()).add(kind)
    counters = {family for family, kinds in types.items() if "counter" in kinds}
    base = pick.removesuffix("_total")
    others = [f"{pick}_total"] if counters & {pick, f"{pick}_total"} else []
    others += [base] if base in counters - {pick} else []
    for name in (pick, *others):
        if samples := [sample_of(page, line) for line in lines if not line.word and line.name == name]:
            return samples, types
    return [], types


def _is_counter(page: Exposition, name: str, types: Mapping[str, set[str]]) -> bool | None:
    """Tell by the type of the family that a sample is of; None where the page gives none."""
    samples = _OPENMETRICS_SAMPLES if page.openmetrics else _TEXT_SAMPLES
    of = {
        kind
        for family, kinds in types.items()
        for kind in kinds
        if any(name == family + suffix for suffix in samples.get(kind, ("",)))
    } - _UNTYPED
    if len(of) > 1:
        raise Unreadable(f"the page gives {name!r} the types {' and '.join(sorted(of))}", "let it give one")
    match of.pop() if of else None:
        case None:
            return None
        case "counter":
            return not (page.openmetrics and name.endswith("_created"))
        case "histogram" | "summary":
            return name.endswith(_COUNTED)
        case _:
            return False


def _agree(source: MetricSource, counter: bool | None) -> None:
    """What the page says of a series must not contradict what is made of it, unless the user says so."""
    if source.kind_said or counter is source.counter:
        return
    if counter is None:
        if not source.pick.endswith(_COUNTED):
            return
        what = f"the page does not say whether {source.pick!r} is a counter"
        raise Unreadable(what, "write 'kind: counter' or 'kind: gauge'")
    word = "counter" if counter else "gauge"
    raise Unreadable(f"the page says that {source.pick!r} is a {word}", f"write 'kind: {word}'")


def number_of(page: Exposition, sample: ExpositionSample) -> float:
    """Return the value of a sample; Unreadable where it is no finite number."""
    if sample.value.startswith("{"):
        raise Unreadable(
            f"{sample.name} is a native histogram, which is not one number",
            f"read {sample.name}_count or {sample.name}_sum where the page has them",
        )
    if _NOT_FINITE.fullmatch(sample.value):
        return as_number(float(sample.value))
    try:
        return as_number(sample.value)
    except Unreadable as error:
        raise broken(page, sample.line, error.what) from error


def _stamp(page: Exposition, sample: ExpositionSample) -> float:
    """Return the instant in seconds: OpenMetrics gives seconds, the text format whole milliseconds."""
    form = r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?" if page.openmetrics else r"[+-]?[0-9]+"
    if len(sample.stamp) > _NAMED or not re.fullmatch(form, sample.stamp):
        unit = "number of seconds" if page.openmetrics else "whole number of milliseconds"
        raise broken(page, sample.line, f"the instant {sample.stamp[:40]!r} is no {unit}")
    return float(sample.stamp) / _per_second(page)


def _per_second(page: Exposition) -> float:
    return 1.0 if page.openmetrics else 1000.0


def _newest(samples: Sequence[ExpositionSample]) -> list[ExpositionSample]:
    """Of a series that an OpenMetrics page gives at several instants, the last: they must not go back."""
    stamped = {key_of(sample.labels): sample for sample in samples if sample.stamp}
    return [sample for sample in samples if not sample.stamp or stamped[key_of(sample.labels)] is sample]


def _judge(page: Exposition, lines: Sequence[Line], chosen: Sequence[ExpositionSample]) -> None:
    """Raise Unreadable where the family that the samples stand in breaks a rule of OpenMetrics."""
    # Imported where such a page is read: most are in the text format.
    from prometheus_client.openmetrics.parser import text_string_to_metric_families  # noqa: PLC0415

    wanted = {sample.line.start for sample in chosen}
    for block in _blocks(lines):
        if not wanted.isdisjoint(line.start for line in block):
            text = "\n".join(line.text for line in block)
            try:
                list(text_string_to_metric_families(f"{text}\n# EOF\n"))  # type: ignore[no-untyped-call]
            except MemoryError:
                raise
            except Exception as error:  # whatever a parser raises on what it was not made for
                raise broken(page, block[0], f"its family breaks a rule of OpenMetrics: {error}") from error


def _blocks(lines: Iterable[Line]) -> list[list[Line]]:
    """Part lines into families. Two of one name may follow each other: a gauge, and the counter of that `_total`."""
    blocks: list[list[Line]] = []
    said: set[str] = set()
    sampled, family = False, None
    for line in lines:
        if line.word and (line.name != family or (sampled and line.word in said)):
            said, sampled, family = set(), False, line.name
            blocks.append([])
        elif not blocks:
            blocks.append([])
        said.add(line.word)
        sampled = sampled or not line.word
        blocks[-1].append(line)
    return blocks


def key_of(labels: Mapping[str, str]) -> str:
    """Return what a series is known by from one reading to the next."""
    text = _labels(dict(sorted(labels.items())))
    return text if len(text) <= _NAMED else hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _written(samples: Sequence[ExpositionSample]) -> str:
    every = [f"{sample.name}{_labels(sample.labels)}" for sample in samples[:_SHOWN]]
    more = f" and {len(samples) - _SHOWN} more" if len(samples) > _SHOWN else ""
    return ", ".join(every)[:300] + more


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _nearest(text: str, name: str) -> str:
    """Name the series on the page that look like this one, among those that begin alike: it may be asked often."""
    beginning = re.escape(name[:_ALIKE])
    every = re.finditer(rf"^({beginning}[a-zA-Z0-9_:.]{{0,{_LOOKED_AT}}})(?=[ \t{{])", text, re.MULTILINE)
    known = dict.fromkeys(match[1] for match in islice(every, 100 * _LOOKED_AT))
    close = difflib.get_close_matches(name, list(known)[:_LOOKED_AT], n=_SHOWN, cutoff=0.5)
    return f"the nearest are {', '.join(close)}" if close else "see which series the page has, and correct 'name'"


__all__ = ["ACCEPT", "SeriesValue", "chosen_series", "created_at", "key_of", "number_of", "series_value"]
