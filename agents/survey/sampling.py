"""Looking at all of a process, or at a random sample of it, and how far off the sample may be.

Simple random sampling of clusters without replacement: Cochran, Sampling Techniques, 3rd ed., sections 2.5 and 9A.
A cluster is an aligned stretch of address space as long as the largest page size, so that extents of every size lie
within one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

from agents.survey.layout import AnonymousMapping, extents_within
from agents.survey.pace import Pace
from agents.survey.residency import Pagemap, TableLevels, Tally, count_range

_FEWEST_CLUSTERS = 2  # below, nothing can be said of the error


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAt:
    """What was counted, by size in pages: the tallies of what was looked at, and what the whole is estimated by."""

    tallies: dict[int, Tally]
    factor: float  # 1.0: nothing was left out
    growth_error_pages: dict[int, float]

    @property
    def sampled(self) -> bool:
        return self.factor > 1.0


def look(
    pagemap: Pagemap,
    mappings: Sequence[AnonymousMapping],
    sizes_pages: Sequence[int],
    levels: TableLevels,
    pace: Pace,
    *,
    sample_above_bytes: int,
) -> LookedAt | None:
    """Count the extents of every size in these mappings; None where the pace's time was over before.

    Only mappings that hold something are looked at. Where they are longer than `sample_above_bytes` together, a random
    sample of about so much is.
    """
    cluster_bytes = max(sizes_pages) * levels.page_bytes
    used = [one for one in mappings if one.used]
    clusters = _clusters(used, cluster_bytes)
    wanted = max(_FEWEST_CLUSTERS, sample_above_bytes // cluster_bytes)
    total = {pages: Tally(pages=pages, levels=levels) for pages in sizes_pages}
    growths: list[list[int]] = [[] for _ in sizes_pages]
    if sum(one.span for one in used) <= sample_above_bytes or len(clusters) <= wanted:
        pieces: list[list[tuple[int, int]]] = [[(one.start, one.end) for one in used]]
        factor = 1.0
    else:
        # Where to look is no secret: what matters is that it has nothing to do with what is there.
        pieces = [clusters[number] for number in random.sample(range(len(clusters)), wanted)]
        factor = len(clusters) / wanted
    for cluster in pieces:
        tallies = [Tally(pages=pages, levels=levels) for pages in sizes_pages]
        for start, end in cluster:
            if not count_range(pagemap, start // levels.page_bytes, end // levels.page_bytes, tallies, pace):
                return None
        for tally, growth in zip(tallies, growths, strict=True):
            total[tally.pages].include(tally)
            growth.append(sum(tally.growth))
    errors = {pages: _error_of_total(growth, factor) for pages, growth in zip(sizes_pages, growths, strict=True)}
    return LookedAt(tallies=total, factor=factor, growth_error_pages=errors)


def untouched_extents(mappings: Sequence[AnonymousMapping], size: int) -> int:
    """Return the extents of `size` bytes in the mappings that hold nothing, which are not looked at."""
    return sum(extents_within(one.start, one.end, size) for one in mappings if not one.used)


def _clusters(mappings: Sequence[AnonymousMapping], size: int) -> list[list[tuple[int, int]]]:
    """Return, by address, the parts of the mappings that lie in each aligned stretch of `size` bytes with any."""
    found: dict[int, list[tuple[int, int]]] = {}
    for number, piece in _pieces(mappings, size):
        found.setdefault(number, []).append(piece)
    return list(found.values())


def _pieces(mappings: Sequence[AnonymousMapping], size: int) -> Iterator[tuple[int, tuple[int, int]]]:
    for one in mappings:
        for number in range(one.start // size, -(-one.end // size)):
            yield number, (max(one.start, number * size), min(one.end, (number + 1) * size))


def _error_of_total(values: Sequence[int], factor: float) -> float:
    """Return the standard error of the total that is estimated from a sample of clusters; 0 where all were looked at.

    N * sqrt((1 - n/N) * s^2 / n), with N = n * factor.
    """
    n = len(values)
    if factor == 1.0 or n < _FEWEST_CLUSTERS:
        return 0.0
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    return n * factor * sqrt((1 - 1 / factor) * variance / n)
