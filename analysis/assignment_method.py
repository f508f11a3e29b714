"""What a method of assignment is: how the arms of a parallel design are drawn, and how inference draws them again.

Every experiment's spec is read with these modules, so what is heavy (NumPy, SciPy) is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from analysis.errors import BadPlan
from analysis.plan import AnalysisPlan, AssignmentPlan, BalanceRule
from analysis.registry import installed, ours

if TYPE_CHECKING:
    from analysis.assignment_redraws import Replay
    from analysis.hosts import TwoArms


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawInput:
    """What arms are drawn from: equal inputs give equal arms. `balance` and `rule` are for the methods that use them.

    `ratio`: arm -> its parts of the hosts, the control first. `strata`: host -> stratum. `balance`: host -> numbers,
    as many for each. `most_draws`: how often arms may be drawn to meet the rule.
    """

    seed: int
    ratio: Mapping[str, int]
    strata: Mapping[str, str]
    balance: Mapping[str, tuple[float, ...]]
    rule: BalanceRule
    most_draws: int

    def by_stratum(self) -> dict[str, list[str]]:
        """Return the hosts of each stratum, by name."""
        out: dict[str, list[str]] = {}
        for host in sorted(self.strata):
            out.setdefault(self.strata[host], []).append(host)
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Host -> arm, and what inference needs to draw again: host -> its set of hosts that one coin decided.

    Where a rule decided: `distance` of this draw, the `threshold`, and the number of `draws` until it was met.
    """

    arms: Mapping[str, str]
    pairs: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    distance: float | None = None
    draws: int = 1


def replay_within_strata(sample: TwoArms, plan: AnalysisPlan) -> Replay:
    """Replay draws that gave each stratum's hosts their arms whoever they are."""
    from analysis.assignment_redraws import WithinStrata  # noqa: PLC0415 - NumPy

    return WithinStrata(sample.treated, sample.strata)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentMethod:
    """A way to draw arms, declared at the top of its module.

    `draw` raises BadPlan where it can't be carried out. `replay` returns what could have been drawn, given the hosts
    that report. `words` say it on the plan's screen, given the record and the number of sets of hosts.
    """

    name: str
    draw: Callable[[DrawInput], Draw]
    words: Callable[[AssignmentPlan, int], str]
    replay: Callable[[TwoArms, AnalysisPlan], Replay] = replay_within_strata
    stable: bool = False  # each host's arm hangs on nobody else: hosts may join later, and be left out
    balances: bool = False  # looks at what hosts were before
    by_rule: bool = False  # draws until a rule of balance accepts
    paired: bool = False  # one host of each arm in a set: arms are equal, differences inside sets are estimated


@cache
def own_methods() -> Mapping[str, AssignmentMethod]:
    """Return fleetexp's own methods by name."""
    return ours("assignment_methods", AssignmentMethod)


@cache
def installed_methods() -> Mapping[str, AssignmentMethod]:
    """Return those that installed packages add; looked for only where a name is not one of ours."""
    return installed("assignment_methods", AssignmentMethod)


def find_method(name: str) -> AssignmentMethod:
    """Return the method of that name; BadPlan where there is none."""
    found = own_methods().get(name) or installed_methods().get(name)
    if found is None:
        legal = ", ".join((*own_methods(), *installed_methods()))
        raise BadPlan(f"unknown method of assignment {name!r}", "method", f"one of {legal}; or install what adds it")
    return found


def within(record: AssignmentPlan) -> str:
    """Word the strata in which arms were drawn; '' where there are none."""
    return f" within {' and '.join(record.strata)}" if record.strata else ""
