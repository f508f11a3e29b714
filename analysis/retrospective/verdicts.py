"""What a rollout that nobody randomised bears: verdicts, each with its cause. None of them is a decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from analysis.plan import GuardrailPlan, MetricPlan
from analysis.results import Check, Estimate, Interval


class RetrospectiveVerdict(StrEnum):
    """What the data are consistent with. There is no value that says what to do: hosts were not drawn by chance."""

    CONSISTENT_WITH_BENEFIT = "consistent_with_benefit"
    CONSISTENT_WITH_HARM = "consistent_with_harm"
    NOT_DISTINGUISHABLE = "not_distinguishable"
    ASSUMPTIONS_CONTRADICTED = "assumptions_contradicted"


class Ground(StrEnum):
    """Which fact a verdict rests on."""

    EFFECT = "effect"  # the change is clear, and nothing speaks against the comparison
    GUARDRAIL = "guardrail"  # harm beyond its margin is shown
    PRE_TREND = "pre_trend"  # hosts that were changed moved otherwise before it
    PLACEBO_DATE = "placebo_date"  # a change that never was seems to have had an effect
    PLACEBO_HOSTS = "placebo_hosts"  # hosts that were not changed differ by as much
    RATIOS = "ratios"  # in ratios nothing changed: hosts of other levels may have moved alike
    UNLIKE_HOSTS = "unlike_hosts"  # unchanged hosts of such a level before moved as the changed ones did
    FADED = "faded"  # in the later half of the time since, nothing is left of it
    FEW_MOVED = "few_moved"  # the middle half of the changed hosts does not show it
    NOT_CLEAR = "not_clear"
    TOO_FEW_HOSTS = "too_few_hosts"
    NO_PRE_TREND_TEST = "no_pre_trend_test"  # too little is known of the time before to test anything
    MISSING_DATA = "missing_data"  # what is missing could turn the effect around, or is missing unevenly
    NOT_ESTIMATED = "not_estimated"
    NO_DIRECTION = "no_direction"  # a clear change, and nobody says which way is better: no verdict


class RowKind(StrEnum):
    """What a row beside the headline is."""

    OTHER_CONTROLS = "other_controls"  # hosts not changed yet instead of never, or the other way round
    BALANCED = "balanced"  # controls weighted to resemble the changed hosts before
    TWO_WAY = "two_way"  # one regression; biased where starts are staggered
    LEVEL = "level"  # less what the level before foretells
    RATIOS = "ratios"  # of logarithms: hosts would have moved by like ratios
    LATER = "later"  # in the later half of the time since
    MIDDLE = "middle"  # of the middle half of the changed hosts
    GROUP = "group"  # hosts that were changed in one period


class MarginStanding(StrEnum):
    """Where a guardrail's metric stands to its margin."""

    WITHIN = "within"  # harm of the margin or more is not seen: ruled out at the level, if the comparison is fair
    BEYOND = "beyond"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideRow:
    """An estimate beside the headline; `estimate` None: it could not be made, for this `reason`."""

    kind: RowKind
    about: str  # the period of a group, the weights' worth
    estimate: Estimate | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPoint:
    """The effect `event` periods after the change (the base, -1, is 0), its interval and the band for all at once."""

    event: int
    hosts: int
    effect: float
    interval: Interval | None
    band: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceboRow:
    """What the change would have seemed to do so many periods earlier."""

    earlier: int
    effect: float
    interval: Interval | None
    p_adjusted: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """What is left of the effect if hosts may have drifted apart: an interval for each magnitude.

    `breakdown`: up to this many times the furthest step before the change, 0 stays outside. `block` is how many
    periods make a step.
    """

    magnitudes: tuple[tuple[float, Interval], ...]
    breakdown: float
    block: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailStanding:
    """One guardrail: where its metric stands, and its estimate."""

    plan: GuardrailPlan
    standing: MarginStanding
    estimate: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFindings:
    """Everything that one metric shows. What could not be made is None or empty, with a word in `warnings`."""

    plan: MetricPlan
    verdict: RetrospectiveVerdict | None = None
    ground: Ground = Ground.NOT_ESTIMATED
    headline: Estimate | None = None  # adjusted for the number of metrics
    events: tuple[EventPoint, ...] = ()
    beside: tuple[BesideRow, ...] = ()
    placebo_dates: tuple[PlaceboRow, ...] = ()
    robustness: Robustness | None = None
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrospectiveFindings:
    """A rollout already made: what each metric shows, and the verdict with the sentence that is written from it."""

    verdict: RetrospectiveVerdict
    ground: Ground
    reason: str
    changed: str  # what was changed, as people call it
    primary: str
    metrics: tuple[MetricFindings, ...]
    guardrails: tuple[GuardrailStanding, ...]
    hosts_changed: int
    hosts_not_changed: int
    periods: int
    starts: tuple[str, ...]  # the periods in which hosts were changed
    alpha: float
    warnings: tuple[str, ...] = ()

    def metric(self, name: str) -> MetricFindings:
        """Return what one metric shows; KeyError for a stranger."""
        return {one.plan.name: one for one in self.metrics}[name]

    @property
    def html(self) -> str:
        """The report as one self-contained HTML document."""
        from analysis.report.retrospective import render_retrospective_html  # noqa: PLC0415 - these types are light

        return render_retrospective_html(self)

    @property
    def markdown(self) -> str:
        """The report's words and tables."""
        from analysis.report.retrospective import render_retrospective_markdown  # noqa: PLC0415

        return render_retrospective_markdown(self)

    def __str__(self) -> str:
        from analysis.report.retrospective import as_text  # noqa: PLC0415

        return as_text(self)

    def _repr_html_(self) -> str:
        from analysis.report.retrospective import fragment  # noqa: PLC0415

        return fragment(self)
