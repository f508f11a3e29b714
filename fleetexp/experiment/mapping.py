"""The mapping of an import: which columns of a user's own data are what, which hosts had which arm, and from when."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn
from zoneinfo import available_timezones

from pydantic import BeforeValidator, Field, PlainSerializer

from analysis.plan import AnalysisPlan, AssignedUnit, GuardrailPlan, MetricPlan, Role
from analysis.plan import Direction as MetricDirection
from fleetexp.domain import Design
from fleetexp.experiment import read_spec
from fleetexp.experiment.document import Path as KeyPath
from fleetexp.experiment.document import SpecDocument, kind_of, read_document
from fleetexp.experiment.key import Written, key
from fleetexp.experiment.metrics import known, usual_trade
from fleetexp.experiment.model import Direction
from fleetexp.experiment.names import MetricName, Name, Text, check_word
from fleetexp.experiment.problem import ValueRefused, choose, raise_all
from fleetexp.experiment.quantities import Count, Duration, Share, lasting
from fleetexp.experiment.validation import formed
from fleetexp.experiment.workload import Section

AT_RANDOM = "at random"
NOT_AT_RANDOM = "not at random"
TAKEN_ON_TRUST = "That chance decided which arm came where was said of these data; nothing in them shows that."


class Layout(StrEnum):
    """How a table holds hosts, times and metrics."""

    LONG = "long"  # a row a value
    WIDE = "wide"  # a row a host and time, a column a metric
    HOSTS = "hosts"  # a row a time, a column a host: one metric
    PER_HOST = "per_host"  # a row a host, a column a metric, no time


def _instant(value: object) -> datetime:
    """Return an aware instant in UTC; ValueRefused for anything else."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    remedy = "write for example '2026-02-02T10:00:00+00:00'"
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None:
        raise ValueRefused(f"{kind_of(value)} is not an instant", remedy)
    if at.tzinfo is None:
        raise ValueRefused(f"the instant {value!r} has no zone", f"write '{value}+00:00', or the zone that is meant")
    return at.astimezone(UTC)


def _zone(value: object) -> object:
    if isinstance(value, str) and value not in available_timezones():
        raise ValueRefused(f"{value!r} is not a time zone", "write a name such as 'UTC' or 'Europe/Berlin'")
    return value


InstantText = Annotated[
    datetime,
    BeforeValidator(_instant),
    PlainSerializer(lambda at: at.isoformat(), when_used="json-unless-none"),
    Written(called="instant", schema={"type": "string"}, unit="ISO 8601 with a zone"),
]


class ReadingRules(Section):
    """How the files are written. Times are ISO 8601 with a zone, unless `zone` or `unix` says otherwise."""

    layout: Annotated[str, *check_word(*Layout)] = key(
        "long: a row a value; wide: a column a metric; hosts: a column a host; per_host: a row a host, no time",
        "wide",
        default=Layout.LONG.value,
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = key("between the fields of CSV", ";", default=",")
    decimal: Annotated[str, *check_word(".", ",")] = key("the decimal sign of CSV", ",", default=".")
    zone: Annotated[str, BeforeValidator(_zone)] | None = key(
        "the zone of times that name none", "Europe/Berlin", default=None
    )
    unix: Annotated[str, *check_word("seconds", "milliseconds")] | None = key(
        "times are numbers since 1970", "seconds", default=None
    )


class Columns(Section):
    """What the columns are called. `metric` and `value` belong to the layout long, `time` to all but per_host."""

    host: Text = key("names the host", "instance", default="host")
    time: Text = key("when it was measured", "timestamp", default="time")
    metric: Text = key("names the metric", "name", default="metric")
    value: Text = key("the value", "val", default="value")
    unit: Text | None = key("the metric's unit: each has one", "unit", default=None)
    arm: Text | None = key("the host's arm, where `arms` lists no hosts", "group", default=None)
    changed: Text | None = key("since when the host is changed; empty: never", "changed_at", default=None)
    stratum: Text | None = key("keeps hosts apart that differ", "pool", default=None)


class Limit(Section):
    """The relative harm that is not accepted."""

    metric: MetricName = key("what is guarded", "memory_used_bytes")
    margin: Annotated[Share, Field(gt=0)] = key("relative harm that is not accepted", "10%")


class ImportedMetrics(Section):
    """What is taken from the data. All other metrics that are there are left out, and told."""

    primary: MetricName = key("the one that decides", "p99_seconds")
    secondary: tuple[MetricName, ...] = key("estimated, with multiplicity kept", ["cpu_seconds"], default=())
    guardrails: tuple[Limit, ...] = key("limits", [{"metric": "memory_used_bytes", "margin": "5%"}], default=())
    explored: tuple[MetricName, ...] = key("kept and looked at, nothing rests on them", ["requests"], default=())
    better: dict[MetricName, Direction] = key(
        "metric -> its good direction, where the catalogue says none", {"p99_seconds": "decrease"}, default=dict
    )
    units: dict[MetricName, Text] = key("metric -> its unit", {"p99_seconds": "seconds"}, default=dict)
    called: dict[MetricName, Text] = key(
        "metric -> what the data call it, where that is not its name", {"p99_seconds": "latency.p99"}, default=dict
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Every metric that is taken, the primary first."""
        return tuple(
            dict.fromkeys((self.primary, *self.secondary, *(limit.metric for limit in self.guardrails), *self.explored))
        )

    @property
    def in_data(self) -> dict[str, str]:
        """What the data call a metric -> its name."""
        return {self.called.get(name, name): name for name in self.names}


class ImportMapping(Section):
    """How a user's own measurements become a run of the store. Instants are UTC, durations seconds."""

    name: Name = key("of the import, in the store and in reports", "pages-of-512m")
    hypothesis: Text = key("what was expected, in a sentence", "larger pages make it faster", default="")
    read: ReadingRules = key("how the files are written", {"layout": "wide"}, default=ReadingRules())
    columns: Columns = key("what the columns are called", {"host": "instance"}, default=Columns())
    period: Annotated[Duration, *lasting("1s", "30d")] = key(
        "values are summed up over so long: a count, mean, variance, extremes and percentiles are kept of it",
        "1h",
        default=3600.0,
    )
    control: Text = key("the arm that the others are compared with", "before", default="control")
    arms: dict[Name, tuple[Text, ...]] = key(
        "arm -> its hosts, with * and ?; [] where the column `arm` says it",
        {"control": ["web-0*"], "treatment": ["web-1*"]},
    )
    exclude: tuple[Text, ...] = key("hosts of the data that are left out", ["web-canary-*"], default=())
    changed_at: InstantText | None = key(
        "since when the hosts off control are changed", "2026-02-02T10:00:00+00:00", default=None
    )
    changed: dict[Text, InstantText] = key(
        "host -> since when it is changed, where hosts differ", {"web-11": "2026-02-02T10:00:00+00:00"}, default=dict
    )
    settle: Duration = key("left out after a change", "1h", default=0.0)
    assigned: Annotated[str, *check_word(AT_RANDOM, NOT_AT_RANDOM)] = key(
        "whether chance decided which host got which arm", AT_RANDOM, default=NOT_AT_RANDOM
    )
    drawn: Text = key("how chance decided; due where it did", "random.shuffle of all hosts", default="")
    ratio: dict[str, Annotated[Count, Field(ge=1)]] | None = key(
        "arm -> its parts of the hosts, as the draw had them", {"control": 1, "treatment": 1}, default=None
    )
    metrics: ImportedMetrics = key("what is taken from the data", {"primary": "p99_seconds"})
    alpha: Annotated[Share, Field(gt=0, lt=0.5)] = key("chance of a false alarm", "5%", default=0.05)

    @property
    def layout(self) -> Layout:
        return Layout(self.read.layout)

    @property
    def randomised(self) -> bool:
        return self.assigned == AT_RANDOM

    @property
    def design(self) -> Design:
        """Parallel where chance decided; else the hosts were chosen, and it is looked back on."""
        return Design.PARALLEL if self.randomised else Design.RETROSPECTIVE

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The control first, the others as written."""
        return (self.control, *(name for name in self.arms if name != self.control))

    @property
    def seed(self) -> int:
        """What redraws start from: of the name, as an experiment's is."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")

    def analysis_plan(self, units: tuple[AssignedUnit, ...] = ()) -> AnalysisPlan:
        """Fix what is estimated: each metric once, in the strictest role that the mapping gives it."""
        metrics = {name: self._planned(name, role) for name, role in reversed(list(self._roles()))}
        ordered = tuple(metrics[name] for name in self.metrics.names)
        return AnalysisPlan(
            design=self.design.value,
            control=self.control,
            arms=self.arm_names,
            metrics=ordered,
            guardrails=tuple(
                GuardrailPlan(metric=limit.metric, worse=_opposite(metrics[limit.metric]), margin=limit.margin)
                for limit in self.metrics.guardrails
            ),
            units=units,
            alpha=self.alpha,
            seed=self.seed,
            ratio=None if self.ratio is None else tuple(float(self.ratio[arm]) for arm in self.arm_names),
            trade=usual_trade(metrics),
        )

    def better(self, name: str) -> MetricDirection | None:
        """The good direction of a metric: what the mapping says, else what the catalogue does."""
        metric = known(name)
        said = self.metrics.better.get(name) or (metric.better if metric else None)
        return MetricDirection(said) if said else None

    def _planned(self, name: str, role: Role) -> MetricPlan:
        return MetricPlan(name=name, unit=self.metrics.units.get(name, ""), role=role, better=self.better(name))

    def _roles(self) -> Iterator[tuple[str, Role]]:
        metrics = self.metrics
        yield metrics.primary, Role.PRIMARY
        yield from ((name, Role.SECONDARY) for name in metrics.secondary)
        yield from ((limit.metric, Role.GUARDRAIL) for limit in metrics.guardrails)
        yield from ((name, Role.EXPLORATORY) for name in metrics.explored)


def _opposite(metric: MetricPlan) -> MetricDirection:
    increases = metric.better is MetricDirection.INCREASE
    return MetricDirection.DECREASE if increases else MetricDirection.INCREASE


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenMapping:
    """A mapping, and the text that says it: what the data don't bear out is told by line and column too."""

    text: str
    document: SpecDocument
    mapping: ImportMapping

    def refuse(self, path: KeyPath, what: str, remedy: str) -> NoReturn:
        """Raise ConfigError at a key of the mapping."""
        raise_all([self.document.problem(path, what, remedy)])
        raise AssertionError("a problem was raised")


def parse_mapping(text: str, source: str = "mapping") -> WrittenMapping:
    """Read a mapping from its YAML text; ConfigError with every problem found, each with line, key and remedy."""
    return _build(text, read_document(text, source))


def recall_mapping(text: str, run_id: int) -> ImportMapping:
    """Read the mapping of a run that was imported: what only a later version refuses must not hide its results."""
    return _build(text, read_document(text, f"run {run_id}"), refuse_meaning=False).mapping


def read_mapping(path: Path | str) -> WrittenMapping:
    """Read a mapping from a file; ConfigError where it can't be read or used."""
    return parse_mapping(read_spec(path), str(path))


def mapping_to_json(mapping: ImportMapping) -> object:
    """Return the mapping with its defaults as JSON has it, in the words that it is written in."""
    return mapping.model_dump(mode="json", exclude_none=True)


def _build(text: str, document: SpecDocument, *, refuse_meaning: bool = True) -> WrittenMapping:
    mapping = formed(document, ImportMapping, dict(document.data), document.problems)
    if refuse_meaning:
        raise_all(document.problem(*finding) for finding in find_problems(mapping))
    return WrittenMapping(text=text, document=document, mapping=mapping)


def find_problems(mapping: ImportMapping) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield what is wrong with a mapping whose form is right: key path, what, remedy."""
    yield from _arms(mapping)
    yield from _changes(mapping)
    yield from _assignment(mapping)
    yield from _metrics(mapping)
    yield from _reading(mapping)


def _arms(mapping: ImportMapping) -> Iterator[tuple[KeyPath, str, str]]:
    if mapping.control not in mapping.arms:
        remedy = f"call an arm 'control', or write 'control: ARM'; {choose(mapping.control, mapping.arms, noun='arm')}"
        yield ("control",), f"no arm is called {mapping.control!r}, and one must be the control", remedy
    if len(mapping.arms) < 2:
        yield ("arms",), "there is nothing to compare", "write the control and at least one other arm"
    listed = [name for name, hosts in mapping.arms.items() if hosts]
    if mapping.columns.arm is not None and listed:
        yield ("arms", listed[0]), "the column `arm` says which host has which arm, and so does this list", "keep one"
    if mapping.columns.arm is None and len(listed) < len(mapping.arms):
        empty = next(name for name in mapping.arms if name not in listed)
        yield ("arms", empty), "nothing says which hosts have this arm", "list them, or name the column: columns.arm"
    seen: dict[str, str] = {}
    for arm, hosts in mapping.arms.items():
        for place, host in enumerate(hosts):
            if seen.setdefault(host, arm) != arm:
                yield ("arms", arm, place), f"the host {host} is in {seen[host]} already", "list it under one arm"


def _changes(mapping: ImportMapping) -> Iterator[tuple[KeyPath, str, str]]:
    said = [mapping.changed_at is not None, bool(mapping.changed), mapping.columns.changed is not None]
    if sum(said) > 1:
        where: KeyPath = ("changed",) if mapping.changed else ("changed_at",)
        yield where, "changed_at, changed and columns.changed say the same", "keep one of them"
    if mapping.layout is Layout.PER_HOST and any(said):
        yield ("changed_at",), "values without a time are not before or after a change", "drop it"


def _assignment(mapping: ImportMapping) -> Iterator[tuple[KeyPath, str, str]]:
    if mapping.randomised and not mapping.drawn:
        yield ("assigned",), "nobody says how chance decided", "write how under 'drawn', or 'assigned: not at random'"
    if not mapping.randomised and mapping.drawn:
        yield ("drawn",), "the hosts were not drawn", "drop it, or write 'assigned: at random'"
    if mapping.ratio is not None and set(mapping.ratio) != set(mapping.arms):
        yield ("ratio",), "the ratio does not name each arm", f"give a part for {', '.join(mapping.arms)}"


def _metrics(mapping: ImportMapping) -> Iterator[tuple[KeyPath, str, str]]:
    metrics = mapping.metrics
    for name, times in Counter(metrics.called.get(name, name) for name in metrics.names).items():
        if times > 1:
            yield ("metrics", "called"), f"two metrics are called {name!r} in the data", "name each column once"
    for where, told in (("better", metrics.better), ("units", metrics.units), ("called", metrics.called)):
        for name in told:
            if name not in metrics.names:
                yield ("metrics", where, name), f"{name} is not a metric of this mapping", choose(name, metrics.names)
    guarded = {limit.metric: ("metrics", "guardrails", place) for place, limit in enumerate(metrics.guardrails)}
    for name, path in {metrics.primary: ("metrics", "primary"), **guarded}.items():
        if mapping.better(name) is None:
            yield path, f"which way is better for {name}?", f"write 'better: {{{name}: decrease}}' (or increase)"


def _reading(mapping: ImportMapping) -> Iterator[tuple[KeyPath, str, str]]:
    if mapping.read.zone is not None and mapping.read.unix is not None:
        yield ("read", "unix"), "seconds since 1970 have no zone", "drop zone or unix"
    if mapping.layout is Layout.HOSTS:
        if len(mapping.metrics.names) > 1:
            yield ("read", "layout"), "a table of hosts and times holds one metric", "name the primary alone"
        for name in ("arm", "stratum", "changed"):
            if getattr(mapping.columns, name) is not None:
                yield ("columns", name), f"a column a host leaves none for the {name}", "list the hosts instead"
    if mapping.columns.unit is not None and mapping.layout is not Layout.LONG:
        yield ("columns", "unit"), "a unit by row belongs to the layout long", "write metrics.units instead"
    if mapping.read.delimiter == mapping.read.decimal:
        yield ("read", "decimal"), "the decimal sign also parts the fields", "write for example 'delimiter: \";\"'"
