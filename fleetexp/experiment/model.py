"""The experiment as its YAML says it: sections, defaults, and what the rest of the program asks of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, InstanceOf, PlainSerializer

from agents.catalogue import asked_events
from agents.messages import Arm, MetricSource, WorkloadSpec
from agents.traced_calls import Traced
from analysis.assignment_method import AssignmentMethod, find_method, installed_methods, own_methods
from analysis.plan import INDEPENDENT, BalanceRule
from fleetexp.domain import Approval, Design, DriftPolicy, Safety, ShortPoolPolicy
from fleetexp.experiment.central import HISTOGRAM_WINDOW_SECONDS, CentralQuery, MetricsServer
from fleetexp.experiment.key import Written, exactly_one, key
from fleetexp.experiment.knob_names import KnobName, KnobValue
from fleetexp.experiment.names import MetricName, Name, Text, check_word
from fleetexp.experiment.population import HostInfo, LeftOut, parse_conditions, why_not
from fleetexp.experiment.problem import ValueRefused
from fleetexp.experiment.quantities import Count, Duration, Share, Size, format_duration, lasting
from fleetexp.experiment.sources import SourceSection, apart_at_most, asked_sources, central_queries, counters_among
from fleetexp.experiment.workload import Section, WorkloadSection

DEFAULT_ACCEPT = 0.05
DEFAULT_DRAWS = 10_000
DEFAULT_SALT = "fleet"
DEFAULT_BLOCKS = 8
DEFAULT_MEASURE_SECONDS = 60.0


def _condition(text: object) -> object:
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueRefused(f"{text} may be text or a number", f"quote it: '{text}' or '>={text}'")
    if isinstance(text, str):
        try:
            parse_conditions(text)
        except ValueError as error:
            raise ValueRefused(
                str(error), "write for example '>=6.19', '>=200GiB', '!=web-a' or '>=6.12, <6.20'"
            ) from None
    return text


Condition = Annotated[str, BeforeValidator(_condition), Written(called="condition", schema={"type": "string"})]


class Population(Section):
    """The hosts that may take part. Names may hold * and ?; a host must meet every condition."""

    pools: tuple[Text, ...] = key("pools, by the hosts' label `pool`; all where none is named", ["web-*"], default=())
    hosts: tuple[Text, ...] = key("names of hosts; all where none is named", ["web-1?"], default=())
    exclude: tuple[Text, ...] = key("names of hosts that take no part", ["web-canary-*"], default=())
    where: dict[str, Condition] = key(
        "label or fact of a host -> what it must be: text, or !=, <, <=, >, >= of numbers, sizes and versions",
        {"kernel": ">=6.19", "memory": ">=200GiB", "sku": "!=old"},
        default=dict,
    )

    def why_not(self, host: HostInfo) -> LeftOut | None:
        """Return the condition that leaves a host out; None where it takes part."""
        conditions = {label: parse_conditions(text, label) for label, text in self.where.items()}
        return why_not(host, pools=self.pools, hosts=self.hosts, exclude=self.exclude, where=conditions)


class AssignmentSection(Section):
    """How chance decides: `method`, `ratio` and `strata` for a parallel design, `order` for a switchback.

    `balance` names labels or metrics that hosts are paired by, or that a draw must balance: it is drawn again until
    Mahalanobis' distance is among the nearest `accept` of all draws, or no difference is above `largest_difference`
    standard deviations. A share `holdout` of all hosts is touched by no experiment that names the same salt.
    """

    method: Annotated[str, *check_word(*own_methods(), further=installed_methods)] | None = key(
        "how hosts get their arms", "rerandomise", default=None, otherwise=INDEPENDENT
    )
    balance: tuple[Text, ...] = key("labels or metrics that the arms must be alike in", ["memory"], default=())
    accept: Annotated[Share, Field(gt=0, lt=1)] | None = key(
        "of all draws, the nearest that `rerandomise` takes", "5%", default=None, otherwise=f"{DEFAULT_ACCEPT:.0%}"
    )
    largest_difference: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = key(
        "the other rule of `rerandomise`: the largest difference of arms", 0.1, default=None, unit="standard deviations"
    )
    max_draws: Annotated[Count, Field(ge=1, le=100_000)] | None = key(
        "most draws of `rerandomise`", "10k", default=None, otherwise=f"{DEFAULT_DRAWS}"
    )
    holdout: Annotated[Share, Field(gt=0, lt=1)] | None = key(
        "of all hosts, those that no experiment with this salt touches", "10%", default=None
    )
    holdout_salt: Text | None = key(
        "experiments of one salt spare the same hosts", "fleet", default=None, otherwise=DEFAULT_SALT
    )
    ratio: dict[str, Annotated[Count, Field(ge=1)]] | None = key(
        "arm -> its parts of the hosts", {"control": 1, "treatment": 1}, default=None, otherwise="equal parts"
    )
    strata: tuple[Text, ...] = key("labels; arms are drawn, effects estimated in each stratum", ["sku"], default=())
    seed: Annotated[Count, Field(lt=2**63)] | None = key(
        "what chance starts from", 20260202, default=None, otherwise="from the name"
    )
    order: Annotated[str, *check_word("pairs", "abba")] | None = key(
        "order of the arms within blocks of a switchback", "abba", default=None, otherwise="pairs"
    )


class Stage(Section):
    """A step of the ramp: how many units have joined by its end, and how long it holds after they have washed out."""

    model_config = ConfigDict(json_schema_extra=exactly_one("hosts", "share"))

    hosts: Annotated[Count, Field(ge=1)] | None = key("how many have joined by its end", 2, default=None, unit="hosts")
    share: Annotated[Share, Field(gt=0, le=1)] | None = key("or the share of all hosts", "10%", default=None)
    hold: Duration = key("how long it holds", "1h", default=0.0)
    approve: Annotated[str, *check_word(*map(str, Approval))] = key(
        "manual: `fleetexp resume` lets the next stage open", "manual", default=str(Approval.AUTO)
    )


class Periods(Section):
    """Lengths. `measure` and `blocks` are for a switchback; a parallel design measures while its stages hold."""

    baseline: Duration = key("measured on every host before anything is changed", "30m", default=0.0)
    washout: Duration = key("after a change of arm, left out of the analysis", "10m", default=10.0)
    measure: Annotated[Duration, *lasting("200ms", "30d")] | None = key(
        "a measured period of a switchback",
        "30s",
        default=None,
        otherwise=format_duration(DEFAULT_MEASURE_SECONDS),
    )
    blocks: Annotated[Count, Field(ge=1, le=10_000)] | None = key(
        "turns through all arms of a switchback; below 6 nothing is called significant",
        12,
        default=None,
        otherwise=f"{DEFAULT_BLOCKS}",
    )
    sample_every: Annotated[Duration, *lasting("100ms", "1h")] | None = key(
        "time from one reading of the counters to the next", "1s", default=None, otherwise="1s; 10s if parallel"
    )


Direction = Annotated[str, *check_word("increase", "decrease")]


class Guardrail(Section):
    """A limit: a relative `margin` in the `worse` direction, or an absolute `tripwire`."""

    model_config = ConfigDict(json_schema_extra=exactly_one("margin", "tripwire"))

    metric: MetricName = key("what is guarded", "memory_used_bytes")
    worse: Direction | None = key("the bad direction", "increase", default=None, otherwise="the catalogue's")
    margin: Annotated[Share, Field(gt=0)] | None = key("relative harm that is not accepted", "10%", default=None)
    tripwire: Annotated[float, Field(allow_inf_nan=False)] | None = key(
        "value at which a host is put back at once", 1, default=None, unit="of the metric"
    )


class TradeOff(Section):
    """What the trade in servers weighs: the load that a server takes against the memory that it needs.

    `decides`: a favourable decision needs both a better primary and a trade that excludes a cost, or one of them only.
    """

    throughput: MetricName = key("the load that a server takes", "throughput")
    memory: MetricName = key("the memory that it needs", "memory_used_bytes", default="memory_used_bytes")
    memory_bound: Annotated[Share, Field(ge=0, le=1)] = key("of the fleet, what is sized by memory", "50%", default=0.5)
    decides: Annotated[str, *check_word("both", "primary", "servers")] = key(
        "what a favourable decision needs", "servers", default="both"
    )


class Metrics(Section):
    """What is estimated, what halts, and what the user's own metrics are.

    `expected` is the relative effect on the primary metric that the experiment is run for, either way.
    """

    primary: MetricName = key("the one that decides", "access_nanoseconds_per_dereference")
    expected: Annotated[Share, Field(gt=0)] | None = key(
        "relative effect on it that is hoped for; a run that can hardly see it is refused", "5.9%", default=None
    )
    secondary: tuple[MetricName, ...] = key("estimated, with multiplicity kept", ["fault_seconds"], default=())
    guardrails: tuple[Guardrail, ...] = key("limits", [{"metric": "oom_kills", "tripwire": 1}], default=())
    sources: dict[MetricName, SourceSection] = key(
        "metric of your own -> where it is read", {"queue": {"file": "/run/queue"}}, default=dict
    )
    server: MetricsServer | None = key(
        "where `promql` sources are asked for", {"url": "https://prometheus:9090"}, default=None, otherwise="nowhere"
    )
    better: dict[MetricName, Direction] = key(
        "metric -> its good direction, where the catalogue says none", {"throughput": "increase"}, default=dict
    )
    trade: TradeOff | None = key("the trade in servers", {"throughput": "throughput"}, default=None)


class PressureSection(Section):
    """Memory that is held on every host from before the first arm until the host is put back.

    Small pages fill a share of what is available; then a part of them is given back in short runs, so that free
    memory lies in pieces. Where the host comes to need it the rest is given back too: see `workload.pressure`.
    """

    fill: Annotated[Share, Field(gt=0, le=0.9)] = key("of the memory available, what is filled", "70%")
    thin: Annotated[Share, Field(ge=0, lt=1)] = key(
        "of what is filled, what is given back in runs of 64 KiB", "30%", default=0.0
    )


class SafetyRules(Section):
    """What bounds the damage. `max_changing`: hosts being changed at once; `max_per`: off control at once, by label."""

    max_failed_hosts: Count = key("more failed ones end the run", 3, default=1, unit="hosts")
    lease: Annotated[Duration, *lasting("3s", "1h")] = key(
        "a host that is not heard from for so long undoes itself", "30s", default=60.0
    )
    on_drift: Annotated[str, *check_word(*map(str, DriftPolicy))] = key(
        "what happens where somebody else writes a knob of the run", "halt", default=str(DriftPolicy.INVALIDATE)
    )
    on_short_pool: Annotated[str, *check_word(*map(str, ShortPoolPolicy))] = key(
        "what a hugetlb pool means that the kernel grants in part: its arm fails, or holds with what there is",
        "accept",
        default=str(ShortPoolPolicy.FAIL),
    )
    max_attempts: Annotated[Count, Field(ge=1, le=10)] = key("times that a broken block is begun", 5, default=3)
    max_changing: Annotated[Count, Field(ge=1)] | None = key(
        "most hosts that are being changed at once", 50, default=None, unit="hosts"
    )
    max_per: dict[str, Annotated[Count, Field(ge=1)]] = key(
        "label -> most hosts off control at once under one value of it", {"rack": 2}, default=dict, unit="hosts"
    )


class Requirements(Section):
    """What hosts must have shown before; a run is refused where one has not."""

    conformance: Size | None = key(
        "the page size that behaves there: `fleetexp conform` passed under the kernel that runs now",
        "1048576kB",
        default=None,
    )


def _knobs(value: object) -> object:
    return {} if value is None else value


ArmKnobs = Annotated[dict[KnobName, KnobValue], BeforeValidator(_knobs), Written(or_nothing=True)]


class Experiment(Section):
    """One experiment. Durations in seconds, sizes in bytes, shares as ratios; what was not said has its default."""

    name: Name = key("of the experiment, in the store and in reports", "thp-2m")
    hypothesis: Text = key("what is expected, in a sentence", "2 MiB pages make it faster", default="")
    design: Annotated[str, *check_word("parallel", "switchback")] = key(
        "parallel: hosts differ in their arm; switchback: every host goes through all arms in turn", "switchback"
    )
    population: Population = key("which hosts take part", {"pools": ["web-a"]}, default=Population())
    control: Text = key("the arm that the others are compared with", "4k", default="control")
    arms: dict[Name, ArmKnobs] = key(
        "arm -> its knobs and their values; what is left out stays as found",
        {"control": {}, "treatment": {"thp/2048kB/enabled": "always"}},
    )
    assignment: AssignmentSection = key("how chance decides", {"seed": 1}, default=AssignmentSection())
    stages: tuple[Stage, ...] = key(
        "the ramp of a parallel design", [{"hosts": 2, "hold": "10m"}, {"share": "100%", "hold": "24h"}], default=()
    )
    periods: Periods = key("lengths", {"washout": "10s", "measure": "1m"}, default=Periods())
    workload: (
        Annotated[
            InstanceOf[WorkloadSection],
            PlainSerializer(lambda workload: workload.as_spec(), when_used="json-unless-none"),
        ]
        | None
    ) = key(
        "what runs in every period; none watches what runs anyway",
        {"service": "web.service", "restart": "never"},
        default=None,
    )
    requires: Requirements = key(
        "what hosts must have shown before", {"conformance": "1048576kB"}, default=Requirements()
    )
    pressure: PressureSection | None = key(
        "memory that is held meanwhile, so that pages are scarce", {"fill": "70%", "thin": "30%"}, default=None
    )
    metrics: Metrics = key("what is estimated and what halts", {"primary": "pgfault"})
    trace: tuple[Annotated[str, *check_word(*(one.value for one in Traced))], ...] = key(
        "what the kernel traces in every period: splits (who split big pages, why, how long it took), "
        "stalls (how long faults and contiguous allocations took)",
        ["splits", "stalls"],
        default=(),
    )
    safety: SafetyRules = key("what bounds the damage", {"lease": "30s"}, default=SafetyRules())
    alpha: Annotated[Share, Field(gt=0, lt=0.5)] = key("chance of a false alarm", "5%", default=0.05)

    @property
    def kind(self) -> Design:
        return Design(self.design)

    @property
    def switchback(self) -> bool:
        return self.kind is Design.SWITCHBACK

    @property
    def seed(self) -> int:
        """The seed as given, else one from the name: two experiments don't treat the same hosts by default."""
        if self.assignment.seed is not None:
            return self.assignment.seed
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")

    @property
    def order(self) -> str:
        return self.assignment.order or "pairs"

    @property
    def method(self) -> AssignmentMethod:
        """How arms are drawn in a parallel design."""
        return find_method(self.assignment.method or INDEPENDENT)

    @property
    def holdout_salt(self) -> str:
        """Experiments with the same salt spare the same hosts."""
        return self.assignment.holdout_salt or DEFAULT_SALT

    @property
    def balance_rule(self) -> BalanceRule:
        """Which draw `rerandomise` accepts."""
        if self.assignment.largest_difference is not None:
            return BalanceRule(largest_difference=self.assignment.largest_difference)
        return BalanceRule(accept=self.assignment.accept or DEFAULT_ACCEPT)

    @property
    def blocks(self) -> int:
        return self.periods.blocks or DEFAULT_BLOCKS

    @property
    def measure_seconds(self) -> float:
        return self.periods.measure or DEFAULT_MEASURE_SECONDS

    @property
    def sample_every_seconds(self) -> float:
        return self.periods.sample_every or (1.0 if self.switchback else 10.0)

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The control first, the others as written."""
        return (self.control, *(name for name in self.arms if name != self.control))

    @property
    def agent_arms(self) -> tuple[Arm, ...]:
        """The arms in the agents' words, the control first."""
        return tuple(Arm(name=name, knobs=dict(self.arms[name])) for name in self.arm_names)

    @property
    def ratio(self) -> dict[str, int]:
        """Arm -> its part of the hosts, the control first; equal parts where nothing was said."""
        parts = self.assignment.ratio or {}
        return {name: parts.get(name, 1) for name in self.arm_names}

    @property
    def safety_rules(self) -> Safety:
        return Safety(
            max_failed_hosts=self.safety.max_failed_hosts,
            lease_seconds=self.safety.lease,
            on_drift=DriftPolicy(self.safety.on_drift),
            on_short_pool=ShortPoolPolicy(self.safety.on_short_pool),
            max_attempts=self.safety.max_attempts,
            max_changing=self.safety.max_changing,
            max_per=self.safety.max_per,
        )

    @property
    def pressure_workload(self) -> WorkloadSpec | None:
        """What holds memory beside the workload; None where nothing is to."""
        if self.pressure is None:
            return None
        shares = {"fill_percent": self.pressure.fill, "thin_percent": self.pressure.thin}
        return WorkloadSpec(kind="pressure", options={name: round(100 * share) for name, share in shares.items()})

    @property
    def sources(self) -> tuple[MetricSource, ...]:
        """What the agents read for the user's own metrics."""
        central = {query.metric for query in self.central_queries}
        return tuple(source for source in self.simulated_sources if source.metric not in central)

    @property
    def simulated_sources(self) -> tuple[MetricSource, ...]:
        """The same where hosts are made up, as is what a metrics' server would say of them."""
        workload = "" if self.workload is None else self.workload.kind
        return asked_sources(self.metrics.sources, primary=self.metrics.primary, workload=workload)

    @property
    def central_queries(self) -> tuple[CentralQuery, ...]:
        """What the orchestrator asks the metrics' server for."""
        return central_queries(self.metrics.sources, shortest_seconds=self._shortest_read_seconds)

    @property
    def _shortest_read_seconds(self) -> float:
        """The length of the shortest period of which values are read, at most ten minutes of one that stages hold."""
        held = [stage.hold for stage in self.stages if stage.hold > 0]
        measured = self.measure_seconds if self.switchback else min((*held, HISTOGRAM_WINDOW_SECONDS))
        return min(filter(None, (measured, self.periods.baseline)))

    @property
    def events(self) -> tuple[str, ...]:
        """The metrics of perf events that are counted because a metric of the spec needs them."""
        return tuple(dict.fromkeys((*self.needed_events, *asked_events(self.metrics.secondary))))

    @property
    def needed_events(self) -> tuple[str, ...]:
        """Those of them without which there is no answer, or nothing that guards it."""
        guarded = (guardrail.metric for guardrail in self.metrics.guardrails)
        return asked_events((self.metrics.primary, *guarded))

    @property
    def traced(self) -> tuple[Traced, ...]:
        """What of the kernel is traced."""
        return tuple(Traced(word) for word in dict.fromkeys(self.trace))

    @property
    def counters(self) -> frozenset[str]:
        """The metrics of the user's own that are counters: observed as rates."""
        return counters_among(self.metrics.sources)

    @property
    def apart_at_most(self) -> Mapping[str, float]:
        """The metrics that agents read from sources of the user's own -> the most seconds between two readings."""
        return apart_at_most(self.metrics.sources, sample_every_seconds=self.sample_every_seconds)

    def workload_for(self, arm: str) -> WorkloadSpec | None:
        """Return what runs under an arm, None where the experiment only watches; KeyError for an unknown arm."""
        if arm not in self.arms:
            raise KeyError(arm)
        return None if self.workload is None else self.workload.for_arm(arm)
