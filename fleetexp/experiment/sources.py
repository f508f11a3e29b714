"""Where metrics of the user's own are read: `metrics.sources` of a spec."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, create_model

from agents.catalogue import Owned
from agents.event_text import EventTextError, parse_event
from agents.histograms.buckets import HistogramQuestion
from agents.messages import MetricSource, SourceForm
from agents.metric_sources.json_document import parse_path
from agents.metric_sources.place_kind import PlaceKind, place_kinds
from agents.secret_words import holds_a_secret
from fleetexp.experiment.central import (
    EVERY_SECONDS,
    SETTLE_SECONDS,
    STEP_SECONDS,
    CentralQuery,
    HostOfSeries,
    bare_counter,
    increase_of,
    names_buckets,
    unclear_time,
)
from fleetexp.experiment.document import Path
from fleetexp.experiment.key import Written, exactly_one, key
from fleetexp.experiment.names import Text, check_word, text_like
from fleetexp.experiment.problem import ValueRefused
from fleetexp.experiment.quantities import Duration, format_duration, lasting
from fleetexp.experiment.workload import Argv, Section

_SERIES = re.compile(r"[^\s{}\"'\\,=#\x00-\x1f]{1,200}")  # in UTF-8, as Prometheus 3 has them
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_BY_COMMAND = "let a command read it, whose secret is in a file of the host: command: [curl, -sf, --config, FILE]"
_OF_A_QUERY = frozenset({"by", "to_host", "host_pattern", "host_label", "step", "settle", "fresh"})
_OF_A_HISTOGRAM = ("histogram", "quantile", "share_below")
_COUNTERS = ("_total", "_bucket", "_count", "_sum")  # by Prometheus' own custom; a page that says otherwise is noticed


def _url(text: str) -> str:
    if holds_a_secret(text):
        raise ValueRefused("an address must not hold a password or a token: the spec is kept in the store", _BY_COMMAND)
    if not text.startswith(("http://", "https://")):
        raise ValueRefused(f"{text!r} is not an address", "write 'http://host:port/metrics'")
    try:
        parts = urlsplit(text.replace("{host}", "host"))
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"[\s\x00-\x1f{}]", text.replace("{host}", "host")):
        raise ValueRefused(
            f"{text!r} is not an address", "write 'http://host:port/metrics'; {host} stands for the name of each host"
        )
    if parts.username is not None:
        raise ValueRefused("an address must not hold a password or a token: the spec is kept in the store", _BY_COMMAND)
    if parts.fragment:
        raise ValueRefused(f"{text!r} has a part after '#', which is never sent", "leave it out")
    return text


def _promql(text: str) -> str:
    if "\0" in text or len(text) > 8000 or not text.strip():
        raise ValueRefused("this is no PromQL", "write for example 'rate(requests_total[1m])'")
    if unclear := unclear_time(text):
        what = f"{unclear!r} says no plain length of time back: whether a value is of its period can't be told"
        raise ValueRefused(what, "write ranges and offsets as '[90s]' and 'offset 1m30s', and no '@'")
    return text


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueRefused(f"{text!r} is no pattern: {error}", r"write for example 'ip-(.*)\.example:9100'") from None
    if groups < 1:
        raise ValueRefused(f"{text!r} has no group", "put what is the host's name in brackets: '(.*):9100'")
    return text


def _path(text: str) -> str:
    try:
        parse_path(text)
    except ValueError as error:
        raise ValueRefused(str(error), "write for example 'a.b[0].c', or 'a[\"odd.key\"]'") from None
    return text


def _series(text: str) -> str:
    if not _SERIES.fullmatch(text):
        raise ValueRefused(f"{text!r} is not a name of a series", "write its name alone; labels go under 'labels'")
    return text


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueRefused(f"{text!r} is not the name of a label", "write its name alone: 'by: instance'")
    return text


def _histogram(text: str) -> str:
    if text.endswith("_bucket"):
        raise ValueRefused(f"{text!r} is a series of a histogram", f"write {text.removesuffix('_bucket')!r}")
    return _series(text)


def _perf(text: str) -> str:
    try:
        parse_event(text)
    except EventTextError as error:
        raise ValueRefused(error.what, error.remedy) from None
    return text


Address = Annotated[
    str,
    AfterValidator(_url),
    Written(
        called="address",
        schema={"type": "string", "pattern": r"^https?://([^\s{}@#/]|\{host\})+(/([^\s{}#]|\{host\})*)?$"},
    ),
]


class SourceKeys(Section):
    """Where a metric of the user's own is read: one of an address, a command, a file, an event, and what to pick."""

    prometheus: Address | None = key(
        "address of a page of Prometheus or OpenMetrics, without a secret; {host} is each host's name",
        "http://{host}:9187/metrics",
        default=None,
    )
    json_page: Annotated[Address | None, Field(alias="json")] = key(
        "address of a JSON document", "http://127.0.0.1:8080/stats", default=None
    )
    promql: Annotated[Text, AfterValidator(_promql), text_like("PromQL", r"[^\x00]{1,8000}", numbers={})] | None = key(
        "query that the orchestrator asks `metrics.server`; {host} in it is each host's name, else one is for all",
        'rate(requests_total{job="web"}[1m])',
        default=None,
    )
    command: Argv | None = key(
        "program and arguments, one word each, no secret among them; no shell reads them",
        ["redis-cli", "--raw", "llen", "mails"],
        default=None,
    )
    perf: Annotated[Text, AfterValidator(_perf), text_like("event", "[!-~]{1,500}")] | None = key(
        "an event as perf writes it, counted with each sample", "cpu/event=0x24,umask=0x3f/u", default=None
    )
    scope: Annotated[str, *check_word("host", "cgroup")] | None = key(
        "whose events are counted: all tasks', or those of the workload's service",
        "cgroup",
        default=None,
        otherwise="host",
    )
    name: Annotated[Text, AfterValidator(_series), text_like("series", _SERIES.pattern, numbers={})] | None = key(
        "the series on a page", "http_requests_total", default=None, otherwise="the metric's name"
    )
    histogram: (
        Annotated[Text, AfterValidator(_histogram), text_like("histogram", _SERIES.pattern, numbers={})] | None
    ) = key(
        "a histogram on a page: what it rose by in a period, all series that `labels` choose added up",
        "http_request_duration_seconds",
        default=None,
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = key("which quantile of the histogram", 0.99, default=None)
    share_below: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = key(
        "or the share of its observations up to this bound, best one of its buckets'", 0.25, default=None
    )
    path: Annotated[Text, AfterValidator(_path)] | None = key("where in JSON", "http.p99[0].seconds", default=None)
    labels: dict[str, Text] = key("labels that the series has just so", {"job": "web"}, default=dict)
    sum: bool = key("several series may match, and are added up", True, default=False)
    kind: Annotated[str, *check_word("counter", "gauge")] | None = key(
        "a counter is observed as a rate", "counter", default=None, otherwise="by its name"
    )
    by: Annotated[Text, AfterValidator(_label), text_like("label", _LABEL.pattern)] | None = key(
        "label of the answer's series that says which host each is of", "instance", default=None, otherwise="by {host}"
    )
    to_host: Annotated[str, *check_word("strip port", "as it is")] | None = key(
        "how that label's value becomes a host's name", "as it is", default=None, otherwise="strip port"
    )
    host_pattern: Annotated[Text, AfterValidator(_pattern), text_like("pattern", ".+")] | None = key(
        "or a pattern of the whole value, whose first group is the name", r"ip-(.*)\.example:9100", default=None
    )
    host_label: Text | None = key(
        "or the label of the inventory that has the same value", "ip", default=None, otherwise="the host's name"
    )
    step: Annotated[Duration, *lasting("100ms", "1h")] | None = key(
        "from one instant of the answer to the next: as long as the server's scrapes are apart",
        "15s",
        default=None,
        otherwise=format_duration(STEP_SECONDS),
    )
    settle: Annotated[Duration, *lasting("0s", "1h")] | None = key(
        "how long the server is given to have everything, before it is asked for an instant",
        "1m",
        default=None,
        otherwise=format_duration(SETTLE_SECONDS),
    )
    fresh: Annotated[Duration, *lasting("100ms", "1h")] | None = key(
        "an older sample stands for no instant", "30s", default=None, otherwise="two steps"
    )
    unit: Text = key("in reports; of a counter, before 'per second'", "requests", default="")
    every: Annotated[Duration, *lasting("100ms", "1h")] | None = key(
        "least time between two readings",
        "10s",
        default=None,
        otherwise=f"with each sample; of a server, {format_duration(EVERY_SECONDS)}",
    )
    timeout: Annotated[Duration, *lasting("100ms", "30s")] = key("longest time of a reading", "2s", default=5.0)
    user: Text | None = key("who runs the command", "redis", default=None, otherwise="the agent's")

    def says(self, name: str) -> bool:
        """Whether a key holds something other than what would hold without it."""
        default = SourceKeys.model_fields[name].get_default(call_default_factory=True)
        return bool(getattr(self, name) != default)

    @property
    def places(self) -> tuple[str, ...]:
        """The kinds of place that are named: one, in a source that is right."""
        return tuple(place for place, key in _PLACES.items() if getattr(self, key) is not None)

    @property
    def registered(self) -> tuple[str, str]:
        """The place's kind and what stands there, both '' for an address, a command or an event."""
        return next(((place, getattr(self, place)) for place in self.places if place in place_kinds()), ("", ""))

    @property
    def form(self) -> SourceForm:
        if self.question is not None:
            return SourceForm.HISTOGRAM
        if self.prometheus is not None or self.name is not None:
            return SourceForm.PROMETHEUS
        return SourceForm.JSON if self.path is not None else SourceForm.NUMBER

    def counter(self, metric: str) -> bool:
        """Whether the values only rise: as the spec says, else by the name of the series."""
        if self.kind is not None:
            return self.kind == "counter"
        if self.perf is not None:
            return True
        return self.form is SourceForm.PROMETHEUS and (self.name or metric).endswith(_COUNTERS)

    @property
    def question(self) -> HistogramQuestion | None:
        """What is asked of a histogram; None for what is none."""
        if self.quantile is None and self.share_below is None:
            return None
        return HistogramQuestion(quantile=self.quantile, share_below=self.share_below)

    @property
    def of_whole_periods(self) -> bool:
        """Whether there is no value before a period has ended: the agents add up what a histogram rose by in it."""
        return self.question is not None and self.promql is None

    def central(self, metric: str, *, shortest_seconds: float) -> CentralQuery | None:
        """Return what the metrics' server is asked for; None for a source that the agents read.

        `shortest_seconds`: the length of the shortest period that is read; what a histogram rose by is asked for over
        as much of it as surely is the period's own.
        """
        if self.promql is None:
            return None
        step, promql = self.step or STEP_SECONDS, self.promql
        if self.question is not None:
            window = max(2.0, math.floor(shortest_seconds / step) - 1) * step
            promql = increase_of(promql, by=self.by or "", seconds=window)
        return CentralQuery(
            metric=metric,
            promql=promql,
            host=HostOfSeries(
                by=self.by or "",
                strip_port=self.to_host != "as it is",
                pattern=self.host_pattern or "",
                host_label=self.host_label or "",
            ),
            step_seconds=step,
            settle_seconds=SETTLE_SECONDS if self.settle is None else self.settle,
            every_seconds=self.every or EVERY_SECONDS,
            fresh_seconds=self.fresh or 2 * step,
            histogram=self.question,
        )

    def as_asked(self, metric: str, *, needed: bool) -> MetricSource:
        """Return the source in the agents' words."""
        place, at = self.registered if self.promql is None else ("promql", self.promql)
        pick = {
            SourceForm.PROMETHEUS: self.name or metric,
            SourceForm.JSON: self.path or "",
            SourceForm.HISTOGRAM: self.histogram or "",
        }
        return MetricSource(
            metric=metric,
            url=self.prometheus or self.json_page or "",
            argv=self.command or (),
            place=place,
            at=at,
            perf=self.perf or "",
            in_cgroup=self.scope == "cgroup",
            user=self.user,
            form=self.form,
            pick=pick.get(self.form, ""),
            labels=dict(self.labels),
            sum_series=self.sum,
            counter=self.counter(metric),
            kind_said=self.kind is not None,
            every_seconds=self.every or 0.0,
            timeout_seconds=self.timeout,
            needed=needed,
            quantile=self.quantile,
            share_below=self.share_below,
        )


def _place_key(kind: PlaceKind) -> tuple[object, object]:
    def check(text: str) -> str:
        if (problem := kind.wrong(text)) is not None:
            raise ValueRefused(*problem)
        return text

    written = Annotated[Text, AfterValidator(check), text_like(kind.called, kind.pattern)]
    return written | None, key(kind.meaning, kind.example, default=None)


_PLACES = {  # how a spec writes it -> its field
    "prometheus": "prometheus",
    "json": "json_page",
    "command": "command",
    **{name: name for name in place_kinds()},
    "perf": "perf",
    "promql": "promql",
}
if TYPE_CHECKING:
    SourceSection: TypeAlias = SourceKeys
else:
    _KEYS = {name: _place_key(kind) for name, kind in place_kinds().items() if name not in SourceKeys.model_fields}
    SourceSection = create_model("Source", __base__=SourceKeys, __doc__=SourceKeys.__doc__, **_KEYS)
    SourceSection.model_config["json_schema_extra"] = exactly_one(*_PLACES)


def central_queries(sources: Mapping[str, SourceSection], *, shortest_seconds: float) -> tuple[CentralQuery, ...]:
    """Return what the metrics' server is asked for, as the sources stand in the spec."""
    asked = (source.central(name, shortest_seconds=shortest_seconds) for name, source in sources.items())
    return tuple(query for query in asked if query is not None)


def asked_sources(sources: Mapping[str, SourceSection], *, primary: str, workload: str) -> tuple[MetricSource, ...]:
    """Return what the agents read. Only what answers before the workload ('' for none) starts can be needed then."""
    early = workload in {"", "service"}
    return tuple(
        source.as_asked(name, needed=name == primary and (early or source.perf is not None))
        for name, source in sources.items()
    )


def source_problems(
    sources: Mapping[str, SourceSection], *, measure_seconds: float | None, taken: Mapping[str, Owned], service: bool
) -> Iterator[tuple[Path, str, str]]:
    """Yield what is wrong with the sources. `taken` are names that somebody else has.

    `measure_seconds` is the length of a measured period, None where it is as long as the stages hold; `service`:
    whether the workload is one, and so has a cgroup.
    """
    for name, source in sources.items():
        path: Path = ("metrics", "sources", name)
        if not source.places:
            yield path, "the source names no place", f"give one of {', '.join(_PLACES)}"
        elif len(source.places) > 1:
            yield path, f"a source is one place, here are {' and '.join(source.places)}", "keep one"
        else:
            yield from (((*path, key), what, remedy) for key, what, remedy in _keys(source))
        if name in taken:
            yield path, f"the name {name} is taken: {taken[name]}", "give the source another name"
        if source.scope == "cgroup" and not service:
            yield (
                (*path, "scope"),
                "the workload has no cgroup to count in",
                "write 'workload: {service: ...}', or leave it out",
            )
        for other in (*source.as_asked(name, needed=False).names[1:], f"cgroup_{name}"):
            if other in sources and (source.perf is not None or source.question is not None):
                by = "event" if source.perf is not None else "histogram"
                taken_by = f"the name {other} is taken by the {by} {name}"
                yield ("metrics", "sources", other), taken_by, "give the source another name"
        yield from _lengths(measure_seconds, source, path)


def _keys(source: SourceSection) -> Iterator[tuple[str, str, str]]:
    (place,) = source.places
    if place == "perf":
        yield from _keys_of_event(source)
        return
    if place == "promql":
        yield from _keys_of_query(source)
        return
    for name in sorted(filter(source.says, _OF_A_QUERY)):
        yield name, f"'{name}' is for a metric that the metrics' server is asked for", "leave it out, or give 'promql'"
    if source.scope is not None:
        yield "scope", "only an event of perf is counted in a scope", "leave it out"
    yield from _keys_of_histogram(source)
    page = source.form.exposition
    if source.name is not None and (place == "json" or source.path is not None):
        yield "name", "'name' picks a series of a Prometheus page", "write 'path' for JSON, and nothing else"
    if place == "prometheus" and source.path is not None:
        yield "path", "'path' picks from JSON, not from a Prometheus page", "write 'name', or 'json: ADDRESS'"
    if place == "json" and source.path is None:
        yield "json", "what to pick from the JSON is not said", "add for example 'path: a.b[0].c'"
    if source.labels and not page:
        yield "labels", "labels choose among series of a Prometheus page", "leave them out"
    if source.sum and not page:
        yield "sum", "only series of a Prometheus page can be added up", "leave it out"
    if source.user is not None and place != "command":
        yield "user", "only a command is run as a user", "leave it out"
    if source.command is not None and not source.command[0]:
        yield "command", "no program is named", "give the program and its arguments, one word each"


def _keys_of_question(source: SourceSection) -> Iterator[tuple[str, str, str]]:
    if source.quantile is not None and source.share_below is not None:
        yield "share_below", "quantile and share_below are two metrics", "keep one, and give the other a source"


def _keys_of_histogram(source: SourceSection) -> Iterator[tuple[str, str, str]]:
    (place,) = source.places
    if source.histogram is None:
        for name in ("quantile", "share_below"):
            if source.says(name):
                yield name, f"'{name}' is for a histogram", "name it: 'histogram: http_request_duration_seconds'"
        return
    yield from _keys_of_question(source)
    if place == "json":
        yield "histogram", "a histogram is on a Prometheus page", "write 'prometheus: ADDRESS'"
    if source.question is None:
        yield "histogram", "a histogram is not one number", "add 'quantile: 0.99', or 'share_below: 0.25'"
    for name in ("name", "path", "sum", "kind"):
        if source.says(name):
            yield name, f"'{name}' says nothing of a histogram", "leave it out"


def _keys_of_event(source: SourceSection) -> Iterator[tuple[str, str, str]]:
    for name in ("name", "path", *_OF_A_HISTOGRAM, "labels", "sum", "user", "every", "timeout"):
        if source.says(name):
            yield name, f"'{name}' says nothing of an event, which is counted with each sample", "leave it out"
    if source.kind == "gauge":
        yield "kind", "an event is counted: it is not a gauge", "leave it out"


def _keys_of_query(source: SourceSection) -> Iterator[tuple[str, str, str]]:
    if source.question is not None:
        yield from _keys_of_question(source)
        native = names_buckets(source.promql or "")
        if native is None:
            what = "a quantile or a share needs the histogram's own series, not a query"
            yield "promql", what, "write for example 'http_request_duration_seconds_bucket{job=\"web\"}'"
    elif counter := bare_counter(source.promql or ""):
        what = f"{counter} is a counter: its level tells how long a service has run"
        yield "promql", what, f"write 'rate({counter}[1m])'; 'last_over_time({counter}[30s])' where it is none"
    for name in ("name", "path", "histogram", "labels", "sum", "kind", "user", "timeout", "scope"):
        if source.says(name):
            yield name, f"'{name}' says nothing of a query", "say it in PromQL"
    alone = "{host}" in (source.promql or "")
    if alone == (source.by is not None):
        what = "the query is for one host, and for all" if alone else "nothing says which host a series is of"
        yield "promql", what, "write {host} where a host's name belongs, or 'by: instance' and one query for all"
    ways = [name for name in ("to_host", "host_pattern") if getattr(source, name) is not None]
    if len(ways) > 1:
        yield "host_pattern", f"{' and '.join(ways)} say two things of one label", "keep one"
    for name in (*ways, *(["host_label"] if source.host_label is not None else [])):
        if source.by is None:
            yield name, "there is no label to be read", "name it: 'by: instance'"


def _lengths(measure_seconds: float | None, source: SourceSection, path: Path) -> Iterator[tuple[Path, str, str]]:
    if measure_seconds is None or source.every is None or source.promql is not None:
        return
    if 2 * source.every > measure_seconds:
        what = f"read every {format_duration(source.every)}, fewer than two readings fall into a measured period"
        yield (*path, "every"), what, f"write {format_duration(measure_seconds / 2)} or less"


def apart_at_most(sources: Mapping[str, SourceSection], *, sample_every_seconds: float) -> dict[str, float]:
    """Return the sources that the agents read one by one -> seconds between two readings, at most, while each answers.

    One that takes as long as it may delays the next, and one may be dropped for it.
    """
    return {
        name: 2 * (source.every or sample_every_seconds) + source.timeout
        for name, source in sources.items()
        if source.promql is None and source.perf is None and source.question is None
    }


def counters_among(sources: Mapping[str, SourceSection]) -> frozenset[str]:
    """Return the names of the sources whose values only rise, and of an event's times."""
    asked = (source.as_asked(name, needed=False) for name, source in sources.items() if source.counter(name))
    return frozenset(name for one in asked for name in one.names if not name.endswith("_coverage") or not one.perf)
