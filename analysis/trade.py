"""The trade in one number: servers saved per 1,000 when each carries more load and needs more memory."""

from __future__ import annotations

import math
from collections.abc import Mapping

from analysis.effect import Effect
from analysis.errors import BadPlan
from analysis.look import look_at
from analysis.plan import AnalysisPlan, Role
from analysis.results import Interval, Trade


def servers_per_1000(
    treatment: str,
    throughput: tuple[float, Interval | None],
    memory: tuple[float, Interval | None],
    memory_bound_share: float,
) -> Trade:
    """Weigh a throughput lift against a memory lift, each with an interval at level 1 - alpha / 2 (both hold at once).

    A fleet sized by throughput needs 1 / (1 + lift) of its servers for the same work, one sized by memory needs
    1 + growth; `memory_bound_share` says how much of the fleet is of the second kind. The interval takes both worst
    ends together, so it needs no correlation and holds at 1 - alpha (Bonferroni).
    """
    if not 0 <= memory_bound_share <= 1:
        raise BadPlan("memory_bound_share is not a share", "trade", "between 0 and 1")
    gain, growth = throughput[0], memory[0]
    if not (math.isfinite(gain) and math.isfinite(growth)):
        raise BadPlan("a lift is not a finite number", "trade", "leave the trade out")
    detail = (
        f"throughput {gain:+.1%}, memory {growth:+.1%}; "
        f"{memory_bound_share:.0%} of the fleet is sized by memory, the rest by throughput"
    )
    saved = _saved(gain, growth, memory_bound_share)
    interval = None
    more, less = _ends(throughput[1]), _ends(memory[1])
    if more is not None and less is not None and throughput[1] is not None and more[0] > -1:
        interval = Interval(
            low=_saved(more[0], less[1], memory_bound_share),
            high=_saved(more[1], less[0], memory_bound_share),
            level=1 - 2 * (1 - throughput[1].level),
        )
    return Trade(treatment=treatment, saved_per_1000=saved, interval=interval, detail=detail)


def trades_of(plan: AnalysisPlan, found: Mapping[tuple[str, str], Effect]) -> tuple[Trade, ...]:
    """Weigh the plan's two metrics for every treatment that has both; `found` is by (metric, treatment).

    The interval has the level of the primary's look, and holds also had what is missing been at its worst.
    """
    if plan.trade is None:
        return ()
    out = []
    for treatment in (arm for arm in plan.arms if arm != plan.control):
        gain, growth = (found.get((name, treatment)) for name in (plan.trade.throughput, plan.trade.memory))
        if gain is None or growth is None:
            continue
        lifts = gain.estimate.lift, growth.estimate.lift
        if lifts[0] is None or lifts[1] is None or lifts[0] <= -1:
            continue
        units = gain.estimate.n_control + gain.estimate.n_treatment
        look = look_at(plan, Role.PRIMARY, units, sum(unit.arm is not None for unit in plan.units) or None).shared(2)
        out.append(
            servers_per_1000(
                treatment,
                (lifts[0], None if look.blind else _reach(gain, look.level)),
                (lifts[1], None if look.blind else _reach(growth, look.level)),
                plan.trade.memory_bound_share,
            )
        )
    return tuple(out)


def _reach(effect: Effect, level: float) -> Interval | None:
    """The lift's interval, widened to what it would be had what is missing been at either end."""
    if effect.inference is None:
        return None
    intervals = [effect.inference.lift_interval(level)]
    if effect.bounds is not None:
        intervals += [effect.bounds.low.lift_interval(level), effect.bounds.high.lift_interval(level)]
    ends = [_ends(interval) for interval in intervals]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return None
    return Interval(low=min(end[0] for end in known), high=max(end[1] for end in known), level=level)


def _saved(gain: float, growth: float, share: float) -> float:
    if gain <= -1:
        raise BadPlan(
            "throughput fell to nothing: no number of servers does the same work", "trade", "look at the data"
        )
    return 1000 * (1 - (1 - share) / (1 + gain) - share * (1 + growth))


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    if interval is None or not interval.bounded or interval.low is None or interval.high is None:
        return None
    return interval.low, interval.high
