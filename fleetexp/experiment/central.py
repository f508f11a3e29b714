"""Metrics that a server of Prometheus' HTTP API keeps: `metrics.server` of a spec, and what it is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from agents.histograms.buckets import HistogramQuestion
from agents.secret_words import holds_a_secret, names_a_secret
from fleetexp.experiment.key import Written, key
from fleetexp.experiment.names import Text, text_like
from fleetexp.experiment.problem import ValueRefused
from fleetexp.experiment.quantities import Duration, lasting
from fleetexp.experiment.workload import Section
from fleetexp.secret import PREFIX

HISTOGRAM_PART = "fleetexp_part"  # label of what is asked for beside the buckets
STEP_SECONDS = 15.0
SETTLE_SECONDS = 30.0
EVERY_SECONDS = 60.0
HISTOGRAM_WINDOW_SECONDS = 600.0  # at most, where a measured period has no length of its own
_REFERENCE = rf"env:{PREFIX}[A-Z0-9_]+|file:/[^\0]+"
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_RANGE = re.compile(r"\[\s*((?:[0-9]+(?:ms|[smhdwy]))+)\s*\]")
_SUBQUERY = re.compile(r"\[\s*((?:[0-9]+(?:ms|[smhdwy]))+)\s*:[^\]]*\]")
_OFFSET = re.compile(r"\boffset\s+((?:[0-9]+(?:ms|[smhdwy]))+)", re.IGNORECASE)
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`"
_STRING = re.compile(rf"{_QUOTED}|#[^\n]*")
_SELECTOR = re.compile(rf"\s*[a-zA-Z_:][a-zA-Z0-9_:]*\s*(?:\{{(?:[^{{}}\"'`]|{_QUOTED})*\}})?\s*")
_PORT = re.compile(r"^([^:]+|\[[^\]]+\]):[0-9]+$")  # what follows a further colon is a part of an IPv6 address
_TIMES = re.compile(r"\[[^\]]*\]|\boffset\s*(?:-|[0-9])[^\s),]*|@", re.IGNORECASE)
_PART = re.compile(r"([0-9]+)(ms|[smhdwy])")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}


def _base(text: str) -> str:
    parts = urlsplit(text)
    if parts.username is not None or holds_a_secret(text):
        what = "an address must not hold a password or a token: the spec is kept in the store"
        raise ValueRefused(what, f"name where it is: 'bearer: env:{PREFIX}NAME', or 'file:/PATH'")
    try:
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or re.search(r"[\s{}\x00-\x1f]", text):
        remedy = "write 'https://host:port', with what comes before /api/v1: Mimir's is https://host/prometheus"
        raise ValueRefused(f"{text!r} is not the address of a metrics' server", remedy)
    return text.rstrip("/")


def _reference(text: str) -> str:
    if re.fullmatch(_REFERENCE, text) is None:
        # The text is not repeated: it may be the secret itself.
        what = "a secret is not written into a spec, which is kept in the store"
        raise ValueRefused(what, f"name where it is: 'env:{PREFIX}NAME' or 'file:/PATH'")
    return text


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if _HEADER.fullmatch(name) is None or re.search(r"[^\x20-\x7e]", value):
            raise ValueRefused(f"{name!r} is not a header, or its value not plain text", "write 'X-Scope-OrgID: web'")
        if names_a_secret(name) or name.lower() in {"host", "content-type", "content-length", "accept-encoding"}:
            raise ValueRefused(f"the header {name} is not to be set here", "secrets go by 'bearer' or 'password'")
    return headers


Reference = Annotated[Text, AfterValidator(_reference), text_like("where a secret is", _REFERENCE)]
WholePath = Annotated[Text, text_like("whole path", "/.+")]


class MetricsServer(Section):
    """The server that `promql` sources ask: Prometheus, Thanos, Mimir, VictoriaMetrics. Only the orchestrator asks."""

    url: Annotated[
        Text,
        AfterValidator(_base),
        Written(called="address", schema={"type": "string", "pattern": r"^https?://[^\s{}@?#]+$"}),
    ] = key("its address, up to /api/v1, without a secret", "https://prometheus:9090")
    headers: Annotated[dict[str, Text], AfterValidator(_headers)] = key(
        "sent along, as for a tenant; no secrets", {"X-Scope-OrgID": "web"}, default=dict
    )
    bearer: Reference | None = key(
        "where the bearer token is, in the environment or a file",
        f"env:{PREFIX}METRICS",
        default=None,
        otherwise="none",
    )
    user: Text | None = key("name for basic authentication", "fleetexp", default=None, otherwise="none")
    password: Reference | None = key("where its password is", "file:/etc/fleetexp/metrics", default=None)
    ca: WholePath | None = key(
        "file of the authorities that may have signed its certificate",
        "/etc/ssl/ours.pem",
        default=None,
        otherwise="the machine's",
    )
    certificate: WholePath | None = key("our own certificate, for mutual TLS", "/etc/fleetexp/me.pem", default=None)
    private_key: WholePath | None = key("file of its key", "/etc/fleetexp/me.key", default=None)
    timeout: Annotated[Duration, *lasting("100ms", "5m")] = key(
        "longest time of a request, its repeats included", "30s", default=30.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOfSeries:
    """Which host a series is of: by the value of a label, as it is, without a port, by a pattern, or by the inventory.

    `by`: the series' label; '' where the query is asked for one host alone. `pattern`: its first group is the host's
    name. `host_label`: the label of the inventory that has the same value.
    """

    by: str
    strip_port: bool = True
    pattern: str = ""
    host_label: str = ""

    def name(self, value: str) -> str:
        """Return what a label's value says of the host: its name, or the value of its label; '' where it is no host."""
        if self.pattern:
            found = re.fullmatch(self.pattern, value)
            return found[1] or "" if found is not None else ""
        return _bare(_PORT.sub(r"\1", value) if self.strip_port else value)

    def hosts(self, labels: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return what `name` gives -> host. `labels`: those of each host; two hosts of one value have none."""
        found: dict[str, list[str]] = {}
        for host, own in labels.items():
            if value := own.get(self.host_label, "") if self.host_label else host:
                found.setdefault(value if self.pattern else _bare(value), []).append(host)
        return {value: hosts[0] for value, hosts in found.items() if len(hosts) == 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralQuery:
    """What the server is asked for one metric, times in seconds.

    `lookback_seconds`: how far before an instant the query looks; `fresh_seconds`: an older sample is none.
    """

    metric: str
    promql: str
    host: HostOfSeries
    step_seconds: float
    settle_seconds: float
    every_seconds: float
    fresh_seconds: float
    histogram: HistogramQuestion | None = None  # the answer is of one's buckets, and this is wanted of them

    @property
    def lookback_seconds(self) -> float:
        return lookback_seconds(self.promql) or self.fresh_seconds

    def asked(self, host: str = "") -> str:
        """Return the query as it is sent. A bare selector would hold an old sample for five minutes: it is told how old
        one may be in the query itself, because only Prometheus from 2.43 on takes that beside it."""
        promql = self.promql.replace("{host}", host)
        if _SELECTOR.fullmatch(promql):
            return f"last_over_time({promql.strip()}[{round(self.fresh_seconds * 1000)}ms])"
        return promql


def increase_of(selector: str, *, by: str, seconds: float) -> str:
    """Return the query for what a histogram rose by: the buckets of all series of a host added up.

    A selector of a name with '_bucket' is of a classic histogram. There the number of series that have each bucket is
    asked for with it: those with unlike buckets can't be added up.
    """
    rise = f"increase({selector.strip()}[{round(seconds * 1000)}ms])"
    if not names_buckets(selector):
        return f"sum by ({by}) ({rise})"
    each = ", ".join(filter(None, (by, "le")))
    return (
        f'sum by ({each}) ({rise}) or label_replace(count by ({each}) ({rise}), "{HISTOGRAM_PART}", "series", "", "")'
    )


def names_buckets(selector: str) -> bool | None:
    """Tell whether a bare selector is of the buckets of a classic histogram; None where it is no bare selector."""
    if not _SELECTOR.fullmatch(selector.replace("{host}", "host")):
        return None
    return selector.partition("{")[0].strip().endswith("_bucket")


def lookback_seconds(promql: str) -> float:
    """Return how far back a query looks, at most: its longest range and offset, and every subquery; seconds."""
    bare = _STRING.sub('""', promql)
    longest = sum(max(map(_seconds, found.findall(bare)), default=0.0) for found in (_RANGE, _OFFSET))
    return longest + sum(map(_seconds, _SUBQUERY.findall(bare)))


def unclear_time(promql: str) -> str:
    """Return the first part of a query that moves it to times which `lookback_seconds` can't tell, '' for none.

    These are `@`, an offset into the time to come, and what newer servers take beside durations with a unit.
    """
    bare = _STRING.sub('""', promql)
    known = (_RANGE, _SUBQUERY, _OFFSET)
    every = (found[0] for found in _TIMES.finditer(bare))
    return next((one for one in every if not any(form.fullmatch(one) for form in known)), "")


def bare_counter(promql: str) -> str:
    """Return the name of the counter that a bare selector chooses, by Prometheus' own custom; '' for anything else."""
    name = promql.partition("{")[0].strip()
    bare = _SELECTOR.fullmatch(promql.replace("{host}", "host"))
    return name if bare and name.endswith(("_total", "_bucket")) else ""


def _bare(address: str) -> str:
    """Return an IPv6 address without brackets, anything else as it is."""
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def _seconds(text: str) -> float:
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
