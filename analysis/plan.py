"""What the analysis was told before it saw data: the design, the control arm, the metrics and their roles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

TOGETHER = "together"  # the order of a switchback whose hosts all changed arms at the same time, by one draw
INDEPENDENT = "independent"  # the method of assignment where none is asked for


class Role(StrEnum):
    """What a metric is for; it decides the error rate that its estimate must keep."""

    PRIMARY = "primary"  # one, at alpha
    SECONDARY = "secondary"  # Holm
    GUARDRAIL = "guardrail"  # non-inferiority on a margin
    EXPLORATORY = "exploratory"  # Benjamini-Hochberg
    EXPOSURE = "exposure"  # how much of the treatment was received
    OBSERVER = "observer"  # what watching cost


class Direction(StrEnum):
    """Which way a metric should move."""

    INCREASE = "increase"
    DECREASE = "decrease"


class Estimand(StrEnum):
    """What is estimated of a metric where hosts are the units."""

    MEAN_OVER_HOSTS = "mean over hosts"
    FLEET_RATIO = "fleet ratio"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPlan:
    """One metric to estimate. A ratio metric names its denominator; both are summed within host first.

    `name` is the metric's name in the observations, and of a ratio's numerator. `counter` says that the observations
    hold per-second rates: a tripwire then looks at the total, how much it rose. `statistic` is the column of the
    observations that counts: 'mean', or 'p99' for a tail metric, taken within the host first. `estimand` of a ratio
    is the mean over hosts (every host weighs alike) or the fleet ratio (sum over sum of the whole fleet). Of a quantile
    or share of a histogram, `at_least` and `at_most` name the metrics between which the true value lies.
    """

    name: str
    unit: str
    role: Role
    better: Direction | None = None
    denominator: str | None = None
    counter: bool = False
    statistic: str = "mean"
    estimand: Estimand = Estimand.MEAN_OVER_HOSTS
    at_least: str = ""
    at_most: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailPlan:
    """A limit on a metric: a relative `margin` (0.1 = 10 %) in the `worse` direction, or an absolute `tripwire`."""

    metric: str
    worse: Direction
    margin: float | None = None
    tripwire: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A tripwire that a host reached: it was put back at once, and what it measured from there on is missing."""

    metric: str
    arm: str
    host: str
    detail: str  # '3 reached the tripwire 1'


class Rule(StrEnum):
    """What a favourable decision needs where a trade in servers can be computed."""

    BOTH = "both"  # a better primary, and a trade that excludes a cost
    PRIMARY = "primary"  # a better primary; the trade is told beside it
    SERVERS = "servers"  # a trade that saves servers; the primary is told beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class TradePlan:
    """Which metrics make up the trade in servers: load a server can take against memory it needs.

    `memory_bound_share` of the fleet (0 to 1) is sized by memory, the rest by throughput. `rule` says what decides.
    """

    throughput: str
    memory: str
    memory_bound_share: float = 0.5
    rule: Rule = Rule.BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceRule:
    """What makes a draw acceptable. Either is None.

    `accept`: Mahalanobis' distance of the arms' means is below that of this share of all draws (by its chi-square
    distribution). `largest_difference`: no covariate's means are further apart, in standard deviations of all hosts.
    """

    accept: float | None = None
    largest_difference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentPlan:
    """How the arms of a parallel design were drawn, as far as it must be known to draw again.

    `accept` or `largest_difference` is the rule of a method that has one, `threshold` the limit that follows,
    `distance` what the draw that was taken reached, `draws` how many it took. `held_out` hosts would have taken part.
    """

    method: str = INDEPENDENT
    strata: tuple[str, ...] = ()
    balance: tuple[str, ...] = ()
    accept: float | None = None
    largest_difference: float | None = None
    threshold: float | None = None
    distance: float | None = None
    draws: int = 1
    holdout: float = 0.0
    holdout_salt: str = ""
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedUnit:
    """One randomised unit. `arm` is None in a switchback, where every unit passes through every arm.

    `pair` names the set of matched hosts whose arms one coin decided ('' where there is none), `balance` what a draw
    was balanced on.
    """

    host: str
    stratum: str
    arm: str | None
    stage: int = 0
    pair: str = ""
    balance: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPlan:
    """The plan of analysis. `arms` lists the control too; the control is named, never inferred from order."""

    design: str  # 'switchback' or 'parallel'
    control: str
    arms: tuple[str, ...]
    metrics: tuple[MetricPlan, ...]
    guardrails: tuple[GuardrailPlan, ...] = ()
    units: tuple[AssignedUnit, ...] = ()
    alpha: float = 0.05
    seed: int = 0
    information_fractions: tuple[float, ...] = (1.0,)  # of the planned looks, the last is 1
    look: int = 0  # which of them this is, from 0
    order: str = "pairs"  # switchback: 'pairs', 'abba' or 'together', what the randomisation drew from
    # Of the arms, in their order, that assignment aimed at; () is the same for all, None: nobody knows.
    ratio: tuple[float, ...] | None = ()
    stratum_weights: tuple[tuple[str, float], ...] = ()  # () weighs strata by their hosts
    unplanned_look: bool = False  # at no planned look: intervals that hold at every moment (confidence sequences)
    trade: TradePlan | None = None
    method: str = INDEPENDENT  # how the arms of a parallel design were drawn: a name of analysis.assignment_method
    balance_rule: BalanceRule | None = None  # which draw was accepted, where a rule decided

    @property
    def odds(self) -> tuple[float, ...] | None:
        """Each arm's parts of the hosts, None where nobody knows."""
        return (1.0,) * len(self.arms) if self.ratio == () else self.ratio

    @property
    def of_one_coin(self) -> tuple[str, ...]:
        """Columns that tell a switchback's blocks apart by the coin that ordered their arms."""
        return ("block",) if self.order == TOGETHER else ("host", "block")
