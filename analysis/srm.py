"""Sample-ratio mismatch: are the arms as large as the draw should have made them, among the hosts that report?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import stats

from analysis.errors import BadPlan
from analysis.results import Check

ALARM = 0.001
SPREAD = "arms over strata"
CHI_SQUARE_FROM = 5.0  # expected hosts in the smallest cell
ENUMERATE_UP_TO = 200_000
DRAWN_TABLES, CELLS_DRAWN_UP_TO = 9_999, 2_000


def ratio_p(counts: Sequence[int], ratio: Sequence[float]) -> float | None:
    """P-value of these counts under these odds: chi-square, or exact (multinomial) where a cell expects few.

    None without any unit. Fabijan et al. (2019), Diagnosing Sample Ratio Mismatch, KDD.
    """
    if len(counts) != len(ratio) or min(counts, default=0) < 0 or not all(0 < odd < math.inf for odd in ratio):
        raise BadPlan("counts and ratio do not fit", "sample ratio", "one positive share per arm, and counts from 0")
    total = sum(counts)
    if total == 0:
        return None
    odds = np.asarray(ratio, dtype=np.float64) / sum(ratio)
    expected = total * odds
    if len(counts) == 2 and expected.min() < CHI_SQUARE_FROM:
        return float(stats.binomtest(counts[0], total, odds[0]).pvalue)
    cells = np.prod([total + place for place in range(1, len(counts))], dtype=np.float64)
    if expected.min() < CHI_SQUARE_FROM and cells <= ENUMERATE_UP_TO:
        law = stats.multinomial(total, odds)
        every = law.pmf(list(_compositions(total, len(counts))))
        return float(min(1.0, every[every <= law.pmf(counts) * (1 + 1e-9)].sum()))
    return float(stats.chisquare(counts, expected).pvalue)


def ratio_check(groups: Mapping[str, tuple[Sequence[int], Sequence[str]]], ratio: Sequence[float] | None) -> Check:
    """Check the whole and each part (stratum, stage): `groups` maps a part's name ('' the whole) to counts and arms.

    Alarm at .001 for the whole; the parts share another .001 (Bonferroni).
    """
    name = "sample-ratio mismatch"
    if ratio is None:
        return Check(name=name, passed=None, p_value=None, detail="Nobody said in which ratio the arms were drawn.")
    found = {part: ratio_p(counts, ratio) for part, (counts, _) in groups.items()}
    tested = {part: p for part, p in found.items() if p is not None}
    if "" not in tested:
        return Check(name=name, passed=None, p_value=None, detail="No host reports.")
    parts = {part: min(1.0, p * (len(tested) - 1)) for part, p in tested.items() if part}
    failed = [part for part, p in {"": tested[""], **parts}.items() if p < ALARM]
    counts, arms = groups[""]
    sizes = ", ".join(f"{arm} {count}" for arm, count in zip(arms, counts, strict=True))
    if failed:
        where = ", ".join(part or "the whole fleet" for part in failed)
        detail = (
            f"Hosts per arm do not fit the configured ratio in {where} ({sizes}): find out who is missing, and why."
        )
        worst = min(tested[""], *parts.values()) if parts else tested[""]
        return Check(name=name, passed=False, p_value=worst, detail=detail)
    return Check(
        name=name, passed=True, p_value=tested[""], detail=f"Hosts per arm fit the configured ratio ({sizes})."
    )


def spread_check(strata: Mapping[str, Sequence[int]], arms: Sequence[str]) -> Check | None:
    """Check hosts per stratum and arm, where no ratio is known and a stratum lacks an arm; None where none does.

    Such strata can't be adjusted for: their hosts are compared with those of other strata, which only a draw that paid
    no heed to strata makes fair. Alarm at .001, as for a ratio; by tables drawn with these margins where cells are few.
    """
    counts = np.array(list(strata.values()), dtype=np.int64)
    counts = counts[counts.sum(axis=1) > 0] if counts.size else counts
    if len(counts) < 2 or counts.all() or not counts.sum(axis=0).all():
        return None
    margins = counts.sum(axis=1), counts.sum(axis=0)
    expected = np.outer(*margins) / counts.sum()
    found = float(((counts - expected) ** 2 / expected).sum())
    if counts.size <= CELLS_DRAWN_UP_TO:
        drawn = stats.random_table(*margins).rvs(DRAWN_TABLES, random_state=np.random.default_rng(0))
        as_far = ((drawn - expected) ** 2 / expected).sum(axis=(1, 2)) >= found * (1 - 1e-9)
        p = float((1 + as_far.sum()) / (1 + DRAWN_TABLES))
    else:
        p = float(stats.chi2.sf(found, (len(counts) - 1) * (len(arms) - 1)))
    lacking = [name for name, hosts in strata.items() if any(hosts) and not all(hosts)]
    named = f"{', '.join(lacking[:3])}{' and others' if len(lacking) > 3 else ''}"
    if p < ALARM:
        detail = (
            f"No single draw spreads the arms over strata like this (p = {p:.2g}), and {named} lack an arm: what "
            "differs there may be the stratum. Leave out strata that lack an arm, or say where they come from."
        )
        return Check(name=SPREAD, passed=False, p_value=p, detail=detail)
    detail = f"{named} lack an arm; chance may have done that (p = {p:.2g})."
    return Check(name=SPREAD, passed=True, p_value=p, detail=detail)


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)
