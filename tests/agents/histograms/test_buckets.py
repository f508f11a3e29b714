"""Quantiles and shares of histograms: properties, and the answers of a real Prometheus on the same buckets."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.histograms.buckets import (
    ClassicHistogram,
    NativeBucket,
    NativeHistogram,
    UnusableHistogram,
    classic_histogram,
    merged,
    quantile_of,
    share_below,
)
from tests.native_histograms import CONTENT_TYPE, NativeSeries, native_page
from tests.prometheus_server import exporter, prometheus

QUANTILES = [1e-9, 0.001, 0.01, *(round(0.05 * place, 2) for place in range(1, 20)), 0.99, 0.999, 0.9999, 1 - 1e-9]
INF = math.inf

bounds = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12, unique=True).map(sorted)
quantiles = st.floats(1e-6, 1 - 1e-6)


@st.composite
def histograms(draw: st.DrawFn) -> ClassicHistogram:
    ends = [*draw(bounds), INF]
    counts = draw(st.lists(st.integers(0, 10**6), min_size=len(ends), max_size=len(ends)).filter(any))
    total, cumulative = 0, {}
    for end, count in zip(ends, counts, strict=True):
        total += count
        cumulative[end] = float(total)
    return classic_histogram(cumulative)


@given(histogram=histograms(), quantile=quantiles)
def test_a_quantile_lies_in_the_bucket_that_holds_its_rank(histogram: ClassicHistogram, quantile: float) -> None:
    found = quantile_of(histogram, quantile)
    rank = quantile * histogram.observations
    assert found.at_least is None or found.at_least <= found.value
    assert found.at_most is None or found.value <= found.at_most
    upto = dict(zip(histogram.bounds, histogram.counts, strict=True))
    assert upto[INF if found.at_most is None else found.at_most] >= rank
    assert found.at_least is None or found.at_least not in upto or upto[found.at_least] < rank


@given(histogram=histograms(), low=quantiles, high=quantiles)
def test_a_higher_quantile_is_no_lower(histogram: ClassicHistogram, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert quantile_of(histogram, low).value <= quantile_of(histogram, high).value + 1e-9


@given(histogram=histograms(), quantile=quantiles)
def test_the_share_below_a_quantile_is_that_quantile(histogram: ClassicHistogram, quantile: float) -> None:
    found = quantile_of(histogram, quantile)
    if found.at_least is not None and found.at_most is not None and found.at_most - found.at_least > 1e-3:
        share = share_below(histogram, found.value)
        assert share.value == pytest.approx(quantile, abs=1e-6)


@given(histogram=histograms(), place=st.integers(0, 11))
def test_the_share_below_a_bucket_s_end_is_exact(histogram: ClassicHistogram, place: int) -> None:
    place %= len(histogram.bounds)
    found = share_below(histogram, histogram.bounds[place])
    assert found.at_least == found.at_most == found.value
    assert found.value == pytest.approx(histogram.counts[place] / histogram.observations, abs=1e-12)


@given(st.lists(histograms(), min_size=1, max_size=4), st.floats(-1e6, 1e6))
def test_what_can_be_merged_is_added_up_bound_by_bound(found: list[ClassicHistogram], extra: float) -> None:
    same = [
        dict(zip(found[0].bounds, (count * n for count in one.counts[:1] * 50), strict=False))
        for n, one in enumerate(found, 1)
    ]
    assert merged(same) == {bound: sum(one[bound] for one in same) for bound in same[0]}
    if extra not in same[0]:
        with pytest.raises(UnusableHistogram, match="unlike buckets"):
            merged([*same, same[0] | {extra: 0.0}])


def test_counts_that_fall_are_raised_and_what_tells_nothing_is_refused() -> None:
    assert classic_histogram({1.0: 5.0, 2.0: 4.0, INF: 6.0}).counts == (5.0, 5.0, 6.0)
    for cumulative, why in (({1.0: 5.0}, "Inf"), ({INF: 5.0}, "no bucket but"), ({}, "Inf"), ({math.nan: 1.0}, "not")):
        with pytest.raises(UnusableHistogram, match=why):
            classic_histogram(cumulative)
    for empty in (classic_histogram({1.0: 0.0, INF: 0.0}), NativeHistogram(buckets=(), observations=0.0)):
        with pytest.raises(UnusableHistogram, match="nothing was observed"):
            quantile_of(empty, 0.5)
        with pytest.raises(UnusableHistogram, match="nothing was observed"):
            share_below(empty, 0.5)


def test_buckets_without_an_end_leave_the_value_open_there() -> None:
    histogram = classic_histogram({-1.0: 10.0, 1.0: 20.0, INF: 40.0})
    first, last = quantile_of(histogram, 0.1), quantile_of(histogram, 0.9)
    assert (first.value, first.at_least, first.at_most) == (-1.0, None, -1.0)
    assert (last.value, last.at_least, last.at_most) == (1.0, 1.0, None)
    above = share_below(histogram, 5.0)
    assert (above.value, above.at_least, above.at_most) == (0.5, 0.5, 1.0)


def test_classic_quantiles_are_those_of_a_real_prometheus() -> None:
    draw, lines = random.Random(4), ["# TYPE h histogram"]
    for layout in range(60):
        ends = sorted(draw.uniform(-5 if layout % 3 == 0 else 0.001, 50) for _ in range(draw.randint(1, 15)))
        total = 0
        for end in [*ends, INF]:
            total += draw.choice([0, 1, 7, draw.randint(0, 10**9)])
            lines.append(f'h_bucket{{layout="{layout}",le="{end if end < INF else "+Inf"}"}} {total}')
    lines += [
        'h_bucket{layout="falls",le="1"} 9',
        'h_bucket{layout="falls",le="2"} 5',
        'h_bucket{layout="falls",le="+Inf"} 12',
    ]
    with exporter("\n".join(lines) + "\n") as web, prometheus({"own": [web.url.split("/")[2]]}) as server:
        server.wait_for("h_bucket", 100)
        cumulative: defaultdict[str, dict[float, float]] = defaultdict(dict)
        for one in server.ask("h_bucket"):
            cumulative[_label(one, "layout")][float(_label(one, "le"))] = _value(one)
        read = {layout: classic_histogram(buckets) for layout, buckets in cumulative.items()}
        compared = 0
        for quantile in QUANTILES:
            for one in server.ask(f"histogram_quantile({quantile!r}, h_bucket)"):
                histogram = read[_label(one, "layout")]
                if histogram.observations:
                    assert quantile_of(histogram, quantile).value == pytest.approx(_value(one), rel=1e-9, abs=1e-9)
                    compared += 1
                else:
                    assert math.isnan(_value(one))
        assert compared > 50 * len(QUANTILES)


def test_native_quantiles_and_shares_are_those_of_a_real_prometheus() -> None:
    draw, series = random.Random(5), []

    def side() -> dict[int, int]:
        return {draw.randint(-20, 20): draw.randint(1, 10**6) for _ in range(draw.randint(1, 12))}

    for layout in range(40):
        series.append(
            NativeSeries(
                labels={"layout": str(layout)},
                schema=draw.randint(-2, 6),
                zero_threshold=draw.choice([1e-128, 0.01]),
                zero=draw.choice([0, 1, 1000]),
                positive=side() if layout % 4 != 1 else {},
                negative=side() if layout % 4 in {1, 2} else {},
            )
        )
    with exporter() as web:
        web.body, web.content_type = native_page("h", series), CONTENT_TYPE
        with prometheus({"own": [web.url.split("/")[2]]}, features=["native-histograms"]) as server:
            server.wait_for("h", 40)
            read = {_label(one, "layout"): _native(one) for one in server.ask("h")}
            assert len(read) == 40
            for quantile in QUANTILES:
                asked = server.ask(f"histogram_quantile({quantile!r}, h)")
                assert len(asked) == 40
                for one in asked:
                    found = quantile_of(read[_label(one, "layout")], quantile)
                    assert found.value == pytest.approx(_value(one), rel=1e-9, abs=1e-9)
            for bound in (-3.0, -0.5, 0.0, 0.005, 0.3, 1.0, 2.5, 1e9):
                for one in server.ask(f"histogram_fraction(-Inf, {bound!r}, h)"):
                    found = share_below(read[_label(one, "layout")], bound)
                    assert found.value == pytest.approx(_value(one), abs=1e-9)


def _native(one: Mapping[str, Any]) -> NativeHistogram:
    _, said = one["histogram"]
    buckets = (NativeBucket(lower=float(low), upper=float(up), count=float(n)) for _, low, up, n in said["buckets"])
    return NativeHistogram(buckets=tuple(buckets), observations=float(said["count"]))


def _label(one: Mapping[str, Any], name: str) -> str:
    return str(one["metric"][name])


def _value(one: Mapping[str, Any]) -> float:
    return float(one["value"][1])
