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


class EstimateKind(StrEnum):
    """What a row of estimates is. Only the headline is ever quoted as the result."""

    HEADLINE = "headline"
    PAIRWISE = "pairwise"  # two treatments against each other
    RANDOMISATION = "randomisation"  # the assignment, or the order of blocks, drawn again
    UNADJUSTED = "unadjusted"
    MATCHED_PAIRS = "matched_pairs"
    DIFFERENCE_IN_DIFFERENCES = "difference_in_differences"
    HODGES_LEHMANN = "hodges_lehmann"
    WINSORISED = "winsorised"
    BOOTSTRAP = "bootstrap"
    SENSITIVITY = "sensitivity"  # by an estimator that was added; `method` names it
    STRATUM = "stratum"  # one stratum, named in `stratum`
    STRATA_COMBINED = "strata_combined"
    RANDOM_EFFECTS = "random_effects"  # mean of a population of strata
    WORST_CASE = "worst_case"  # what is missing was as bad, or as good, as it may be
    TRIMMED = "trimmed"  # Lee's bounds
    COMPLIERS = "compliers"  # per unit of exposure, by the assignment as instrument
    DOSE_RESPONSE = "dose_response"  # per unit of exposure, across treated hosts: observational
    CARRY_OVER = "carry_over"  # what the arm before adds to a period
    EARLIER_HALF = "earlier_half"  # of each unit's measured time
    LATER_HALF = "later_half"


HALVES = (EstimateKind.EARLIER_HALF, EstimateKind.LATER_HALF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One effect of one arm against the control (or, PAIRWISE, another treatment) on one metric.

    Interval and test agree: the interval leaves out 0 just where the p-value (adjusted where it was) is below the
    findings' alpha.
    """

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
    kind: EstimateKind = EstimateKind.HEADLINE
    warnings: tuple[str, ...] = ()

    @property
    def headline(self) -> bool:
        """Whether this is the result; else a sensitivity or subgroup row beside it."""
        return self.kind is EstimateKind.HEADLINE

    @property
    def p(self) -> float | None:
        """The p-value to be compared with the findings' alpha: adjusted where it was."""
        return self.p_value if self.p_adjusted is None else self.p_adjusted


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
    built_in: bool = False  # watched in every run, whatever the experiment asks for


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


class TradeSide(StrEnum):
    """What the interval of a trade says."""

    SAVES = "saves"  # fewer servers needed, clearly
    COSTS = "costs"  # more servers needed, clearly
    OPEN = "open"  # neither excluded


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """Servers needed for the same work: `saved` per 1,000 (negative: added), with an interval."""

    treatment: str
    saved_per_1000: float
    interval: Interval | None
    detail: str

    @property
    def side(self) -> TradeSide:
        if self.interval is None or self.interval.low is None or self.interval.high is None:
            return TradeSide.OPEN
        if self.interval.low > 0:
            return TradeSide.SAVES
        return TradeSide.COSTS if self.interval.high < 0 else TradeSide.OPEN


class Decision(StrEnum):
    """What to do with an arm, as far as the data show."""

    SHIP = "ship"
    SHIP_IN_STRATA = "ship_in_strata"  # in those that the scope names; elsewhere harm is shown, or not ruled out
    BETTER_HERE = "better_here"  # on the hosts that took part; they do not speak for a fleet
    INCONCLUSIVE = "inconclusive"
    DO_NOT_SHIP = "do_not_ship"

    @property
    def is_favourable(self) -> bool:
        return self in {Decision.SHIP, Decision.SHIP_IN_STRATA, Decision.BETTER_HERE}


class Cause(StrEnum):
    """Which fact a decision rests on."""

    BETTER = "better"  # the primary is clearly better and nothing speaks against it
    BETTER_IN_STRATA = "better_in_strata"  # only there
    SERVERS_SAVED = "servers_saved"  # the trade decides, and saves servers
    WORSE = "worse"  # the primary is clearly worse
    GUARDRAIL_FAILED = "guardrail_failed"
    COSTS_SERVERS = "costs_servers"  # the trade shows that more servers are needed
    COST_NOT_EXCLUDED = "cost_not_excluded"
    GUARDRAIL_OPEN = "guardrail_open"  # harm is neither ruled out nor shown
    GUARDRAIL_GROWING = "guardrail_growing"  # harm grew, and the later half of the measured time does not rule it out
    STRATUM_HARMED = "stratum_harmed"  # and in no stratum a benefit is shown
    CHECK_FAILED = "check_failed"  # the experiment itself is in doubt
    MISSING_DATA = "missing_data"  # what is missing could turn the effect around
    FADED = "faded"  # clearly smaller in the later half of the measured time, which alone does not show it
    NOT_CLEAR = "not_clear"
    TOO_FEW_UNITS = "too_few_units"
    NOT_TESTED = "not_tested"
    NOT_MEASURED = "not_measured"
    MIXED_MEANINGS = "mixed_meanings"  # hosts counted different things under the primary's name
    RESOLUTION = "resolution"  # the primary, of a histogram, never left one bucket: the arms are not told apart
    NOT_RANDOMISED = "not_randomised"  # nobody drew which host got which arm
    NO_PRIMARY = "no_primary"
    NO_DIRECTION = "no_direction"  # the plan does not say which way is better


class Units(StrEnum):
    """What is counted."""

    HOSTS = "hosts"
    PERIODS = "periods"


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Values that should be there and are not: `lost` of `due` units of one arm, for one metric.

    `stratum` '' is all of them; strata are listed where they lost unlike shares. `lost` counts a host as a part where
    only some of its periods are missing.
    """

    metric: str
    arm: str
    units: Units
    lost: float
    due: int
    stratum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a decision speaks for: the hosts that were compared, in which strata, over how many measured periods.

    `strata` are those in which the arm may be taken ((): all there are); `without` those it must not be concluded
    for, `harmed` those of them where harm was shown.
    """

    hosts: int
    periods: int
    seconds: float  # measured, of all periods together
    host_names: tuple[str, ...] = ()  # where they are so few that they do not speak for others
    strata: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    harmed: tuple[str, ...] = ()


class Doubt(StrEnum):
    """What could overturn a decision, or what would have to change for a clearer one."""

    MISSING_DATA = "missing_data"
    STRATA_DIFFER = "strata_differ"
    STRATUM_NOT_RULED_OUT = "stratum_not_ruled_out"  # harm in one of them
    COST_NOT_EXCLUDED = "cost_not_excluded"
    CARRY_OVER_UNTESTED = "carry_over_untested"
    CARRY_OVER = "carry_over"  # as large as may be, it would turn the effect around where the arm is kept
    FADING = "fading"  # smaller in the later half of the measured time, and clear there
    GROWING = "growing"  # harm to a guardrail was larger in the later half, and within its margin there
    FEW_HOSTS = "few_hosts"
    NO_GUARDRAIL = "no_guardrail"
    EARLY_LOOK = "early_look"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overturn:
    """One doubt and what it is about: a metric, a stratum, an arm."""

    doubt: Doubt
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmDecision:
    """The decision on one treatment in its parts, and the sentence that was written from them."""

    arm: str
    decision: Decision
    cause: Cause
    about: tuple[str, ...] = ()  # what the cause names: guardrails, checks, strata
    scope: Scope
    missing: tuple[Missing, ...] = ()
    overturn: tuple[Overturn, ...] = ()
    sentence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Which of several treatments the evidence prefers; `arm` None: they are not told apart."""

    arm: str | None
    over: tuple[str, ...]  # the treatments that it is better than, or that are not told apart
    sentence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything the data show, and the decision: its parts by arm, and all in one sentence."""

    decision: Decision
    reason: str  # the sentence; written from the parts, read by people alone
    estimates: tuple[Estimate, ...]
    guardrails: tuple[GuardrailResult, ...]
    checks: tuple[Check, ...]
    contrasts: tuple[BlockContrast, ...]
    excluded: tuple[Excluded, ...]
    alpha: float
    warnings: tuple[str, ...] = ()
    trades: tuple[Trade, ...] = ()
    arms: tuple[ArmDecision, ...] = ()
    preference: Preference | None = None

    def _repr_html_(self) -> str:
        from analysis.report.notebook import findings_fragment  # noqa: PLC0415 - it needs SciPy, these types don't

        return findings_fragment(self)
