"""Parsers of the kernel's tables, on texts taken from kernels."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.collectors.parsers import (
    KeyedTable,
    Pressure,
    more_than_there_is,
    parse_buddyinfo,
    parse_pagetypeinfo,
    parse_uptime,
)
from agents.numbers import implausible, whole_number


def read(table: KeyedTable, text: str) -> dict[str, float]:
    out: dict[str, float] = {}
    table(text.encode(), out)
    return out


def test_only_what_is_wanted_is_taken_under_its_metric_name() -> None:
    table = KeyedTable({"oom_kill": "oom_kills", "pgfault": "pgfault"})
    assert read(table, "nr_free 7\npgfault 12\noom_kill 3\nlast 1\n") == {"pgfault": 12.0, "oom_kills": 3.0}


def test_meminfo_is_in_bytes_also_beside_lines_without_a_unit() -> None:
    table = KeyedTable({"MemTotal": "total", "Hugetlb": "hugetlb"}, scale=1024.0, ending=":")
    text = "MemTotal:  24684092 kB\nHugePages_Total:  0\nHugetlb:   2048 kB\nDirectMap1G: 1 kB\n"
    assert read(table, text) == {"total": 24684092 * 1024.0, "hugetlb": 2048 * 1024.0}


def test_a_table_that_changes_its_shape_is_read_right() -> None:
    table = KeyedTable({"a": "a", "b": "b", "c": "c"})
    assert read(table, "a 1\nb 2\n") == {"a": 1.0, "b": 2.0}
    assert read(table, "b 2\na 1\n") == {"a": 1.0, "b": 2.0}, "same length, other order"
    assert read(table, "x 0\na 5\nb 6\nc 7\n") == {"a": 5.0, "b": 6.0, "c": 7.0}
    assert read(table, "c 9\n") == {"c": 9.0}
    assert read(table, "") == {}
    assert read(table, "a 1\n") == {"a": 1.0}


def test_values_that_stay_rise_or_go_back_are_those_of_the_text_each_time() -> None:
    table = KeyedTable({"a": "a", "b": "b", "c": "c"}, scale=1024.0)
    for a, b, c in ((1, 7, 0), (2, 7, 0), (2, 3, 0), (2, 3, 0), (900, 0, 5), (1, 7, 0)):
        found = read(table, f"a {a} kB\nb {b}\nc  {c} kB\n")
        assert found == {"a": a * 1024.0, "b": b * 1024.0, "c": c * 1024.0}
        found["a"] = -1.0  # what a caller does with its reading is not seen by the next one


def test_of_a_key_that_stands_there_twice_the_last_line_counts() -> None:
    table = KeyedTable({"a": "a", "b": "b"})
    assert read(table, "a 1\nb 2\na 3\n") == {"a": 3.0, "b": 2.0}
    assert read(table, "a 4\nb 2\na 3\n") == {"a": 3.0, "b": 2.0}
    assert read(table, "a 4\nb 2\na 5\n") == {"a": 5.0, "b": 2.0}


def test_a_key_without_a_value_is_left_out() -> None:
    assert read(KeyedTable({"a": "a", "b": "b"}), "a 1\nb") == {"a": 1.0}


@pytest.mark.parametrize("text", ["a one\n", "a 1.5\n", "a -\n"])
def test_a_value_that_is_no_whole_number_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no whole number"):
        read(KeyedTable({"a": "a"}), text)


def test_a_table_without_end_is_an_error_in_few_words() -> None:
    with pytest.raises(ValueError, match="a table of 3,001 lines"):
        read(KeyedTable({"a": "a"}), "a 1\n" * 3000)


def test_after_a_table_that_is_not_understood_the_next_one_is_read_right() -> None:
    table = KeyedTable({"a": "a", "b": "b"})
    assert read(table, "a 1\nb 2\n") == {"a": 1.0, "b": 2.0}
    with pytest.raises(ValueError, match="no whole number"):
        read(table, "b 3\na one\n")
    assert read(table, "a 4\nb 5\n") == {"a": 4.0, "b": 5.0}


keys = st.text("abcdefgh_", min_size=1, max_size=6)


@given(st.sets(keys, min_size=1, max_size=12), st.sets(keys), st.integers(1, 12), st.data())
def test_lines_in_any_order_and_any_number_read_as_a_plain_parse_would(
    lines: set[str], wanted: set[str], steps: int, data: st.DataObject
) -> None:
    parse = KeyedTable({key: key for key in wanted})
    for _ in range(steps):
        shown = data.draw(st.permutations(sorted(lines)))[: data.draw(st.sampled_from([len(lines), 0]))]
        table = {key: data.draw(st.integers(0, 2**63)) for key in shown}
        text = "".join(f"{key} {value}\n" for key, value in table.items())
        assert read(parse, text) == {key: float(value) for key, value in table.items() if key in wanted}


def test_pressure_totals_are_seconds() -> None:
    out: dict[str, float] = {}
    Pressure("psi_memory")(
        b"some avg10=12.08 avg60=5.25 avg300=2.34 total=26856799\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500\n",
        out,
    )
    assert out == pytest.approx({"psi_memory_some_seconds": 26.856799, "psi_memory_full_seconds": 0.0005})


@pytest.mark.parametrize("total", [2**64 - 3, 10**19, -5])
def test_a_total_that_lost_its_sign_is_no_pressure(total: int) -> None:
    with pytest.raises(ValueError, match="total"):
        Pressure("psi")(f"some avg10=0.00 total=5\nfull avg10=0.00 total={total}\n".encode(), {})


def test_idle_time_of_all_cpus_stands_second() -> None:
    out: dict[str, float] = {}
    parse_uptime(b"2130.89 4065.91\n", out)
    assert out == {"cpu_idle_seconds": 4065.91}


@pytest.mark.parametrize("text", [b"", b"1.0", b"soon", b"1.0 -2.0", b"1.0 nan", b"1.0 " + b"9" * 40 + b".0"])
def test_an_uptime_that_is_not_understood_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="no times since boot"):
        parse_uptime(text, {})


def test_pressure_lines_that_were_not_asked_for_are_left_out() -> None:
    out: dict[str, float] = {}
    Pressure("psi_cpu", ("some",))(b"some avg10=0.00 total=1000000\nfull avg10=0.00 total=0\n", out)
    assert out == {"psi_cpu_some_seconds": 1.0}


@pytest.mark.parametrize("text", [b"some avg10=0.00\n", b"garbage\n", b"some total=x\n"])
def test_pressure_that_is_not_understood_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"total|whole number"):
        Pressure("psi")(text, {})


def test_free_blocks_are_summed_over_nodes_and_zones() -> None:
    out: dict[str, float] = {}
    parse_buddyinfo(
        b"Node 0, zone      DMA      0      1      3 \nNode 0, zone   Normal   2687   1960    262 \n"
        b"Node 1, zone   Normal      1      1      1 \n",
        out,
    )
    assert out == {
        "buddyinfo_order0_free_blocks": 2688.0,
        "buddyinfo_order1_free_blocks": 1962.0,
        "buddyinfo_order2_free_blocks": 266.0,
    }


def test_pageblocks_are_summed_by_migrate_type() -> None:
    out: dict[str, float] = {}
    parse_pagetypeinfo(
        b"""Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2
Node    0, zone      DMA, type    Unmovable      0      0      1
Node    0, zone   Normal, type      Movable   >100000  956    475

Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic          CMA      Isolate
Node 0, zone      DMA            1            7            0            0            0            0
Node 0, zone   Normal          141          848           99            0            4            0
""",
        out,
    )
    assert out == {
        "pageblocks_unmovable": 142.0,
        "pageblocks_movable": 855.0,
        "pageblocks_reclaimable": 99.0,
        "pageblocks_highatomic": 0.0,
        "pageblocks_cma": 4.0,
        "pageblocks_isolate": 0.0,
    }


NODE = """Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1
Node    {node}, zone   Normal, type    Unmovable      0      1
Node    {node}, zone   Normal, type      Movable      5      6

Number of blocks type     Unmovable      Movable
Node {node}, zone   Normal           10          {movable}
"""
MIXED = """
Number of mixed blocks    Unmovable      Movable
Node {node}, zone   Normal            7           50
"""


def test_the_whole_text_comes_again_for_each_node_and_is_summed() -> None:
    out: dict[str, float] = {}
    text = NODE.format(node=0, movable=100) + NODE.format(node=1, movable=20) + NODE.format(node=8, movable=3)
    parse_pagetypeinfo(text.encode(), out)
    assert out == {"pageblocks_unmovable": 30.0, "pageblocks_movable": 123.0}


def test_mixed_blocks_of_page_owner_are_not_counted_again() -> None:
    out: dict[str, float] = {}
    text = "".join(NODE.format(node=node, movable=100) + MIXED.format(node=node) for node in (0, 1))
    parse_pagetypeinfo(text.encode(), out)
    assert out == {"pageblocks_unmovable": 20.0, "pageblocks_movable": 200.0}


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        (f"a {'9' * 10_000}\nb 2\n", math.inf),
        (f"a {'9' * 400}\nb 2\n", math.inf),
        (f"a {2**64 - 5}\nb 2\n", float(2**64 - 5)),
        ("a -7\nb 2\n", -7.0),
    ],
)
def test_a_number_that_can_not_be_true_stands_as_it_is_for_whoever_doubts_it(table: str, wanted: float) -> None:
    found = read(KeyedTable({"a": "a", "b": "b"}), table)
    assert found == {"a": wanted, "b": 2.0}
    assert implausible(found).keys() == {"a"}


def test_levels_above_all_memory_can_not_be_true() -> None:
    levels = {"memory_total_bytes": 100.0, "memory_available_bytes": 1500.0, "anon_bytes": 100.0, "slab_bytes": 200.0}
    assert more_than_there_is(levels) == {"memory_available_bytes": "more than MemTotal: this kernel has lost count"}
    assert more_than_there_is({"memory_available_bytes": 5.0}) == {}
    assert more_than_there_is({"memory_total_bytes": -1.0, "anon_bytes": 5.0}).keys() == {"memory_total_bytes"}


@pytest.mark.parametrize(
    "text", [b"", b"x", b"-1", b"1.5", b"\xb2", b"1_0", b"9" * 21, b"9" * 10_000, str(2**63).encode(), b"1 2"]
)
def test_what_is_no_whole_number_of_a_kernel_is_refused_in_few_words(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        whole_number(text)
    assert len(str(caught.value)) < 120


def test_a_whole_number_may_have_blanks_around_it() -> None:
    assert whole_number(b" 12\n") == 12
    assert whole_number(str(2**63 - 1).encode()) == 2**63 - 1


@pytest.mark.parametrize("parse", [parse_buddyinfo, parse_pagetypeinfo])
def test_a_fragmentation_table_of_another_shape_is_an_error(parse: object) -> None:
    with pytest.raises(ValueError, match=r"buddyinfo|pageblocks"):
        parse(b"something else\n", {})  # type: ignore[operator]
