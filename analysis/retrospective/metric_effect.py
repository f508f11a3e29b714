"""One metric of a rollout already made: the headline, the event study, what stands beside it, and every check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.attrition import MISSING_ALARM
from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.estimates import estimate
from analysis.inference import MIN_HOSTS, Inference
from analysis.look import Look
from analysis.missing import fence
from analysis.multiplicity import AdjustedTest
from analysis.plan import MetricPlan, Role
from analysis.quantities import scale_for
from analysis.results import Check, Estimate, EstimateKind, Interval
from analysis.retrospective.balancing import balanced_effect
from analysis.retrospective.event_study import EventStudy, event_study
from analysis.retrospective.group_time import Controls, Functional, HostContrasts, host_contrasts
from analysis.retrospective.panel import Panel
from analysis.retrospective.panel_frame import Panels
from analysis.retrospective.placebo_hosts import placebo_hosts
from analysis.retrospective.plan import RetrospectivePlan
from analysis.retrospective.pre_trend import PlaceboDate, PreTrend, placebo_dates, pre_trend, share_of_each
from analysis.retrospective.readings import Reading, readings
from analysis.retrospective.relative_magnitudes import MAGNITUDES, steps_before
from analysis.retrospective.two_way import two_way
from analysis.retrospective.verdicts import BesideRow, EventPoint, MetricFindings, PlaceboRow, Robustness, RowKind
from analysis.validation import finite_checks
from analysis.welch import even_df

ESTIMAND = "mean over the hosts that were changed, each over its periods since"
WITHOUT = "without the change"
MOST_GROUPS = 12
_METHODS = {
    Controls.NEVER: "Callaway and Sant'Anna, against hosts never changed",
    Controls.NOT_YET: "Callaway and Sant'Anna, against hosts not changed yet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEffect:
    """What was found of one metric, before it is judged: what is `shown` of it, and what the judgement rests on."""

    shown: MetricFindings
    test: AdjustedTest | None = None  # the headline and what it rests on
    few: bool = False
    trend: PreTrend | None = None
    dates: tuple[PlaceboDate, ...] = ()
    placebo_p: float | None = None  # of the placebo hosts; None: too few to draw from
    worst: Interval | None = None  # where hosts are missing: the effect had they been at either end of the others'
    readings: tuple[Reading, ...] = ()  # the same change read otherwise
    uneven: bool = False  # missing more among the changed, or less


def metric_effect(panels: Panels, metric: MetricPlan, plan: RetrospectivePlan) -> MetricEffect:
    """Estimate one metric; what cannot be made is left out, with the reason."""
    panel = panels.by_metric[metric.name]
    level = 1 - plan.alpha
    controls = Controls.NEVER if (~panel.changed).sum() >= MIN_HOSTS else Controls.NOT_YET
    try:
        contrasts = host_contrasts(panel, controls, least=MIN_HOSTS)
        main = contrasts.aggregate(contrasts.over_groups())
    except NotEnoughData as error:
        return MetricEffect(shown=MetricFindings(plan=metric, warnings=(f"no effect: {error}",)))
    few = min(main.n_changed, main.n_controls) < MIN_HOSTS
    said = []
    if few:
        said.append(
            f"{main.n_changed} changed hosts and {main.n_controls} others of at least {MIN_HOSTS} + {MIN_HOSTS}: "
            "nothing is called clear"
        )
    row = _row(main.contrast(), metric, plan, _METHODS[controls], few=few, warnings=tuple(said))
    study = event_study(contrasts)
    trend, dates = (pre_trend(study), placebo_dates(study)) if study.before else (None, ())
    drawn = placebo_hosts(panel, main, plan.alpha, plan.seed) if not few else None
    robustness, unavailable = _robustness(study, level)
    missing, uneven = _missing_check(panel, metric)
    otherwise = () if few else tuple(readings(contrasts, main))
    balanced, unbalanced = _balanced(panel) if metric.role is Role.PRIMARY else (None, "")
    otherwise += (balanced,) if balanced is not None else ()
    checks = [*_trend_checks(trend, dates, metric, main.level, plan.alpha), missing]
    if drawn is not None:
        checks.append(
            Check(
                name=f"placebo hosts ({metric.name})",
                passed=True if drawn.p_value < plan.alpha else False if _is_clear(main, plan.alpha) else None,
                p_value=drawn.p_value,
                detail=(
                    f"Of {drawn.draws} draws of {drawn.hosts} hosts that were not changed, taken for changed, "
                    f"{drawn.alarms:.1%} seemed to change clearly ({plan.alpha:.0%} are expected); "
                    f"{drawn.p_value:.1%} moved as much as the hosts that were changed, these among them."
                ),
            )
        )
    shown = MetricFindings(
        plan=metric,
        events=_points(study, level, plan.seed),
        beside=(
            *(tuple(_beside(panel, contrasts, panels, metric, plan)) if metric.role is Role.PRIMARY else ()),
            *(_read(one, metric, plan) for one in otherwise),
            *((BesideRow(kind=RowKind.BALANCED, about="", estimate=None, reason=unbalanced),) if unbalanced else ()),
        ),
        placebo_dates=tuple(
            PlaceboRow(
                earlier=one.earlier,
                effect=one.effect.estimate,
                interval=one.effect.contrast().interval(level),
                p_adjusted=one.p_adjusted,
            )
            for one in dates
        ),
        robustness=robustness,
        checks=finite_checks(checks),
        warnings=unavailable,
    )
    return MetricEffect(
        shown=shown,
        test=AdjustedTest(row=row, inference=None if few else Inference(contrast=main.contrast())),
        few=few,
        trend=trend,
        dates=dates,
        placebo_p=None if drawn is None else drawn.p_value,
        worst=_worst(contrasts, main, level),
        readings=otherwise,
        uneven=uneven,
    )


def _is_clear(effect: Functional, alpha: float) -> bool:
    p = effect.p_value()
    return p is not None and p < alpha


def _row(
    contrast: Contrast,
    metric: MetricPlan,
    plan: RetrospectivePlan,
    method: str,
    *,
    few: bool = False,
    kind: EstimateKind = EstimateKind.HEADLINE,
    warnings: tuple[str, ...] = (),
) -> Estimate:
    return estimate(
        Inference(contrast=contrast),
        metric,
        Look(level=1 - plan.alpha),
        treatment=plan.changed,
        control=WITHOUT,
        estimand=ESTIMAND,
        method=method,
        kind=kind,
        withhold_p=few,
        warnings=warnings,
    )


def _points(study: EventStudy, level: float, seed: int) -> tuple[EventPoint, ...]:
    bands = study.bands(level, seed)
    return tuple(
        EventPoint(
            event=event,
            hosts=effect.n_changed,
            effect=effect.estimate,
            interval=effect.contrast().interval(level),
            band=band,
        )
        for event, effect, band in zip(study.events, study.effects, bands, strict=True)
    )


def _robustness(study: EventStudy, level: float) -> tuple[Robustness | None, tuple[str, ...]]:
    try:
        steps = steps_before(study)
    except NotEnoughData as error:
        return None, (f"sensitivity to a drift that nobody saw: unavailable, {error.what}",)
    return Robustness(
        magnitudes=tuple((size, steps.interval(size, level)) for size in MAGNITUDES),
        breakdown=steps.breakdown(level),
        block=steps.block,
    ), ()


def _trend_checks(
    trend: PreTrend | None, dates: tuple[PlaceboDate, ...], metric: MetricPlan, level: float, alpha: float
) -> Iterator[Check]:
    name = f"pre-trend ({metric.name})"
    p = None if trend is None else trend.p_value
    if trend is None or p is None:
        why = "The time before the change is too short to see whether hosts moved alike."
        yield Check(name=name, passed=None, p_value=None, detail=why)
        return
    drift, share = trend.drift_per_period, share_of_each(dates, alpha)
    if drift is None:
        yield Check(name=name, passed=p >= share, p_value=p, detail="Before the change nothing moved on any host.")
        return
    scale = scale_for(metric.unit, (level,))
    said = f"{scale.show_difference(drift.estimate)} {scale.spelled}".rstrip()
    detail = f"Before, changed hosts drifted by {said} a period"
    parts = [
        f"p = {one:.2g} for {what}"
        for one, what in ((trend.any_gap, "any gap"), (trend.drift, "a drift"))
        if one is not None
    ]
    yield Check(name=name, passed=p >= share, p_value=p, detail=f"{detail} against the others ({', '.join(parts)}).")
    dated = [one.p_adjusted for one in dates if one.p_adjusted is not None]
    if dated:
        low = min(dated)
        yield Check(
            name=f"placebo dates ({metric.name})",
            passed=low >= share,
            p_value=low,
            detail=f"{len(dated)} dates before the change, taken for it: the clearest has p = {low:.2g} (Holm).",
        )


def _missing_check(panel: Panel, metric: MetricPlan) -> tuple[Check, bool]:
    """Are changed hosts less complete than the others, since the first of them was changed? Fisher's exact test."""
    missing = ~np.isfinite(panel.values) & ~panel.settling
    gaps = np.logical_or.reduce(missing[:, min(panel.starts) :], axis=1)
    counts = [(int(gaps[part].sum()), int(part.sum())) for part in (panel.changed, ~panel.changed)]
    name = f"missing data ({metric.name})"
    told = (
        f"{counts[0][0]} of {counts[0][1]} changed hosts have gaps since the first change, "
        f"{counts[1][0]} of {counts[1][1]} others."
    )
    if not gaps.any() or not counts[1][1]:
        return Check(name=name, passed=True if not gaps.any() else None, p_value=None, detail=told), False
    p = float(stats.fisher_exact(np.array([[lost, due - lost] for lost, due in counts])).pvalue)
    return Check(name=name, passed=p >= MISSING_ALARM, p_value=p, detail=told), p < MISSING_ALARM


def _worst(contrasts: HostContrasts, main: Functional, level: float) -> Interval | None:
    """The effect had changed hosts without values before and after been at either end of what a host may move.

    None where no host is lost. Manski (1990), American Economic Review 80:319-323, within the fence of what was seen.
    """
    share = contrasts.over_groups()
    kept = share.sum(axis=1) > 0
    lost = int(contrasts.panel.changed.sum()) - int(kept.sum())
    if not lost:
        return None
    part = np.where(share[kept] > 0, contrasts.values[kept], 0.0)
    of_host = (share[kept] * part).sum(axis=1) / share[kept].sum(axis=1)
    found = main.contrast().interval(level)
    if found is None or found.low is None or found.high is None:
        return Interval(low=None, high=None, level=level)
    kept_share = main.n_changed / (main.n_changed + lost)
    ends = [(1 - kept_share) * (end - main.estimate) for end in fence(of_host)]
    return Interval(low=found.low + ends[0], high=found.high + ends[1], level=level)


def _beside(
    panel: Panel, contrasts: HostContrasts, panels: Panels, metric: MetricPlan, plan: RetrospectivePlan
) -> Iterator[BesideRow]:
    """Rows that answer the same question otherwise, and the groups by when they were changed."""
    other = Controls.NOT_YET if contrasts.controls is Controls.NEVER else Controls.NEVER
    if len(panel.starts) > 1 and other is Controls.NOT_YET:
        others = host_contrasts(panel, other, least=MIN_HOSTS)
        found = others.aggregate(others.over_groups()).contrast()
        row = _row(found, metric, plan, _METHODS[other], kind=EstimateKind.DIFFERENCE_IN_DIFFERENCES)
        yield BesideRow(kind=RowKind.OTHER_CONTROLS, about="hosts not changed yet", estimate=row)
    yield _two_way(panel, contrasts, metric, plan)
    if len(panel.starts) > 1:
        for start in panel.starts[:MOST_GROUPS]:
            share = contrasts.over_groups() * (panel.start == start)[:, np.newaxis]
            if (share.sum(axis=1) > 0).sum() >= MIN_HOSTS:
                row = _row(
                    contrasts.aggregate(share).contrast(),
                    metric,
                    plan,
                    _METHODS[contrasts.controls],
                    kind=EstimateKind.STRATUM,
                )
                yield BesideRow(kind=RowKind.GROUP, about=panels.periods[start], estimate=row)


def _balanced(panel: Panel) -> tuple[Reading | None, str]:
    """The effect against weighted controls, or why there is none."""
    try:
        found = balanced_effect(panel)
    except NotEnoughData as error:
        return None, error.what
    about = f"worth {found.effective:.1f} hosts"
    method = "entropy balancing, jackknife"
    return Reading(kind=RowKind.BALANCED, contrast=found.contrast, method=method, about=about), ""


def _read(one: Reading, metric: MetricPlan, plan: RetrospectivePlan) -> BesideRow:
    row = _row(one.contrast, metric, plan, one.method, kind=EstimateKind.DIFFERENCE_IN_DIFFERENCES)
    return BesideRow(kind=one.kind, about=one.about, estimate=row)


def _two_way(panel: Panel, contrasts: HostContrasts, metric: MetricPlan, plan: RetrospectivePlan) -> BesideRow:
    try:
        slope, error = two_way(panel)
    except NotEnoughData as reason:
        return BesideRow(kind=RowKind.TWO_WAY, about="", estimate=None, reason=reason.what)
    level = contrasts.aggregate(contrasts.over_groups()).level
    others, changed = (int(part.sum()) for part in (~panel.changed, panel.changed))
    contrast = Contrast(
        control=level - slope,
        treatment=level,
        control_variance=error**2,
        treatment_variance=0.0,
        df=even_df([size for size in (others, changed) if size > 1]) if changed > 1 else 0.0,
        n_control=others,
        n_treatment=changed,
    )
    said = ("with staggered starts this is biased where effects grow or differ",) if len(panel.starts) > 1 else ()
    row = _row(
        contrast,
        metric,
        plan,
        "host and period effects, clustered by host",
        kind=EstimateKind.DIFFERENCE_IN_DIFFERENCES,
        warnings=said,
    )
    return BesideRow(kind=RowKind.TWO_WAY, about="", estimate=row)
