"""The table of effects says what the data show and no more."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from analysis.plan import Direction, Role
from analysis.quantities import MINUS
from analysis.report import EffectOutcome, EffectRow, ReportInput, UnavailableMetric, effect_rows
from analysis.report.effects import estimate_row, pair_rows
from analysis.results import Estimate, Interval
from analysis.wording import leaves_out_zero


def row(
    samples: ModuleType, control: float, treatment: float, half: float, unit: str = "seconds", **more: object
) -> EffectRow:
    metric = str(more.pop("metric", "access_seconds"))
    better = more.pop("better", None)
    assert better is None or isinstance(better, Direction)
    estimate = samples.estimate(metric, unit, Role.PRIMARY, control, treatment, half=half, **more)
    return estimate_row(estimate, 0.05, better)


def test_the_published_table_reads_as_published(samples: ModuleType) -> None:
    access = row(samples, 0.134, 0.088, 0.013)
    assert (access.control, access.treatment, access.change) == ("134 ms", "88 ms", "34 % faster")
    assert access.figures == f"[{MINUS}36 %, {MINUS}33 %]"
    fault = row(samples, 0.331, 0.898, 0.1, metric="fault_seconds")
    assert (fault.control, fault.treatment, fault.change) == ("331 ms", "898 ms", "2.7× as long")  # noqa: RUF001


@pytest.mark.parametrize(
    ("control", "treatment", "unit", "metric", "change"),
    [
        (100.0, 105.9, "count", "throughput", "5.9 % higher"),
        (10.0, 7.4, "misses per 1000 instructions", "dtlb", "26.0 % lower"),
        (10.0, 31.0, "bytes", "memory_used_bytes", "3.1× as much"),  # noqa: RUF001
        (1.0, 1.1, "seconds", "agent_cpu_seconds", "10.0 % higher"),
        (1.0, 1.1, "seconds", "psi_memory_some_seconds", "10.0 % higher"),
        (1.0, 1.1, "seconds", "access_seconds", "10.0 % slower"),
    ],
)
def test_wording_suits_the_unit(
    samples: ModuleType, *, control: float, treatment: float, unit: str, metric: str, change: str
) -> None:
    assert row(samples, control, treatment, 0.004, unit, metric=metric).change == change


def test_long_unit_is_spelled_once_and_not_in_the_cells(samples: ModuleType) -> None:
    found = row(samples, 8.42, 6.1, 0.01, "misses per 1000 instructions")
    assert (found.control, found.treatment, found.unit) == ("8.42", "6.10", "misses per 1000 instructions")


def test_much_smaller_mean_has_a_scale_of_its_own(samples: ModuleType) -> None:
    found = row(samples, 2_121_728.0, 49_152.0, 0.01, "bytes")
    assert (found.control, found.treatment) == ("2.02 MiB", "48 KiB")


def test_interval_over_zero_is_no_clear_change_whichever_way_is_better(samples: ModuleType) -> None:
    found = row(samples, 100.0, 99.0, 0.05, better=Direction.DECREASE)
    assert found.outcome is EffectOutcome.UNCLEAR
    assert (found.change, found.figures) == ("no clear change", f"{MINUS}1.0 % [{MINUS}6.0 %, +4.0 %]")


@pytest.mark.parametrize(
    ("better", "outcome"),
    [
        (Direction.DECREASE, EffectOutcome.BETTER),
        (Direction.INCREASE, EffectOutcome.WORSE),
        (None, EffectOutcome.CHANGED),
    ],
)
def test_clear_change_is_judged_by_the_direction_that_was_declared(
    samples: ModuleType, better: Direction | None, outcome: EffectOutcome
) -> None:
    assert row(samples, 0.134, 0.088, 0.01, better=better).outcome is outcome


@pytest.mark.parametrize("more", [{"p_value": 0.2}, {"p_value": 0.01, "p_adjusted": 0.06}, {"p_value": None}])
def test_change_that_the_test_does_not_bear_out_is_not_claimed(
    samples: ModuleType, more: dict[str, float | None]
) -> None:
    assert row(samples, 0.134, 0.088, 0.01, better=Direction.DECREASE, **more).outcome is EffectOutcome.UNCLEAR


def test_without_an_interval_nothing_is_claimed(samples: ModuleType) -> None:
    found = row(samples, 0.134, 0.088, 0.01, lift_interval=None)
    assert (found.change, found.figures, found.level) == ("not tested", f"{MINUS}34 %", None)
    assert found.outcome is EffectOutcome.UNCLEAR


def test_without_a_lift_the_difference_is_shown_in_units(samples: ModuleType) -> None:
    mib = 1024.0**2
    found = row(
        samples, 4 * mib, 16 * mib, 0.0, "bytes", lift=None, lift_interval=None,
        difference_interval=Interval(low=3 * mib, high=21 * mib, level=0.9),
    )  # fmt: skip
    assert (found.change, found.figures, found.level) == ("+12 MiB", "[+3 MiB, +21 MiB]", 0.9)


def test_without_any_estimate_the_row_says_so(samples: ModuleType) -> None:
    none = dict.fromkeys(
        ("control_mean", "treatment_mean", "difference", "difference_interval", "lift", "lift_interval")
    )
    found = row(samples, 1.0, 1.0, 0.1, **none)
    assert (found.control, found.treatment, found.change) == ("no data", "no data", "no estimate")
    assert found.outcome is EffectOutcome.UNCLEAR


def test_difference_without_an_interval_is_shown_and_not_claimed(samples: ModuleType) -> None:
    found = row(samples, 1.0, 3.0, 0.1, lift=None, lift_interval=None, difference_interval=None)
    assert (found.change, found.figures, found.outcome) == ("not tested", "+2 s", EffectOutcome.UNCLEAR)


def test_lift_of_nothing_is_no_clear_change(samples: ModuleType) -> None:
    assert row(samples, 1.0, 1.0, 0.05).change == "no clear change"


def test_change_on_a_negative_mean_is_shown_and_judged_by_the_difference(samples: ModuleType) -> None:
    found = row(
        samples, -10.0, -5.0, 0.01, "count", better=Direction.INCREASE,
        difference_interval=Interval(low=4.9, high=5.1, level=0.95),
    )  # fmt: skip
    assert (found.change, found.outcome) == ("+5.00", EffectOutcome.BETTER)


@pytest.mark.parametrize(
    ("low", "high", "excludes", "text", "clear"),
    [
        (None, None, False, "[unbounded]", False),
        (-0.5, None, False, f"[{MINUS}50 %, unbounded]", False),
        (0.25, None, False, "[+25 %, unbounded]", True),
        (None, -0.25, False, f"[unbounded, {MINUS}25 %]", True),
        (-0.25, 0.75, True, f"[below {MINUS}25 % or above +75 %]", True),
        (0.25, 0.75, True, "[below +25 % or above +75 %]", False),
        (None, 0.75, True, "[unbounded, +75 %]", False),
    ],
)
def test_unbounded_sets_are_called_unbounded(
    samples: ModuleType, *, low: float | None, high: float | None, excludes: bool, text: str, clear: bool
) -> None:
    interval = Interval(low=low, high=high, level=0.95, excludes=excludes)
    assert leaves_out_zero(interval) is clear
    found = row(samples, 100.0, 104.0, 0.01, "count", lift_interval=interval)
    assert found.figures.endswith(text)
    assert found.is_clear is clear


def test_rows_stand_in_the_order_of_their_roles_and_checks_stay_out(content: ReportInput) -> None:
    rows = effect_rows(content.findings, content.unavailable)
    assert [found.metric for found in rows] == [
        "chase_access_seconds",
        "chase_fault_seconds",
        "chase_page_tables_bytes",
        "memory_used_bytes",
        "context_switches",
        "thp_2048kB_backed_bytes",
        "agent_cpu_seconds",
        "dtlb_load_misses_per_kilo_instruction",
    ]


def test_pairs_of_treatments_are_rows_of_their_own(samples: ModuleType) -> None:
    findings = samples.three_arm_findings()
    assert all(found.control_arm == samples.FLEET_CONTROL for found in effect_rows(findings))
    (pair,) = pair_rows(findings, {"throughput": Direction.INCREASE})
    assert (pair.treatment_arm, pair.control_arm, pair.outcome) == (samples.LARGE, samples.SMALL, EffectOutcome.UNCLEAR)


def test_a_row_has_one_scale_and_small_rates_are_those_of_an_hour(samples: ModuleType) -> None:
    found = row(
        samples, 0.00619, 0.0075, 0.1, "pages per second", lift=None, lift_interval=None,
        difference_interval=Interval(low=0.0005, high=0.0021, level=0.95),
    )  # fmt: skip
    assert (found.unit, found.control, found.treatment) == ("pages per host and hour", "22.3", "27")
    assert (found.change, found.figures) == ("+4.7", "[+1.8, +7.6]")


def test_subgroup_is_never_a_row_of_the_table(content: ReportInput) -> None:
    def in_stratum(estimate: Estimate) -> Estimate:
        return replace(estimate, stratum="web-a")

    findings = replace(content.findings, estimates=tuple(map(in_stratum, content.findings.estimates)))
    assert effect_rows(findings) == ()


@pytest.mark.parametrize(
    ("reason", "said"), [("ENOENT", "unavailable: ENOENT"), ("", "unavailable: no reason was recorded")]
)
def test_unavailable_metric_has_a_reason_and_no_number(content: ReportInput, reason: str, said: str) -> None:
    found = effect_rows(content.findings, (UnavailableMetric(metric="dtlb", reason=reason),))[-1]
    assert (found.change, found.control, found.treatment, found.figures) == (said, "", "", "")
    assert found.outcome is EffectOutcome.UNAVAILABLE
