"""Adjustment for the pre-period and strata: CUPED in its regression form, with errors that allow unequal spreads."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.validation import refuse_not_finite
from analysis.welch import welch

_Floats = NDArray[np.float64]
Robust: TypeAlias = Literal["HC2", "HC3"]
LIN_FROM = 20  # hosts in each arm
SINGULAR = 1e-9  # smallest eigenvalue of the columns' correlations that still counts as one more column


def ancova(
    y: _Floats,
    treated: NDArray[np.bool_],
    covariates: _Floats,
    *,
    robust: Robust = "HC2",
    interact: bool = False,
    small_sample_df: bool = True,
    sampled: bool = True,
) -> Contrast:
    """Compare adjusted means: `y ~ arm + covariates`, one row per host, covariates [host, k] without a constant.

    Covariates are centred, so that the arms' means are those at the average host; `interact` lets their slopes differ
    by arm. `sampled` takes the hosts as drawn from a larger fleet, so that their average is itself uncertain: that
    widens the interval where slopes differ (Negi and Wooldridge 2021, Econometric Reviews 40:504-534); without it the
    errors are Lin's, for these hosts alone. Degrees of freedom are those of Bell and McCaffrey with HC2, else the
    residual ones.

    Deng et al. (2013), CUPED, WSDM; Lin (2013), Ann. Appl. Stat. 7:295-318; MacKinnon and White (1985),
    J. Econometrics 29:305-325; Bell and McCaffrey (2002), Survey Methodology 28:169-181. Without a covariate that
    varies it is Welch's comparison. Raises NotEnoughData and BadObservations.
    """
    refuse_not_finite("ANCOVA", y, covariates)
    centred = independent_columns(covariates)
    if centred.shape[1] == 0:
        return welch(y[~treated], y[treated])
    z = treated.astype(np.float64)[:, np.newaxis]
    parts = [1 - z, z, centred]
    if interact:
        parts.append(centred * (z - z.mean()))
    design = np.hstack(parts)
    n, k = design.shape
    n_control, n_treatment = int((~treated).sum()), int(treated.sum())
    q, back = _orthonormal(design)
    if q is None or min(n_control, n_treatment) < 2 or n - k < 1:
        raise NotEnoughData(
            f"{n_control} and {n_treatment} hosts cannot carry {k} coefficients", "ANCOVA", "use Welch, or fewer strata"
        )
    level = float(y.mean())
    centred_y = y - level
    projected = q.T @ centred_y
    beta = back @ projected
    residuals = centred_y - q @ projected
    leverage = np.minimum(np.einsum("ij,ij->i", q, q), 1 - 1e-12)
    squares = residuals**2 / (1 - leverage) ** (1 if robust == "HC2" else 2)
    weights = q @ back[:2].T  # [host, arm]: how each residual enters each mean at the average host
    covariance = weights.T @ (weights * squares[:, np.newaxis])
    if sampled:
        slopes = _slopes(beta[2:], centred.shape[1], float(z.mean()))
        covariance += slopes @ np.cov(centred, rowvar=False).reshape(centred.shape[1], -1) @ slopes.T / n
    df = float(n - k)
    if small_sample_df and robust == "HC2":
        df = _bell_mccaffrey(q, (weights[:, 1] - weights[:, 0]) / np.sqrt(1 - leverage))
    return Contrast(
        control=level + float(beta[0]),
        treatment=level + float(beta[1]),
        control_variance=float(covariance[0, 0]),
        treatment_variance=float(covariance[1, 1]),
        covariance=float(covariance[0, 1]),
        df=df,
        n_control=n_control,
        n_treatment=n_treatment,
    )


def _orthonormal(design: _Floats) -> tuple[_Floats | None, _Floats]:
    """Orthonormal columns that span the design, and the way back to its coefficients; None where a column follows.

    By Cholesky: the columns are nearly orthogonal already, and it is much faster than QR on a long design.
    """
    lengths = np.sqrt(np.einsum("ij,ij->j", design, design))
    if not (lengths > 0).all():
        return None, design
    scaled = design / lengths
    gram = scaled.T @ scaled
    if np.linalg.eigvalsh(gram)[0] < SINGULAR:
        return None, design
    inverse_factor = np.linalg.inv(np.linalg.cholesky(gram))
    return scaled @ inverse_factor.T, inverse_factor.T / lengths[:, np.newaxis]


def _slopes(coefficients: _Floats, columns: int, share: float) -> _Floats:
    """Slope of each covariate [arm, column]; with interactions, those of the arms lie `share` apart on either side."""
    common, differing = coefficients[:columns], coefficients[columns:]
    if not differing.size:
        return np.vstack((common, common))
    return np.vstack((common - share * differing, common + (1 - share) * differing))


def independent_columns(columns: _Floats) -> _Floats:
    """Centre columns, and leave out those that are constant or follow from the ones before."""
    centred = columns - columns.mean(axis=0)
    kept: list[_Floats] = []
    for place in range(centred.shape[1]):
        column = centred[:, place]
        length = float(np.linalg.norm(column))
        if length <= 1e-9 * float(np.linalg.norm(columns[:, place])) or length == 0:
            continue
        rest = column / length
        for basis in kept:
            rest = rest - (rest @ basis) * basis
        for basis in kept:  # twice: the first pass leaves rounding behind
            rest = rest - (rest @ basis) * basis
        if float(np.linalg.norm(rest)) > 1e-7:
            kept.append(rest / np.linalg.norm(rest))
    return np.column_stack(kept) if kept else np.empty((len(columns), 0))


def stratum_columns(strata: NDArray[np.str_] | NDArray[np.object_]) -> _Floats:
    """One 0/1 column per stratum but the first."""
    names, codes = np.unique(strata, return_inverse=True)
    return np.eye(len(names))[codes][:, 1:]


def _bell_mccaffrey(q: _Floats, weights: _Floats) -> float:
    """Satterthwaite's df of the HC2 variance if all hosts spread alike: tr(G)^2 / tr(G^2).

    G = W (I - H) W with W the diagonal of weights and H = Q Q'. With w^2 in place of w, tr(G^2) needs only the k x k
    product Q' W^2 Q: no host-by-host matrix, at any size. Imbens and Kolesar (2016), Rev. Econ. Stat. 98:701-712.
    """
    squares = weights**2
    leverage = np.einsum("ij,ij->i", q, q)
    inner = q.T @ (q * squares[:, np.newaxis])
    trace = float(squares @ (1 - leverage))
    of_square = float(squares**2 @ (1 - 2 * leverage) + np.einsum("ij,ji->", inner, inner))
    return trace**2 / of_square
