"""The catalogue as a page for people: docs/METRICS.md is this text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agents.catalogue.derived import DERIVED, DERIVED_PATTERNS, DerivedMetric
from agents.catalogue.metric import Metric
from agents.catalogue.patterns import PATTERNS
from agents.catalogue.table import CATALOGUE

_INTRODUCTION = """\
# Metrics

This page is generated from `agents/catalogue`; a test keeps it current. To write it again:

    python -c 'from agents.catalogue import render_catalogue as r; print(r(), end="")' > docs/METRICS.md

A **counter** only rises while a host is up: a period's value is its last reading minus its first. A **gauge** is a
level: a period's value is the mean over its samples. A source that a host does not have makes its metrics *absent*
there, with a reason; they are never zero. "Column" marks the metrics with a column of their own in the `sample` table.

Pages are the host's own: base pages, and under names with `thp_` but no size huge pages of a PMD, whatever these are
there. Where the hosts of a run have pages of different sizes, such a metric is estimated for each size alone.

A CPU counts four to eight events at once and takes turns with more: before a run each host's preflight counts all that
the spec wants for a tenth of a second, and says which of them are counted only part of the time, and how much. Of the
metrics from perf_event_open, those up to `cpu_migrations` are counted always, the others where a metric of the spec is
one of them or is derived from one; of a cgroup, which takes counters once more, only page faults, context switches and
migrations always. On a CPU of a table what is divided by another event is counted in one group with it, so that both
are seen at the same moments, as far as the CPU's counters hold it; two metrics that are one event on a CPU take one
counter. An *event of the CPU's table* is the CPU maker's own for this purpose, of the CPUs in `agents/perf/tables`;
what it is on a host, `fleetexp doctor` says. Not every CPU tells loads from stores: `dtlb_load_*` and `dtlb_store_*`
are one of them, `dtlb_*` both together.
"""


_OWNERS = """
## Names have owners

Each name on this page belongs to who measures it: the host's kernel, its perf events, fleetexp, which derives or counts
it (all of `agent_*` and `fleetexp_*`), or the workload named under source; so do `thp_<N>kB_*` and `pageblocks_*` of
kernels to come. Other letters make no other name: `OOM_kills` is the kernel's. Every other name is yours: a `command`
prints it, or a source has it, not both, and no two sources. `throughput` is for a `command` or a source. What
fleetexp's own workloads report is theirs alone: a `command` calls its own times otherwise.

A spec whose source has the name of another, or that wants from a `command` what is not its to report, is refused. What
a `command` prints is known only then: under the name of another it is never stored, it is a `foreign_metric` event with
the name and its owner (once for each name, twenty in a period), and the period is invalid.
"""


_SOURCES = """
## Your own: `metrics.sources`

A metric of a service is declared under a name of your own, with the one place where it is read:

```yaml
metrics:
  primary: requests
  sources:
    requests: {prometheus: "http://{host}:9187/metrics", name: http_requests_total, labels: {job: web}, unit: requests}
    errors: {prometheus: "http://127.0.0.1:9187/metrics", name: http_errors_total, sum: true}
    latency: {json: "http://127.0.0.1:8080/stats", path: 'http.p99[0].seconds', unit: seconds}
    queue: {command: [redis-cli, --raw, llen, mails], user: redis, timeout: 2s}
    temperature: {file: /sys/class/hwmon/hwmon0/temp1_input, every: 10s}
    l2_misses: {perf: "cpu/event=0x24,umask=0x3f/", unit: misses}
  better: {requests: increase}
```

| key | means |
|---|---|
| `prometheus` | address of a page in the Prometheus text or OpenMetrics format; `{host}` is the host's name |
| `json` | address of a JSON document |
| `command` | a program and its arguments, one word each; no shell reads them |
| `file` | absolute path of a plain file |
| `perf` | an event as perf writes it, counted with each sample; see below |
| `scope` | of an event: `host` (all tasks, the default), or `cgroup`, where the workload is a service |
| `name` | the series on a Prometheus page, also one that a command prints or a file holds; else the metric's own name |
| `labels` | the series that has each of these labels exactly so |
| `sum` | `true`: several series may match, and are added up; else more than one is not a value |
| `path` | where in JSON, also that of a command or file: `a.b[0].c`, `a["odd.key"]`; numbers written as text count |
| `kind` | `counter` (observed as a rate per second) or `gauge` |
| `unit` | in the metric's reports; of a counter, before "per second" |
| `every` | least time between two readings; else as often as samples are taken |
| `timeout` | longest time for one reading, 5s |
| `user` | who runs the command |

Without `name` and `path` a command or file says one number and nothing else. Without `kind`, a series whose name ends
in `_total`, `_bucket`, `_count` or `_sum` is a counter, and everything else a gauge; a page whose TYPE says otherwise
gives no value until `kind` settles it. A quantile of a summary is read with `labels: {quantile: "0.99"}`; a histogram's
is not computed, because a mean of quantiles is not a quantile.

The exact name wins; else a counter's goes with and without `_total`. A name in UTF-8, `my.metric`, is written as it is.
Of counters with `sum` what each rose by is added up: one that began anew can't hide behind the others.

Each place is read in a thread of its own, once for all metrics that it has, and never holds a sample up. What it says
is understood in a process of its own, of bounded memory and time, which is killed when it is late. Values go into the
`measurement` table, each with the instant in the middle of its reading, or the one that the page gives: milliseconds in
the text format, seconds in OpenMetrics; in another unit, of before the period, to come or repeated it is not a value.

**Missing is missing**: no answer in time, another status than 200, a redirect, more than 16 MiB, a page cut short, a
line that breaks the format's rules, a series that is not there, NaN or infinity give no value, never 0, and a
`source_lost` event with the reason, once per outage and period. A counter that fell in a period (its service began
anew) is left out of that period, and so is a sum of which one series fell, and what is another process' by its labels
or by a `_created` of its page. What was away at a stretch for more than a fifth of a period has no value of it. What
reading costs is part of `agent_cpu_seconds`. Before a run each source is read once: one that can't be is a warning, and
for the primary metric an error, unless the workload has yet to start what answers there.

## Any event: `perf`

One event in the syntax of `perf stat -e`, for all CPUs:

| is written | is |
|---|---|
| `cpu/event=0x24,umask=0x3f,cmask=1/` | terms of a PMU: any field in `/sys/bus/event_source/devices/PMU/format` |
| `cpu/config=0x3f24,config1=0x1/` | the same by whole numbers: `config`, `config1`, `config2` |
| `cpu/cache-misses/`, `msr/tsc/` | a name in `/sys/bus/event_source/devices/PMU/events` |
| `r3f24` | a raw code of the CPU's own PMU, hexadecimal |
| `cache-misses`, `dTLB-load-misses`, `page-faults` | the kernel's own events, as `perf list` names them |
| `cpu/event=0x24/u`, `cycles:k` | only user code, only the kernel's |

`name=...` among the terms names the event in tables and reports. What records instead of counting (`period`, `:p`),
groups, tracepoints and PMUs that place probes (`kprobe`, `uprobe`) are refused, and so is a PMU that counts for a whole
package. The spec is checked for its form; whether a host takes the event its preflight finds out, by opening it: where
not, the metric is unavailable there, with the reason, and where it is the primary metric the run does not start.

It is a counter like those above: scaled where it took turns, with `NAME_coverage`, the share of the time in which it
was counted. What was asked of the kernel stands in `counted_event`. A code, or a generic event other than cycles,
instructions and those of software, may count different things on two kinds of CPU: each kind is estimated alone, and
the name that they share is not.
"""


def render_catalogue() -> str:
    """Return the catalogue as Markdown."""
    parts = [_INTRODUCTION, "## Read on every host where the source exists\n", *_table(CATALOGUE.values())]
    parts += ["\n## Named after what the host has\n", "| name | example | unit | kind | source | meaning |"]
    parts.append("|---|---|---|---|---|---|")
    for pattern in PATTERNS:
        match = pattern.expression.fullmatch(pattern.example)
        assert match is not None, pattern.shape  # noqa: S101  a defect of the table, found by its test
        one = pattern.describe(match)
        cells = (f"`{pattern.shape}`", f"`{one.name}`", one.unit, str(one.kind), one.source, one.meaning)
        parts.append(_row(cells))
    parts += ["\n## Derived\n", "| name | unit | over | formula | meaning | better |", "|---|---|---|---|---|---|"]
    parts += [_derived_row(metric, metric.name) for metric in DERIVED.values()]
    for family in DERIVED_PATTERNS:
        parts.append(_derived_row(family.make(family.example), family.shape))
    return "\n".join(parts) + "\n" + _OWNERS + _SOURCES


def _table(metrics: Iterable[Metric]) -> Iterator[str]:
    yield "| name | unit | kind | better | column | source | meaning |"
    yield "|---|---|---|---|---|---|---|"
    for one in metrics:
        mark = "yes" if one.column else ""
        yield _row((f"`{one.name}`", one.unit, str(one.kind), one.better or "", mark, one.source, one.meaning))


def _derived_row(metric: DerivedMetric, name: str) -> str:
    top = " ".join(f"{weight:+g} x {term}" for term, weight in metric.numerator)
    top += "".join(f" [{weight:+g} x {term}]" for term, weight in metric.where_read)
    bottom = " ".join(f"{weight:+g} x {term}" for term, weight in metric.denominator)
    formula = f"({top}) / ({bottom})" if bottom else top
    if metric.per:
        factor = [" ".join(f"{weight:+g} x {term}" for term, weight in terms) for terms in (metric.times, metric.per)]
        formula = f"{formula} x ({factor[0]}) / ({factor[1]})"
    if metric.scale != 1.0:
        formula = f"{metric.scale:g} x {formula}"
    return _row((f"`{name}`", metric.unit, str(metric.kind), f"`{formula}`", metric.meaning, metric.better or ""))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
