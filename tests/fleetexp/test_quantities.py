"""Durations, sizes, counts and shares: what they mean, and that writing them loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetexp.experiment.problem import ValueRefused
from fleetexp.experiment.quantities import (
    MAX_DURATION_SECONDS,
    format_duration,
    format_share,
    format_size,
    parse_count,
    parse_duration,
    parse_share,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("1.5s", 1.5), ("1h30m", 5400), ("2d", 172800), ("1m 30s", 90), ("0s", 0)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 << 30),
        ("4G", 4 << 30),
        ("2048kB", 2 << 20),
        ("64K", 65536),
        ("1.5 MiB", 3 << 19),
        ("7B", 7),
        ("1T", 1 << 40),
    ],
)
def test_sizes_are_bytes_in_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "count"), [("4M", 4_000_000), ("4_000", 4000), (7, 7), ("1.5k", 1500), ("2G", 2 * 10**9), (0, 0)]
)
def test_counts_are_powers_of_1000(value: object, count: int) -> None:
    assert parse_count(value) == count


@pytest.mark.parametrize(("value", "share"), [("10%", 0.1), (0.1, 0.1), (1, 1.0), ("150%", 1.5), ("0.5 %", 0.005)])
def test_shares_are_ratios(value: object, share: float) -> None:
    assert parse_share(value) == share


@pytest.mark.parametrize(
    "value", [True, None, -1, "-1", (), {}, "", "10", "1e3", "1 0s", "٣s", float("nan"), float("inf")]
)
@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_share])
def test_what_is_no_quantity_is_refused_with_a_remedy(parse: object, value: object) -> None:
    assert callable(parse)
    with pytest.raises(ValueRefused) as caught:
        parse(value)
    assert caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize("value", [True, None, -1, "-1", (), {}, "", "4m", "_4", "4__0", 1.5, float("nan")])
def test_what_is_no_count_is_refused(value: object) -> None:
    with pytest.raises(ValueRefused):
        parse_count(value)


@given(st.integers(0, MAX_DURATION_SECONDS * 1000))
def test_durations_survive_being_written(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, 2**49))
def test_sizes_survive_being_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.decimals(0, 1000, places=6).map(float))
def test_shares_survive_being_written(share: float) -> None:
    assert parse_share(format_share(share)) == share
