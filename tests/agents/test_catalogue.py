"""The catalogue: every name described, every derived metric computable, the page current."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agents.catalogue import (
    CATALOGUE,
    DERIVED,
    DERIVED_PATTERNS,
    PATTERNS,
    CataloguePage,
    DerivedMetric,
    MetricKind,
    asked_events,
    derive,
    derived_for,
    describe,
    find_derived,
    is_known,
    render_catalogue,
)

METRICS_PAGE = Path(__file__).parents[2] / "docs" / "METRICS.md"


def test_the_page_in_the_repository_is_the_catalogue() -> None:
    assert METRICS_PAGE.read_text() == render_catalogue(), "write it again: see docs/METRICS.md, first line"


def test_every_row_of_the_page_has_as_many_cells_as_its_header() -> None:
    width = 0
    for line in render_catalogue().splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        width = width or cells
        assert cells == width, line


def test_names_units_and_meanings_are_all_there() -> None:
    for name, metric in CATALOGUE.items():
        assert name == metric.name
        assert re.fullmatch(r"[a-z][A-Za-z0-9_]*", name)
        assert metric.unit
        assert metric.source
        assert metric.meaning


def test_the_store_gets_a_column_for_what_is_asked_most() -> None:
    columns = {name for name, metric in CATALOGUE.items() if metric.column}
    assert 40 <= len(columns) <= 65
    assert {"thp_split_pud", "thp_1048576kB_nr_anon", "dtlb_load_misses", "oom_kills", "agent_cpu_seconds"} <= columns


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.shape)
def test_a_name_made_of_a_pattern_is_described(pattern: object) -> None:
    example = pattern.example  # type: ignore[attr-defined]
    described = describe(example)
    assert described.name == example
    assert described.unit
    assert not described.column


@pytest.mark.parametrize(
    ("name", "kind", "unit"),
    [
        ("thp_524288kB_anon_fault_alloc", MetricKind.COUNTER, "pages"),
        ("thp_64kB_nr_anon", MetricKind.GAUGE, "pages"),
        ("thp_64kB_anon_fault_declined", MetricKind.COUNTER, "count"),  # a stat of a kernel to come
        ("hugetlb_1048576kB_surplus_pages", MetricKind.GAUGE, "pages"),
        ("cgroup_dtlb_load_misses", MetricKind.COUNTER, "misses"),
        ("cgroup_cycles_time_enabled_seconds", MetricKind.COUNTER, "seconds"),
        ("pageblocks_cma", MetricKind.GAUGE, "pageblocks"),
        ("memory_used_bytes", MetricKind.GAUGE, "bytes"),
        ("thp_1048576kB_backed_bytes", MetricKind.GAUGE, "bytes"),
        ("dtlb_load_misses_coverage", MetricKind.COUNTER, "ratio"),
    ],
)
def test_kind_and_unit_of_a_name(name: str, kind: MetricKind, unit: str) -> None:
    assert (describe(name).kind, describe(name).unit) == (kind, unit)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("dtlb_load_mises", "dtlb_load_misses"),
        ("thp_2048kb_backed_bytes", "thp_2048kB_backed_bytes"),
        ("memory_used_byte", "memory_used_bytes"),
        ("nothing_of_the_kind_coverage", None),
        ("zzzzqqq", None),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, nearest: str | None) -> None:
    assert not is_known(wrong)
    with pytest.raises(KeyError, match=nearest or "docs/METRICS.md") as caught:
        describe(wrong)
    assert wrong in str(caught.value)


def test_derived_metrics_ask_only_for_metrics_that_exist() -> None:
    for metric in DERIVED.values():
        for name in metric.inputs:
            assert is_known(name), f"{metric.name} needs {name}"
    assert not set(DERIVED) & set(CATALOGUE)


def test_a_ratio_is_the_ratio_of_sums() -> None:
    per_kilo = DERIVED["dtlb_load_misses_per_kilo_instruction"]
    assert derive(per_kilo, {"dtlb_load_misses": 30.0, "instructions": 4000.0}) == 7.5


def test_a_derived_metric_without_its_inputs_is_unavailable_not_zero() -> None:
    per_kilo = DERIVED["dtlb_load_misses_per_kilo_instruction"]
    assert derive(per_kilo, {"instructions": 4000.0}) is None
    assert derive(per_kilo, {"dtlb_load_misses": 0.0, "instructions": 0.0}) is None


@pytest.mark.parametrize(
    ("name", "counts", "value", "unit"),
    [
        ("dtlb_load_walks_per_kilo_instruction", {"dtlb_load_walks": 30, "instructions": 4000}, 7.5, "walks"),
        ("dtlb_walks_1g_per_kilo_instruction", {"dtlb_walks_1g": 2, "instructions": 1000}, 2.0, "walks"),
        ("l2_tlb_misses_per_kilo_instruction", {"l2_tlb_misses": 1, "instructions": 100}, 10.0, "misses"),
        ("itlb_l2_hits_per_kilo_instruction", {"itlb_l2_hits": 1, "instructions": 100}, 10.0, "hits"),
        ("dtlb_load_walks_1g_share", {"dtlb_load_walks_1g": 3, "dtlb_load_walks": 12}, 0.25, "ratio"),
        ("dtlb_walks_coalesced_share", {"dtlb_walks_coalesced": 3, "dtlb_walks": 4}, 0.75, "ratio"),
        ("dtlb_store_walks_mean_cycles", {"dtlb_store_walks_pending": 90, "dtlb_store_walks": 3}, 30.0, "cycles per"),
        ("dtlb_store_walk_cycles_share", {"dtlb_store_walk_cycles": 1, "cycles": 10}, 0.1, "ratio"),
    ],
)
def test_what_walks_cost_is_derived_from_events_counted_beside_each_other(
    name: str, counts: dict[str, float], value: float, unit: str
) -> None:
    metric = find_derived(name)
    assert metric is not None
    assert set(metric.inputs) == set(counts)
    assert derive(metric, counts) == pytest.approx(value)
    assert metric.unit.startswith(unit)
    assert metric in derived_for(counts)
    asked = set(asked_events([name]))
    assert asked == set(counts)


def test_a_walks_time_is_its_cycles_times_what_a_cycle_took_of_the_time_that_was_not_idle() -> None:
    metric = find_derived("dtlb_load_walks_mean_nanoseconds")
    assert metric is not None
    # two CPUs at 2 GHz for 10 s, idle for half of it
    times = {"cycles_time_enabled_seconds": 20.0, "cpu_idle_seconds": 10.0, "cycles": 2e10}
    counts = {"dtlb_load_walks_pending": 3e6, "dtlb_load_walks": 1e5, **times}
    assert derive(metric, counts) == pytest.approx(30 * 0.5)
    assert derive(metric, counts | {"cycles": 0.0}) is None
    assert derive(metric, {name: count for name, count in counts.items() if name != "cpu_idle_seconds"}) is None
    assert set(asked_events([metric.name])) == {"dtlb_load_walks_pending", "dtlb_load_walks", "cycles"}
    assert metric in derived_for(counts)


@pytest.mark.parametrize("name", ["dtlb_walks_3k_share", "dtlb_load_walks_small_share", "dtlb_walks_share"])
def test_a_share_of_what_nobody_counts_is_no_metric(name: str) -> None:
    assert find_derived(name) is None


def test_no_two_derived_metrics_have_one_name() -> None:
    made = [metric.name for metric in derived_for(CATALOGUE)]
    assert len(made) == len(set(made))


def test_used_memory_is_total_less_available() -> None:
    levels = {"memory_total_bytes": 100.0, "memory_available_bytes": 30.0}
    assert derive(DERIVED["memory_used_bytes"], levels) == 70.0
    assert derive(DERIVED["memory_used_bytes"], {**levels, "per_cpu_free_bytes": 10.0}) == 60.0


def test_backed_bytes_are_pages_times_their_size() -> None:
    backed = find_derived("thp_1048576kB_backed_bytes")
    assert backed is not None
    assert derive(backed, {"thp_1048576kB_nr_anon": 68.0}) == 68 * 2**30


def test_what_can_be_derived_follows_from_what_was_read() -> None:
    names = {"thp_64kB_nr_anon", "thp_64kB_anon_fault_fallback", "memory_total_bytes", "memory_available_bytes"}
    assert [metric.name for metric in derived_for(names)] == ["memory_used_bytes", "thp_64kB_backed_bytes"]
    more = derived_for(
        {*names, "thp_64kB_anon_fault_alloc", "cycles_time_enabled_seconds", "cycles_time_running_seconds"}
    )
    assert {"thp_64kB_fallback_share", "cycles_coverage"} <= {metric.name for metric in more}
    for metric in more:
        assert is_known(metric.name)


def test_every_family_of_derived_metrics_makes_what_its_shape_says() -> None:
    for family in DERIVED_PATTERNS:
        made = family.make(family.example)
        assert isinstance(made, DerivedMetric)
        assert family.expression.fullmatch(made.name)
        assert find_derived(made.name) == made


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("pgscan_direct", CataloguePage.BASE),
        ("nr_page_table_pages", CataloguePage.BASE),
        ("buddyinfo_order9_free_blocks", CataloguePage.BASE),
        ("pageblocks_movable", CataloguePage.BASE),
        ("thp_fault_alloc", CataloguePage.HUGE),
        ("thp_split_pmd", CataloguePage.HUGE),
        ("cgroup_thp_fault_alloc", CataloguePage.HUGE),
        ("thp_524288kB_split", None),
        ("hugetlb_2048kB_free_pages", None),
        ("page_table_bytes", None),
        ("pgfault", None),
    ],
)
def test_a_metric_says_whether_its_pages_are_the_hosts_own(name: str, page: CataloguePage | None) -> None:
    assert describe(name).page is page
