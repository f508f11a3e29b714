"""Instants of pages: in the unit of their format, of now."""

from __future__ import annotations

import pytest

from agents.metric_sources.instants import check_age, check_instant
from agents.metric_sources.unreadable import Unreadable

NOW = 1_795_712_400.0  # 2026-11-26
TEXT, OPENMETRICS = 1000.0, 1.0


@pytest.mark.parametrize("written_as", [TEXT, OPENMETRICS])
@pytest.mark.parametrize("ago", [-3600.0, 0.0, 600.0, 86400.0, 300 * 86400.0])
def test_an_instant_of_this_year_is_taken_as_it_is(written_as: float, ago: float) -> None:
    check_instant(NOW - ago, now_seconds=NOW, written_as=written_as)


@pytest.mark.parametrize(
    ("seconds", "written_as", "said"),
    [
        (NOW * 1e6, TEXT, "the instant 1.7957124e+18, in milliseconds by its format: it looks like nanoseconds"),
        (NOW * 1e3, TEXT, "looks like microseconds"),
        (NOW / 1e3, TEXT, "looks like seconds"),
        (NOW * 1e3, OPENMETRICS, "in seconds by its format: it looks like milliseconds"),
        (NOW * 1e9, OPENMETRICS, "looks like nanoseconds"),
        (0.0, TEXT, "far from now"),
        (-NOW, OPENMETRICS, "far from now"),
        (float("inf"), TEXT, "far from now"),
        (1e300, OPENMETRICS, "far from now"),
    ],
)
def test_another_unit_is_named(seconds: float, written_as: float, said: str) -> None:
    with pytest.raises(Unreadable) as caught:
        check_instant(seconds, now_seconds=NOW, written_as=written_as)
    assert said in caught.value.what
    assert ("milliseconds" if written_as == TEXT else "in seconds of now") in caught.value.remedy


def test_an_age_is_checked_on_both_sides() -> None:
    check_age(NOW + 0.5, oldest_seconds=NOW - 60, now_seconds=NOW, since="x")
    check_age(NOW - 60, oldest_seconds=NOW - 60, now_seconds=NOW, since="x")
    with pytest.raises(Unreadable, match="which is to come"):
        check_age(NOW + 2, oldest_seconds=NOW - 60, now_seconds=NOW, since="x")
    with pytest.raises(Unreadable, match="before the period"):
        check_age(NOW - 61, oldest_seconds=NOW - 60, now_seconds=NOW, since="which was before the period")
