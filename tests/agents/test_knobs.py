"""Knobs: what exists is listed, a write is verified, and each failure says what, where and the remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import KnobError, KnobMismatch, KnobNotWritable, KnobRefused, UnknownKnob
from agents.knobs import check_value, current_value, effective_thp, find_knob, find_knobs, read_knob, write_knob
from agents.messages import KnobReason
from agents.sysroot import FolderRoot

HostTree = Callable[..., FolderRoot]
THP = "sys/kernel/mm/transparent_hugepage"
THP_2M = "thp/2048kB/enabled"
POOL_1G = "hugetlb/1048576kB/nr_hugepages"


class Failing(FolderRoot):
    """A kernel that answers every write with one errno."""

    def __init__(self, root: Path, number: int) -> None:
        super().__init__(root)
        self.number = number

    def write(self, path: str, value: bytes) -> None:
        raise OSError(self.number, os.strerror(self.number))


class Granting(FolderRoot):
    """A kernel that grants at most two huge pages, and gives back at most down to one that is in use."""

    def write(self, path: str, value: bytes) -> None:
        super().write(path, str(max(1, min(2, int(value)))).encode() if path.endswith("/nr_hugepages") else value)


class Deaf(FolderRoot):
    """A kernel that takes every write and changes nothing."""

    def write(self, path: str, value: bytes) -> None:
        pass


def test_what_a_host_lists_is_found_by_a_name_that_no_spec_could_spell(host_tree: HostTree) -> None:
    root = host_tree(files={f"{THP}/khugepaged/Max-New": "1"})
    assert find_knob(root, "thp/khugepaged/Max-New").path == f"{THP}/khugepaged/Max-New"


def test_lists_the_sizes_this_kernel_has_and_no_others(host_tree: HostTree) -> None:
    names = {knob.name for knob in find_knobs(host_tree(thp_sizes_kib=(2048, 524288), hugetlb_kib=(524288,)))}
    assert "thp/524288kB/enabled" in names
    assert "hugetlb/524288kB/nr_hugepages" in names
    assert not any("1048576kB" in name for name in names)


def test_sizes_that_no_kernel_gives_are_none_of_a_hosts(host_tree: HostTree) -> None:
    root = host_tree(thp_sizes_kib=(2048,))
    for size in range(3000, 3100):
        made = root.root / f"sys/kernel/mm/transparent_hugepage/hugepages-{size}kB"
        made.mkdir()
        (made / "enabled").write_text("always [never]")
    sizes = {knob.name.split("/")[1] for knob in find_knobs(root) if knob.name.startswith("thp/") and "kB" in knob.name}
    assert sizes == {"2048kB"}


def test_lists_knobs_of_every_kind_and_nothing_that_only_counts(host_tree: HostTree) -> None:
    root = host_tree(nodes=2, gigantic=True)
    names = [knob.name for knob in find_knobs(root)]
    for name in (
        "thp/enabled",
        "thp/defrag",
        "thp/shrink_underused",
        "thp/use_zero_page",
        "thp/1048576kB/enabled",
        "thp/2048kB/shmem_enabled",
        "thp/khugepaged/max_ptes_none",
        POOL_1G,
        "hugetlb/2048kB/nr_overcommit_hugepages",
        "hugetlb/node1/1048576kB/nr_hugepages",
        "sysctl/vm.compaction_proactiveness",
        "sysctl/kernel.numa_balancing",
    ):
        assert name in names
    assert not {"thp/khugepaged/full_scans", "thp/khugepaged/pages_collapsed"} & set(names)
    assert len(names) == len(set(names))
    assert all(root.exists(knob.path) for knob in find_knobs(root))


def test_an_empty_host_has_no_knobs(tmp_path: Path) -> None:
    assert find_knobs(FolderRoot(tmp_path)) == ()


def test_unknown_knob_names_the_nearest_and_the_sizes(host_tree: HostTree) -> None:
    with pytest.raises(UnknownKnob) as caught:
        find_knob(host_tree(), "thp/1048576kB/enabled")
    assert "16kB, 64kB, 1024kB, 2048kB" in caught.value.remedy
    with pytest.raises(UnknownKnob, match="did you mean 'thp/defrag'"):
        find_knob(host_tree(name="other"), "thp/defragg")
    with pytest.raises(UnknownKnob, match="transparent huge page sizes of this kernel: none"):
        find_knob(host_tree(name="none", thp_sizes_kib=(), files={f"{THP}/enabled": None}), "thp/2048kB/enabled")
    with pytest.raises(UnknownKnob, match="hugetlb huge page sizes of this kernel: 2048kB, 1048576kB"):
        find_knob(host_tree(name="third"), "hugetlb/512kB/nr_hugepages")
    with pytest.raises(UnknownKnob, match="doctor"):
        find_knob(host_tree(name="fourth"), "@@@")


@pytest.mark.parametrize("name", ["enabled", "shmem_enabled"])
def test_before_6_8_the_hint_is_the_knob_at_the_top(host_tree: HostTree, name: str) -> None:
    with pytest.raises(UnknownKnob, match=rf"6\.8; this kernel has one size, 2048kB: write thp/{name}$"):
        find_knob(host_tree(thp_sizes_kib=()), f"thp/2048kB/{name}")


def test_the_bracketed_word_is_what_is_set_and_the_words_are_the_choices(host_tree: HostTree) -> None:
    root = host_tree()
    knob = find_knob(root, "thp/defrag")
    assert knob.choices == ("always", "defer", "defer+madvise", "madvise", "never")
    assert read_knob(root, knob) == "madvise"


def test_a_bare_word_reads_like_a_bracketed_one_and_keeps_its_choices(host_tree: HostTree) -> None:
    root = host_tree()
    write_knob(root, find_knob(root, THP_2M), "always", KnobReason.APPLY)
    knob = find_knob(root, THP_2M)
    assert (read_knob(root, knob), knob.choices) == ("always", ("always", "inherit", "madvise", "never"))


def test_choices_come_from_the_kernel_where_it_says_them(host_tree: HostTree) -> None:
    path = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
    root = host_tree(files={path: "always [inherit] never sometimes"})
    knob = find_knob(root, THP_2M)
    assert check_value(knob, "sometimes") is None
    assert "this kernel knows always, inherit, never, sometimes" in (check_value(knob, "madvise") or "")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (THP_2M, "on", "this kernel knows"),
        (THP_2M, "", "this kernel knows"),
        (POOL_1G, "-1", "whole number"),
        (POOL_1G, "4.0", "whole number"),
        (POOL_1G, "04", "whole number"),
        (POOL_1G, "four", "whole number"),
        ("thp/shrink_underused", "2", "at most 1"),
        ("sysctl/vm.swappiness", "201", "at most 200"),
        (POOL_1G, "4", None),
        ("thp/shrink_underused", "0", None),
        (THP_2M, "never", None),
    ],
)
def test_values_are_checked_before_the_kernel_sees_them(
    host_tree: HostTree, name: str, value: str, problem: str | None
) -> None:
    root = host_tree()
    knob = find_knob(root, name)
    said = check_value(knob, value)
    assert said is None if problem is None else problem in (said or "")
    if problem is not None:
        before = root.read(knob.path)
        with pytest.raises(KnobRefused, match=problem):
            write_knob(root, knob, value, KnobReason.APPLY)
        assert root.read(knob.path) == before


def test_a_write_is_read_back_and_says_what_was_there(host_tree: HostTree) -> None:
    root = host_tree()
    change = write_knob(root, find_knob(root, THP_2M), "never", KnobReason.APPLY)
    assert (change.before, change.wanted, change.after, change.ok) == ("inherit", "never", "never", True)
    assert change.changed_at.tzinfo is not None


def test_what_already_holds_is_not_written_and_recorded_all_the_same(host_tree: HostTree) -> None:
    root = host_tree()
    silent = Failing(root.root, errno.EIO)
    change = write_knob(silent, find_knob(silent, THP_2M), "inherit", KnobReason.APPLY)
    assert (change.before, change.after, change.ok) == ("inherit", "inherit", True)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EINVAL, KnobRefused),
        (errno.ENOMEM, KnobRefused),
        (errno.EACCES, KnobNotWritable),
        (errno.EPERM, KnobNotWritable),
        (errno.EROFS, KnobNotWritable),
        (errno.ENOENT, UnknownKnob),
    ],
)
def test_each_refusal_of_the_kernel_has_its_error_with_place_and_remedy(
    host_tree: HostTree, number: int, error: type[KnobError]
) -> None:
    root = Failing(host_tree().root, number)
    with pytest.raises(error) as caught:
        write_knob(root, find_knob(root, THP_2M), "always", KnobReason.APPLY)
    assert type(caught.value) is error
    assert caught.value.where.endswith("hugepages-2048kB/enabled")
    assert caught.value.remedy


def test_a_write_that_does_not_hold_is_a_mismatch(host_tree: HostTree) -> None:
    root = Deaf(host_tree().root)
    with pytest.raises(KnobMismatch, match="was set to 'always' and reads 'inherit'"):
        write_knob(root, find_knob(root, THP_2M), "always", KnobReason.APPLY)


def test_a_partial_grant_of_pages_is_named_as_such(host_tree: HostTree) -> None:
    root = Granting(host_tree().root)
    knob = find_knob(root, POOL_1G)
    with pytest.raises(KnobMismatch, match="granted 2 of 4 pages"):
        write_knob(root, knob, "4", KnobReason.APPLY)
    with pytest.raises(KnobMismatch, match="still holds 1: the rest are in use"):
        write_knob(root, knob, "0", KnobReason.REVERT)


def test_a_knob_that_has_gone_or_cannot_be_read_is_an_error_that_says_so(host_tree: HostTree) -> None:
    root = host_tree()
    knob = find_knob(root, THP_2M)
    (root.root / knob.path).unlink()
    with pytest.raises(UnknownKnob, match="is gone"):
        read_knob(root, knob)
    (root.root / knob.path).mkdir()
    with pytest.raises(KnobError, match="can't be read"):
        read_knob(root, knob)
    with pytest.raises(KnobError, match="can't be read"):
        find_knob(root, THP_2M)


def test_the_effective_state_resolves_inherit_and_only_that(host_tree: HostTree) -> None:
    root = host_tree(gigantic=True)
    assert effective_thp(root, 2048) == "madvise"
    write_knob(root, find_knob(root, "thp/enabled"), "never", KnobReason.APPLY)
    write_knob(root, find_knob(root, "thp/1048576kB/enabled"), "always", KnobReason.APPLY)
    assert effective_thp(root, 2048) == "never"
    assert effective_thp(root, 1048576) == "always"  # allocates although the top level is off
    with pytest.raises(UnknownKnob):
        effective_thp(root, 4)


words = st.text(alphabet="abcdefghijklmnopqrstuvwxyz+_0123456789", min_size=1, max_size=12)


@given(st.lists(words, min_size=1, max_size=6, unique=True), st.data())
def test_the_chosen_word_is_found_wherever_it_stands(choices: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(choices))
    text = " ".join(f"[{word}]" if word == chosen else word for word in choices)
    assert current_value(text + "\n") == chosen
    assert current_value(chosen + "\n") == chosen


def test_numbers_of_thousands_of_digits_are_refused_like_others(host_tree: HostTree) -> None:
    many = "9" * 10_000
    root = host_tree(files={"proc/sys/vm/swappiness": many})
    knob = find_knob(root, "sysctl/vm.swappiness")
    assert read_knob(root, knob) == many
    pool = find_knob(root, "hugetlb/2048kB/nr_hugepages")
    bounded = [known for known in find_knobs(root) if known.highest is not None]
    assert bounded
    assert all("is too large" in (check_value(known, many) or "") for known in bounded)
    (root.root / pool.path).write_text(many)
    assert write_knob(root, pool, "3", KnobReason.APPLY).before == many
