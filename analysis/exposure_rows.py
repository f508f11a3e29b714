"""Rows that say what the primary gained per unit of exposure, beside the intention-to-treat headline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.errors import NotEnoughData
from analysis.exposure import WEAK, ExposureArm, dose_response, wald
from analysis.hosts import HostTable, TwoArms
from analysis.look import Look
from analysis.plan import AnalysisPlan, MetricPlan, Role
from analysis.results import Estimate, EstimateKind

_Floats = NDArray[np.float64]


def exposure_rows(
    main: Estimate, sample: TwoArms, *, plan: AnalysisPlan, table: HostTable, look: Look
) -> Iterator[Estimate]:
    """Effect per unit of the plan's first exposure metric that the hosts have: complier effect, then dose-response."""
    for dose in (metric for metric in plan.metrics if metric.role is Role.EXPOSURE):
        received = table.values(dose.name, dose.statistic, "measure")
        doses = received.reindex(sample.hosts.tolist()).to_numpy(dtype=np.float64)
        known = np.isfinite(doses)
        if not known.any():
            continue
        yield from _rows(main, sample.only(known), doses[known], dose, look)
        return


def _rows(main: Estimate, sample: TwoArms, doses: _Floats, dose: MetricPlan, look: Look) -> Iterator[Estimate]:
    outcome, received = sample.arms(sample.y), sample.arms(doses)
    blank = replace(
        main,
        unit=f"{main.unit} per {dose.unit}",
        control_mean=None,
        treatment_mean=None,
        lift=None,
        lift_interval=None,
        p_adjusted=None,
        n_control=sample.sizes[0],
        n_treatment=sample.sizes[1],
    )
    try:
        found = wald(
            ExposureArm(outcome=outcome[0], dose=received[0]),
            ExposureArm(outcome=outcome[1], dose=received[1]),
            look.level,
        )
    except NotEnoughData:
        found = None
    if found is not None:
        weak = (f"weak instrument: first-stage F = {found.first_stage_f:.3g} < {WEAK:g}",) if found.weak else ()
        yield replace(
            blank,
            kind=EstimateKind.COMPLIERS,
            estimand=f"effect per unit of {dose.name} among compliers",
            method="Wald / 2SLS, Anderson-Rubin set",
            difference=found.effect,
            difference_interval=found.interval,
            standard_error=found.standard_error,
            df=found.df,
            p_value=found.p_value,
            p_adjusted=look.p_adjusted(found.p_value),
            warnings=(f"assignment moved the dose by {found.first_stage:.4g} {dose.unit}".rstrip(), *weak),
        )
    slope = dose_response(outcome[1], received[1], look.level)
    if slope is not None:
        yield replace(
            blank,
            kind=EstimateKind.DOSE_RESPONSE,
            estimand=f"slope on {dose.name} across treated hosts",
            method="dose-response (observational)",
            n_control=0,
            difference=slope[0],
            difference_interval=slope[1],
            standard_error=None,
            df=sample.sizes[1] - 2.0,
            p_value=slope[2],
            p_adjusted=look.p_adjusted(slope[2]),
            warnings=("doses were not drawn: hosts that got more may differ in other ways",),
        )
