"""The experiment as its YAML says it: sections, defaults, and what the rest of the program asks of it."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer

from agents.messages import Arm, MetricSource, WorkloadSpec
from analysis.plan import BalanceRule
from fleetexp.config.knob_names import KnobName, KnobValue
from fleetexp.config.names import MetricName, Name, Text, check_word
from fleetexp.config.problem import Refused
from fleetexp.config.quantities import Count, Duration, Share, lasting
from fleetexp.config.sources import Source, asked_sources, counters_among
from fleetexp.config.workload import Section, Workload
from fleetexp.domain import Design, Safety
from fleetexp.population import HostInfo, LeftOut, parse_conditions, why_not

METHODS = ("independent", "complete", "matched_pairs", "rerandomise")
BALANCED = METHODS[2:]  # the methods that look at what hosts were before
DEFAULT_ACCEPT = 0.05
DEFAULT_DRAWS = 10_000
DEFAULT_SALT = "fleet"
DEFAULT_BLOCKS = 8
DEFAULT_MEASURE_SECONDS = 60.0


def _condition(text: object) -> object:
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise Refused(f"{text} may be text or a number", f"quote it: '{text}' or '>={text}'")
    if isinstance(text, str):
        try:
            parse_conditions(text)
        except ValueError as error:
            raise Refused(str(error), "write for example '>=6.19', '>=200GiB', '!=web-a' or '>=6.12, <6.20'") from None
    return text


class Population(Section):
    """The hosts that may take part. Names may hold * and ?; a host must meet every condition."""

    pools: tuple[Text, ...] = ()
    hosts: tuple[Text, ...] = ()
    exclude: tuple[Text, ...] = ()
    where: dict[str, Annotated[str, BeforeValidator(_condition)]] = Field(default_factory=dict)

    def why_not(self, host: HostInfo) -> LeftOut | None:
        """Return the condition that leaves a host out; None where it takes part."""
        conditions = {label: parse_conditions(text, label) for label, text in self.where.items()}
        return why_not(host, pools=self.pools, hosts=self.hosts, exclude=self.exclude, where=conditions)


class Assignment(Section):
    """How chance decides: `method`, `ratio` and `strata` for a parallel design, `order` for a switchback.

    `balance` names labels or metrics that hosts are paired by, or that a draw must balance: it is drawn again until
    Mahalanobis' distance is among the nearest `accept` of all draws, or no difference is above `largest_difference`
    standard deviations. A share `holdout` of all hosts is touched by no experiment that names the same salt.
    """

    method: Annotated[str, check_word(*METHODS)] | None = None
    balance: tuple[Text, ...] = ()
    accept: Annotated[Share, Field(gt=0, lt=1)] | None = None
    largest_difference: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_draws: Annotated[Count, Field(ge=1, le=100_000)] | None = None
    holdout: Annotated[Share, Field(gt=0, lt=1)] | None = None
    holdout_salt: Text | None = None
    ratio: dict[str, Annotated[Count, Field(ge=1)]] | None = None
    strata: tuple[Text, ...] = ()
    seed: Annotated[Count, Field(lt=2**63)] | None = None
    order: Annotated[str, check_word("pairs", "abba")] | None = None


class Stage(Section):
    """A step of the ramp: how many units have joined by its end, and how long it holds after they have washed out."""

    hosts: Annotated[Count, Field(ge=1)] | None = None
    share: Annotated[Share, Field(gt=0, le=1)] | None = None
    hold: Duration = 0.0
    approve: Annotated[str, check_word("auto", "manual")] = "auto"


class Periods(Section):
    """Lengths. `measure` and `blocks` are for a switchback; a parallel design measures while its stages hold."""

    baseline: Duration = 0.0
    washout: Duration = 10.0
    measure: Annotated[Duration, lasting("200ms", "30d")] | None = None
    blocks: Annotated[Count, Field(ge=1, le=10_000)] | None = None
    sample_every: Annotated[Duration, lasting("100ms", "1h")] | None = None


Direction = Annotated[str, check_word("increase", "decrease")]


class Guardrail(Section):
    """A limit: a relative `margin` in the `worse` direction, or an absolute `tripwire`."""

    metric: MetricName
    worse: Direction | None = None
    margin: Annotated[Share, Field(gt=0)] | None = None
    tripwire: Annotated[float, Field(allow_inf_nan=False)] | None = None


class TradeOff(Section):
    """What the trade in servers weighs: the load that a server takes against the memory that it needs.

    `decides`: a favourable decision needs both a better primary and a trade that excludes a cost, or one of them only.
    """

    throughput: MetricName
    memory: MetricName = "memory_used_bytes"
    memory_bound: Annotated[Share, Field(ge=0, le=1)] = 0.5  # share of the fleet that is sized by memory
    decides: Annotated[str, check_word("both", "primary", "servers")] = "both"


class Metrics(Section):
    """What is estimated, what halts, and what the user's own metrics are.

    `expected` is the relative effect on the primary metric that the experiment is run for, either way.
    """

    primary: MetricName
    expected: Annotated[Share, Field(gt=0)] | None = None
    secondary: tuple[MetricName, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    sources: dict[MetricName, Source] = Field(default_factory=dict)
    better: dict[MetricName, Direction] = Field(default_factory=dict)
    trade: TradeOff | None = None


class SafetyRules(Section):
    """What bounds the damage. `max_changing`: hosts being changed at once; `max_per`: off control at once, by label."""

    max_failed_hosts: Count = 1
    lease: Annotated[Duration, lasting("3s", "1h")] = 60.0
    on_drift: Annotated[str, check_word("halt", "reapply", "invalidate")] = "invalidate"
    max_attempts: Annotated[Count, Field(ge=1, le=10)] = 3
    max_changing: Annotated[Count, Field(ge=1)] | None = None
    max_per: dict[str, Annotated[Count, Field(ge=1)]] = Field(default_factory=dict)


def _knobs(value: object) -> object:
    return {} if value is None else value


ArmKnobs = Annotated[dict[KnobName, KnobValue], BeforeValidator(_knobs)]


class Experiment(Section):
    """One experiment. Durations in seconds, sizes in bytes, shares as ratios; what was not said has its default."""

    name: Name
    hypothesis: Text = ""
    design: Annotated[str, check_word("parallel", "switchback")]
    population: Population = Population()
    control: Text = "control"
    arms: dict[Name, ArmKnobs]
    assignment: Assignment = Assignment()
    stages: tuple[Stage, ...] = ()
    periods: Periods = Periods()
    workload: (
        Annotated[
            InstanceOf[Workload], PlainSerializer(lambda workload: workload.as_spec(), when_used="json-unless-none")
        ]
        | None
    ) = None
    metrics: Metrics
    safety: SafetyRules = SafetyRules()
    alpha: Annotated[Share, Field(gt=0, lt=0.5)] = 0.05

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
    def method(self) -> str:
        """How arms are drawn in a parallel design."""
        return self.assignment.method or METHODS[0]

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
            on_drift=self.safety.on_drift,
            max_attempts=self.safety.max_attempts,
            max_changing=self.safety.max_changing,
            max_per=self.safety.max_per,
        )

    @property
    def sources(self) -> tuple[MetricSource, ...]:
        """What the agents read for the user's own metrics."""
        workload = "" if self.workload is None else self.workload.kind
        return asked_sources(self.metrics.sources, primary=self.metrics.primary, workload=workload)

    @property
    def counters(self) -> frozenset[str]:
        """The metrics of the user's own that are counters: observed as rates."""
        return counters_among(self.metrics.sources)

    def workload_for(self, arm: str) -> WorkloadSpec | None:
        """Return what runs under an arm, None where the experiment only watches; KeyError for an unknown arm."""
        if arm not in self.arms:
            raise KeyError(arm)
        return None if self.workload is None else self.workload.for_arm(arm)
