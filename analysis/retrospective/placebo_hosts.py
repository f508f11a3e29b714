"""Changes that never were: hosts that were not changed, some of them taken for changed at the others' times."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.inference import MIN_HOSTS
from analysis.retrospective.group_time import Functional
from analysis.retrospective.panel import Panel
from analysis.welch import wary_df, welch

DRAWS = 199


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceboHosts:
    """How often hosts that were not changed seemed to be: `p_value` is the share with as great a t, the real counted.

    `alarms` is the share whose own test called a change clear, alpha if its errors are right.
    """

    draws: int
    hosts: int  # taken for changed in each draw
    alarms: float
    p_value: float


def placebo_hosts(panel: Panel, real: Functional, alpha: float, seed: int) -> PlaceboHosts | None:
    """Draw the placebos from hosts without gaps, by the real ones' own estimate; None with fewer than eight hosts.

    Half of these are taken for changed, or as many as really were, at times drawn from theirs.
    """
    whole = panel.values[~panel.changed & np.isfinite(panel.values).all(axis=1)]
    count = whole.shape[0]
    taken = min(int(panel.changed.sum()), count // 2)
    if taken < MIN_HOSTS:
        return None
    starts = panel.starts
    gains = np.column_stack([whole[:, start:].mean(axis=1) - whole[:, start - 1] for start in starts])  # [host, start]
    place_of = np.searchsorted(starts, panel.start[panel.changed])
    draw = np.random.default_rng(seed)
    greater = alarms = 0
    for _ in range(DRAWS):
        order = draw.permutation(count)
        false, others = order[:taken], gains[order[taken:]]
        times = draw.choice(place_of, taken, replace=False)
        share = np.bincount(times, minlength=len(starts)) / taken
        contrast = welch(others @ share, gains[false, times] - others.mean(axis=0)[times] + (others @ share).mean())
        sides = (contrast.control_variance, contrast.treatment_variance)
        p = replace(contrast, df=wary_df(sides, (count - taken, taken))).p_value()
        alarms += p is not None and p < alpha
        greater += contrast.variance > 0 and abs(contrast.difference) >= abs(real.t) * contrast.standard_error
    return PlaceboHosts(draws=DRAWS, hosts=taken, alarms=alarms / DRAWS, p_value=(1 + greater) / (1 + DRAWS))
