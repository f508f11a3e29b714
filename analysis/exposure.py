"""Exposure: what the treatment does per unit of big-page backing received, with assignment as the instrument."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.contrast import Contrast, fieller
from analysis.errors import NotEnoughData
from analysis.results import Interval
from analysis.validation import refuse_not_finite
from analysis.welch import satterthwaite

_Floats = NDArray[np.float64]
WEAK = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureArm:
    """Outcome and dose of one arm's hosts, in the same order."""

    outcome: _Floats
    dose: _Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Complier:
    """Effect per unit of dose among hosts that take it up, its Anderson-Rubin set, and the strength behind it."""

    effect: float
    standard_error: float
    interval: Interval
    first_stage: float  # dose gained by assignment
    first_stage_f: float | None  # None: the dose is the same within each arm
    weak: bool
    df: float
    p_value: float | None  # Anderson-Rubin test of no effect


def wald(control: ExposureArm, treatment: ExposureArm, level: float) -> Complier:
    """Divide the effect on the outcome by the effect on the dose; with one instrument this is 2SLS.

    The interval is every effect b for which `outcome - b * dose` does not differ between arms (Anderson and Rubin
    1949): right also where assignment moved the dose little, and then unbounded. Angrist, Imbens and Rubin (1996),
    J. Am. Stat. Assoc. 91:444-455. Raises NotEnoughData where no dose came with the assignment.
    """
    if min(control.outcome.size, treatment.outcome.size) < 2:
        raise NotEnoughData("two hosts in each arm are needed", "exposure", "wait for more hosts")
    refuse_not_finite("exposure", control.outcome, control.dose, treatment.outcome, treatment.dose)
    first = float(treatment.dose.mean() - control.dose.mean())
    if first == 0:
        raise NotEnoughData("assignment moved the dose by exactly 0", "exposure", "see why no big page was given")
    reduced = float(treatment.outcome.mean() - control.outcome.mean())
    spread_c = np.cov(control.outcome, control.dose) / control.outcome.size
    spread_t = np.cov(treatment.outcome, treatment.dose) / treatment.outcome.size
    spread = spread_c + spread_t
    effect = reduced / first
    direction = np.array([1.0, -effect])
    residual = [max(float(direction @ part @ direction), 0.0) for part in (spread_c, spread_t)]
    df = satterthwaite(residual, [control.outcome.size - 1, treatment.outcome.size - 1])
    pair = Contrast(
        control=first,
        treatment=reduced,
        control_variance=float(spread[1, 1]),
        treatment_variance=float(spread[0, 0]),
        covariance=float(spread[0, 1]),
        df=df,
        n_control=control.outcome.size,
        n_treatment=treatment.outcome.size,
    )
    tested = float(spread[0, 0])
    pair_p = float(2 * stats.t.sf(abs(reduced) / np.sqrt(tested), df)) if tested > 0 else None
    strength = first**2 / spread[1, 1] if spread[1, 1] > 0 else None
    return Complier(
        effect=effect,
        standard_error=float(np.sqrt(sum(residual)) / abs(first)),
        interval=fieller(pair, level),
        first_stage=first,
        first_stage_f=None if strength is None else float(strength),
        weak=strength is not None and bool(strength < WEAK),
        df=df,
        p_value=pair_p,
    )


def dose_response(outcome: _Floats, dose: _Floats, level: float) -> tuple[float, Interval, float] | None:
    """Slope of outcome on dose across treated hosts, its interval and p. Observational: doses were not drawn.

    None below 4 hosts or where the dose or the outcome does not vary.
    """
    refuse_not_finite("dose-response", outcome, dose)
    if outcome.size < 4 or dose.std() <= 1e-12 * abs(dose.mean()) or outcome.std() == 0:
        return None
    line = stats.linregress(dose, outcome)
    if not (np.isfinite(line.pvalue) and line.stderr > 0):
        return None
    half = float(stats.t.ppf(0.5 + level / 2, outcome.size - 2)) * float(line.stderr)
    slope = float(line.slope)
    return slope, Interval(low=slope - half, high=slope + half, level=level), float(line.pvalue)
