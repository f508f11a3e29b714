"""Numbers read as people write them, and never read as something they are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.quantities import MINUS, decimals_for, number, percentage, quantity, scale_for, tick

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.134, "seconds", "134 ms"),
        (0.898, "s", "898 ms"),
        (2.4, "seconds", "2.40 s"),
        (88.0, "ms", "88 ms"),
        (640.0, "seconds", "10.7 min"),
        (3 * 3600.0, "seconds", "3 h"),
        (5 * 86400.0, "seconds", "5 d"),
        (71.3, "nanoseconds", "71.3 ns"),
        (2.5e-6, "seconds", "2.50 µs"),
        (0, "seconds", "0 s"),
        (0, "ms", "0 ms"),
        (68 * 1024.0**3, "bytes", "68 GiB"),
        (2048, "KiB", "2 MiB"),
        (1048576, "kB", "1 GiB"),
        (1.0737e9, "bytes", "1.00 GiB"),
        (0, "bytes", "0 B"),
        (5 * 1024.0**2, "bytes/s", "5 MiB/s"),
        (0.26, "ratio", "26 %"),
        (0.5, "ratio/s", "50 %/s"),
        (4_194_304, "count", "4,194,304"),
        (4096, "pages", "4,096 pages"),
        (217.3, "", "217"),
        (8.4213, "misses per 1000 instructions", "8.42 misses per 1000 instructions"),
        (1.5e12, "count", "1.50 × 10^12"),  # noqa: RUF001
        (0.00002, "count", f"2.00 × 10^{MINUS}5"),  # noqa: RUF001
        (-12.5, "pages", f"{MINUS}12.5 pages"),
        (None, "seconds", "unavailable"),
        (0.00619, "pages per second", "22.3 pages per host and hour"),
        (0.5, "operations per second", "30 operations per host and minute"),
        (0.0000116, "kills per second", "1.00 kills per host and day"),
        (1.0, "pages per second", "1 pages per second"),
        (0, "pages per second", "0 pages per second"),
        (0.00619, "pages/s", "22.3 pages/h"),
        (5 * 1024.0**2, "bytes per second", "5 MiB/s"),
        (0.0009, "seconds per second", "900 µs/s"),
    ],
)
def test_quantity_is_shown_with_a_unit_people_use(value: float | None, unit: str, shown: str) -> None:
    assert quantity(value, unit) == shown


def test_one_scale_serves_the_whole_row() -> None:
    scale = scale_for("seconds", (0.331, 2.4, None))
    assert [scale.show(0.331), scale.show(2.4)] == ["0.331 s", "2.40 s"]


def test_small_rates_of_a_row_are_shown_per_the_same_time() -> None:
    scale = scale_for("pages per second", (0.00001, 0.00619))
    assert (scale.show(0.00001), scale.show(0.00619), scale.spelled) == ("0.0360", "22.3", "pages per host and hour")


def test_difference_of_shares_is_in_percentage_points() -> None:
    assert scale_for("ratio", (0.2, 0.3)).show_difference(0.1) == "+10 percentage points"


def test_difference_carries_its_sign() -> None:
    scale = scale_for("bytes", (2 * 1024.0**2,))
    assert scale.show_difference(1024.0**2) == "+1 MiB"
    assert scale.show_difference(-(1024.0**2)) == f"{MINUS}1 MiB"
    assert scale.show_difference(0) == "0 MiB"


@given(FINITE)
def test_number_is_within_half_a_per_cent_of_the_value(value: float) -> None:
    text = number(value).replace(MINUS, "-").replace(",", "")
    mantissa, _, power = text.partition(" × 10^")  # noqa: RUF001
    shown = float(mantissa) * 10.0 ** float(power or 0)
    assert shown == pytest.approx(value, rel=0.0051)


@given(FINITE.filter(bool))
def test_number_that_is_not_zero_never_reads_as_zero(value: float) -> None:
    assert any(digit in number(value).partition("10^")[0] for digit in "123456789")


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-5, 5))
def test_interval_end_past_zero_is_seen_to_be_past_zero(low: float, middle: float, high: float) -> None:
    ends = [round(value * 100, 2) for value in (low, middle, high)]
    decimals = decimals_for(ends, abs(ends[2] - ends[0]) / 2)
    for end in ends:
        shown = float(percentage(end / 100, decimals).removesuffix(" %").replace(MINUS, "-"))
        assert (shown > 0, shown < 0) == (end > 0, end < 0)


def test_decimals_grow_until_nothing_reads_as_zero() -> None:
    assert decimals_for([0.3, 400.0], 200.0) == 1
    assert decimals_for([0.04, 400.0], 200.0) == 2


def test_without_an_interval_large_percentages_have_no_decimals() -> None:
    assert [decimals_for([34.3], None), decimals_for([5.93], None), decimals_for([0.0], None)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("value", "decimals", "shown"),
    [
        (0.059, 1, "+5.9 %"),
        (-0.343, 0, f"{MINUS}34 %"),
        (0.0, 1, "0.0 %"),
        (-0.00001, 1, "0.0 %"),
        (12.5, 0, "+1,250 %"),
    ],
)
def test_percentage_has_sign_and_decimals_asked_for(value: float, decimals: int, shown: str) -> None:
    assert percentage(value, decimals) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.6000000000001, "0.6"), (-25.0, f"{MINUS}25"), (1200.0, "1,200"), (0.0, "0"), (40_000.0, "40k"),
        (-1_400_000.0, f"{MINUS}1.4M"), (2e9, "2G"), (3e15, "3,000T"), (0.00002, f"2e{MINUS}5"),
    ],
)  # fmt: skip
def test_ticks_take_few_letters(value: float, shown: str) -> None:
    assert tick(value) == shown
