"""An inference as the row that is stored and shown: means, difference, lift, intervals and p at its look's level."""

from __future__ import annotations

from analysis.inference import Inference, without_rounding
from analysis.look import Look
from analysis.plan import MetricPlan
from analysis.results import Estimate, EstimateKind
from analysis.validation import finite_estimate


def estimate(
    inference: Inference,
    metric: MetricPlan,
    look: Look,
    *,
    treatment: str,
    control: str,
    estimand: str,
    method: str,
    kind: EstimateKind = EstimateKind.HEADLINE,
    stratum: str = "",
    withhold_p: bool = False,
    warnings: tuple[str, ...] = (),
) -> Estimate:
    """Turn an inference into a row. `withhold_p`: too few units to call anything."""
    inference = without_rounding(inference)
    contrast, said = inference.contrast, list(warnings)
    lift, lift_interval = inference.lift(), inference.lift_interval(look.level)
    if contrast.variance == 0:
        said.append("no spread between units: neither interval nor t-test")
    elif inference.wanting:
        said.append("no randomisation test could be made: nothing is claimed")
    elif lift_interval is None:
        lift = None
    if lift is None:
        lift_interval = None
        said.append("the control mean is not clearly above 0: no relative change")
    p = None if withhold_p or look.blind else inference.p_value()
    row = Estimate(
        metric=metric.name,
        unit=metric.unit,
        role=metric.role,
        treatment=treatment,
        control=control,
        estimand=estimand,
        method=method,
        n_control=contrast.n_control,
        n_treatment=contrast.n_treatment,
        control_mean=contrast.control,
        treatment_mean=contrast.treatment,
        difference=contrast.difference,
        difference_interval=inference.interval(look.level),
        lift=lift,
        lift_interval=lift_interval,
        standard_error=contrast.standard_error,
        df=contrast.df if contrast.df > 0 else None,
        p_value=p,
        p_adjusted=look.p_adjusted(p),
        kind=kind,
        stratum=stratum,
        warnings=tuple(said),
    )
    return finite_estimate(row)


def no_estimate(
    metric: MetricPlan,
    *,
    treatment: str,
    control: str,
    estimand: str,
    method: str,
    sizes: tuple[int, int],
    means: tuple[float, float],
    reason: str,
) -> Estimate:
    """Say what is known where there are too few units for an error: the means and the reason, no inference."""
    difference = means[1] - means[0]
    return Estimate(
        metric=metric.name,
        unit=metric.unit,
        role=metric.role,
        treatment=treatment,
        control=control,
        estimand=estimand,
        method=method,
        n_control=sizes[0],
        n_treatment=sizes[1],
        control_mean=means[0],
        treatment_mean=means[1],
        difference=difference,
        difference_interval=None,
        lift=difference / means[0] if means[0] > 0 else None,
        lift_interval=None,
        standard_error=None,
        df=None,
        p_value=None,
        warnings=(reason,),
    )
