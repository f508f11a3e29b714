"""What the analysis answers: typed, frozen, finite. No NaN, no infinity: unknown is None, the reason is beside it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from analysis.plan import GuardrailPlan, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence set. `low` or `high` None means unbounded on that side; `excludes` says it is the outside of an
    interval (Fieller's set with a control mean near 0)."""

    low: float | None
    high: float | None
    level: float  # 0.95
    excludes: bool = False

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None and not self.excludes


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One effect of one arm against the control on one metric."""

    metric: str
    unit: str
    role: Role
    treatment: str
    control: str
    estimand: str  # 'mean over hosts', 'fleet ratio', 'mean over blocks'
    method: str  # 'Welch t', 'paired t on block contrasts', ...
    n_control: int  # units (hosts, or blocks in a switchback)
    n_treatment: int
    control_mean: float | None
    treatment_mean: float | None
    difference: float | None
    difference_interval: Interval | None
    lift: float | None  # relative: 0.059 is +5.9 %
    lift_interval: Interval | None
    standard_error: float | None
    df: float | None
    p_value: float | None
    p_adjusted: float | None = None
    stratum: str = ""  # '' for all
    stage: int | None = None
    headline: bool = True  # False: a sensitivity or subgroup row, never quoted as the result
    warnings: tuple[str, ...] = ()


class Verdict(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailResult:
    """One guardrail's answer. No data never passes."""

    plan: GuardrailPlan
    treatment: str
    verdict: Verdict
    estimate: Estimate | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One integrity check: sample-ratio mismatch, attrition, carry-over, observer effect, A/A. None: not testable."""

    name: str
    passed: bool | None
    p_value: float | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockContrast:
    """One block's values, for the plot: treatment minus control in one pair of a switchback."""

    metric: str
    treatment: str
    host: str
    block: int
    control_value: float
    treatment_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A period that was measured and not used, and why."""

    host: str
    period_id: int
    arm: str
    block: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """Servers needed for the same work: `saved` per 1,000 (negative: added), with an interval."""

    treatment: str
    saved_per_1000: float
    interval: Interval | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything the data show, and the decision with its reason in one sentence."""

    decision: str  # 'ship', 'do not ship', 'inconclusive'
    reason: str
    estimates: tuple[Estimate, ...]
    guardrails: tuple[GuardrailResult, ...]
    checks: tuple[Check, ...]
    contrasts: tuple[BlockContrast, ...]
    excluded: tuple[Excluded, ...]
    alpha: float
    warnings: tuple[str, ...] = ()
    trades: tuple[Trade, ...] = ()
