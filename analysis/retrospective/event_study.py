"""The event study: the effect by time since the change, with a band that holds for all times at once.

Before the change there is nothing to be seen if hosts that were changed moved as the others did. Every check of that
assumption is a weighted sum of these effects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.contrast import t_quantile
from analysis.errors import NotEnoughData
from analysis.inference import MIN_HOSTS
from analysis.results import Interval
from analysis.retrospective.group_time import Functional, HostContrasts

_Floats = NDArray[np.float64]
DRAWS = 2_000
BASE_EVENT = -1  # changes are counted from the last period before the start


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStudy:
    """The effects at some times since the change; `events` are in order and never hold the base, where it is 0."""

    events: tuple[int, ...]
    effects: tuple[Functional, ...]

    @property
    def before(self) -> tuple[int, ...]:
        """The times before the change, without the base."""
        return tuple(event for event in self.events if event < BASE_EVENT)

    @property
    def after(self) -> tuple[int, ...]:
        return tuple(event for event in self.events if event >= 0)

    def combined(self, parts: dict[int, float]) -> Functional:
        """Return a weighted sum of effects; the base's part adds nothing."""
        if strangers := [event for event in parts if event != BASE_EVENT and event not in self.events]:
            raise NotEnoughData(
                f"too few hosts have values {strangers[0]} periods from their change",
                "event study",
                "give longer series",
            )
        chosen = [
            (self.effects[self.events.index(event)], part) for event, part in parts.items() if event in self.events
        ]
        first = chosen[0][0] if chosen else self.effects[0]
        return Functional(
            estimate=sum(part * one.estimate for one, part in chosen),
            influence=sum((part * one.influence for one, part in chosen), np.zeros_like(first.influence)),
            changed=first.changed,
            n_changed=min((one.n_changed for one, _ in chosen), default=first.n_changed),
            n_controls=min((one.n_controls for one, _ in chosen), default=first.n_controls),
        )

    def covariance(self) -> _Floats:
        """Covariance of the effects [event, event]."""
        influence = np.array([one.influence for one in self.effects])
        covariance: _Floats = influence @ influence.T
        return covariance

    def bands(self, level: float, seed: int) -> tuple[Interval | None, ...]:
        """Intervals that hold at all times at once with this confidence; None without any spread.

        The greatest of the t-values is drawn by a multiplier bootstrap over hosts (Callaway and Sant'Anna 2021,
        algorithm 1; normal multipliers, since signs of few hosts reach no far quantile), and its quantile taken to
        the t-scale of each effect.
        """
        if not self.effects:
            return ()
        influence = np.array([one.influence for one in self.effects])
        errors = np.sqrt((influence**2).sum(axis=1))
        moving = errors > 0
        if not moving.any():
            return (None,) * len(self.events)
        standard = influence[moving] / errors[moving, np.newaxis]
        multipliers = np.random.default_rng(seed).normal(size=(DRAWS, standard.shape[1]))
        greatest = np.abs(multipliers @ standard.T).max(axis=1)
        share = float(2 * stats.norm.sf(np.quantile(greatest, level)))
        share = min(share, 1 - level)
        return tuple(
            None
            if one.variance == 0 or one.df <= 0
            else Interval(
                low=one.estimate - t_quantile(1 - share, one.df) * one.variance**0.5,
                high=one.estimate + t_quantile(1 - share, one.df) * one.variance**0.5,
                level=level,
            )
            for one in self.effects
        )


def event_study(contrasts: HostContrasts, *, least: int | None = None, corrected: bool = True) -> EventStudy:
    """Estimate the effect at every time since the change that at least so many changed hosts have.

    None: half of them, and four. At other times the few that were changed first, or last, would speak for all.
    """
    panel = contrasts.panel
    if least is None:
        least = max(MIN_HOSTS, -(-int(panel.changed.sum()) // 2))
    events, effects = [], []
    for event in range(1 - panel.periods, panel.periods):
        share = contrasts.at_event(event)
        hosts = int((np.isfinite(contrasts.values) & (share > 0)).any(axis=1).sum())
        if event != BASE_EVENT and hosts >= max(least, 1):
            events.append(event)
            effects.append(contrasts.aggregate(share, corrected=corrected))
    return EventStudy(events=tuple(events), effects=tuple(effects))
