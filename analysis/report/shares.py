"""A share with its interval, in words."""

from __future__ import annotations

from scipy import stats

from analysis.report.quantities import number


def share_interval(part: float, whole: float, level: float = 0.95) -> str:
    """Write the Wilson interval of part / whole: '[91.2 %, 97.8 %]'. Counts that are no whole numbers are rounded.

    Wilson (1927), J. Am. Stat. Assoc. 22:209-212. It treats requests as independent, which those of one host are not.
    """
    found = stats.binomtest(round(min(part, whole)), round(whole)).proportion_ci(level, method="wilson")
    return f"[{number(100 * float(found.low))} %, {number(100 * float(found.high))} %]"
