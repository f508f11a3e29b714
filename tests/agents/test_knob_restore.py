"""Undo: from any state, after any crash, what was found is there again or is named as not restored."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.claim import HostClaim, take_claim
from agents.journal import Journal
from agents.knob_restore import differences, restore_knobs, shrinking_first
from agents.knobs import find_knob, write_knob
from agents.messages import Arm, KnobReason
from agents.sysroot import FolderRoot

HostTree = Callable[..., FolderRoot]
POOLS = "sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages"
KNOBS = {
    "thp/2048kB/enabled": ("always", "inherit", "madvise", "never"),
    "thp/enabled": ("always", "madvise", "never"),
    "hugetlb/2048kB/nr_hugepages": ("0", "3", "7"),
}
THP = "sys/kernel/mm/transparent_hugepage"
PATHS = dict(zip(KNOBS, (f"{THP}/hugepages-2048kB/enabled", f"{THP}/enabled", POOLS.format(2048)), strict=True))


class Linked(FolderRoot):
    """A kernel in which THP moves min_free_kbytes, as khugepaged does when it starts."""

    def write(self, path: str, value: bytes) -> None:
        super().write(path, value)
        if path.endswith("transparent_hugepage/enabled"):
            (self.root / "proc/sys/vm/min_free_kbytes").write_bytes(b"67584\n" if value != b"never" else b"11000\n")


class Busy(FolderRoot):
    """A kernel whose huge pages come free only at the n-th reading after they were asked back."""

    readings = 0

    def read(self, path: str) -> bytes:
        if path == POOLS.format(2048) and super().read(path).strip() == b"0":
            type(self).readings -= 1
            return b"4\n" if type(self).readings > 0 else b"0\n"
        return super().read(path)


class Recording(FolderRoot):
    """A kernel that remembers the order of writes."""

    order: list[str] = []

    def write(self, path: str, value: bytes) -> None:
        self.order.append(path)
        super().write(path, value)


class PowerCut(Exception):
    """The machine stops here."""


class Fragile(FolderRoot):
    """A host whose agent dies just before or just after the n-th write."""

    left = 0
    after = False

    def write(self, path: str, value: bytes) -> None:
        type(self).left -= 1
        if type(self).left == 0 and not self.after:
            raise PowerCut
        super().write(path, value)
        if type(self).left == 0:
            raise PowerCut


def test_every_knob_comes_back_and_says_so(host_tree: HostTree) -> None:
    root = host_tree()
    found = {"thp/enabled": "madvise", "thp/2048kB/enabled": "inherit", "thp/defrag": "madvise"}
    for name in ("thp/enabled", "thp/2048kB/enabled"):
        write_knob(root, find_knob(root, name), "never", KnobReason.APPLY)
    changes = {change.knob: change for change in restore_knobs(root, found, KnobReason.RESTORE)}
    assert set(changes) == set(found)
    assert all(change.ok for change in changes.values())
    assert changes["thp/enabled"].before == "never"
    assert changes["thp/defrag"].before == changes["thp/defrag"].after == "madvise"
    assert differences(root, found) == ()


def test_a_knob_that_another_one_moves_is_put_back_after_it(host_tree: HostTree) -> None:
    root = Linked(host_tree(files={"proc/sys/vm/min_free_kbytes": "50000"}).root)
    found = {"thp/enabled": "madvise", "sysctl/vm.min_free_kbytes": "50000"}
    write_knob(root, find_knob(root, "thp/enabled"), "never", KnobReason.APPLY)
    changes = restore_knobs(root, found, KnobReason.REVERT)
    assert [change.ok for change in changes] == [True, True]
    assert differences(root, found) == ()


def test_pages_that_are_still_being_freed_are_waited_for(host_tree: HostTree) -> None:
    root = Busy(host_tree(files={POOLS.format(2048): "4", "proc/sys/vm/compact_memory": ""}).root)
    Busy.readings = 6
    (change,) = restore_knobs(root, {"hugetlb/2048kB/nr_hugepages": "0"}, KnobReason.REVERT)
    assert (change.before, change.after, change.error) == ("4", "0", None)
    assert root.read("proc/sys/vm/compact_memory") == b"1"


def test_one_knob_that_will_not_come_back_does_not_keep_the_others(host_tree: HostTree) -> None:
    class Stubborn(FolderRoot):
        def write(self, path: str, value: bytes) -> None:
            if path.endswith("2048kB/enabled"):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            super().write(path, value)

    tree = host_tree()
    found = {"thp/enabled": "madvise", "thp/2048kB/enabled": "inherit", "thp/64kB/enabled": "never"}
    for name in found:
        write_knob(tree, find_knob(tree, name), "always", KnobReason.APPLY)
    changes = {
        change.knob: change
        for change in restore_knobs(Stubborn(tree.root), found, KnobReason.REVERT, timeout_seconds=0.1)
    }
    assert "refused" in (changes["thp/2048kB/enabled"].error or "")
    assert [drift.knob for drift in differences(tree, found)] == ["thp/2048kB/enabled"]


def test_a_knob_that_has_gone_is_an_error_of_its_own(host_tree: HostTree) -> None:
    root = host_tree()
    found = {"thp/enabled": "madvise", "thp/2048kB/enabled": "inherit"}
    (root.root / find_knob(root, "thp/2048kB/enabled").path).unlink()
    changes = {change.knob: change for change in restore_knobs(root, found, KnobReason.REVERT, timeout_seconds=0.0)}
    assert changes["thp/enabled"].ok
    assert "has no knob" in (changes["thp/2048kB/enabled"].error or "")


def test_somebody_who_keeps_writing_is_noticed(host_tree: HostTree) -> None:
    class Fought(FolderRoot):
        written = False

        def write(self, path: str, value: bytes) -> None:
            self.written = True

        def read(self, path: str) -> bytes:
            if path.endswith("transparent_hugepage/enabled"):
                # Right when it is read back, wrong by the time it is looked at again.
                self.written, right = False, self.written
                return b"madvise\n" if right else b"always\n"
            return super().read(path)

    root = Fought(host_tree().root)
    (change,) = restore_knobs(root, {"thp/enabled": "madvise"}, KnobReason.REVERT, timeout_seconds=0.05)
    assert change.error is not None


def test_pools_give_back_before_others_ask(host_tree: HostTree) -> None:
    root = Recording(host_tree(files={POOLS.format(2048): "8", POOLS.format(1048576): "0"}).root)
    wanted = [
        (find_knob(root, f"hugetlb/{size}kB/nr_hugepages"), count) for size, count in ((1048576, "2"), (2048, "0"))
    ]
    assert [knob.name for knob, _ in shrinking_first(root, wanted)] == [
        "hugetlb/2048kB/nr_hugepages",
        "hugetlb/1048576kB/nr_hugepages",
    ]
    Recording.order.clear()
    restore_knobs(root, {"hugetlb/2048kB/nr_hugepages": "0", "hugetlb/1048576kB/nr_hugepages": "2"}, KnobReason.REVERT)
    assert Recording.order == [POOLS.format(2048), POOLS.format(1048576)]


arms = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in KNOBS.items()})


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in KNOBS.items()}),
    sequence=st.lists(arms, min_size=1, max_size=5),
    crash=st.integers(min_value=1, max_value=12),
    after=st.booleans(),
)
def test_whatever_was_applied_and_wherever_it_crashed_undo_gives_the_original(
    tmp_path: Path, start: dict[str, str], sequence: list[dict[str, str]], crash: int, after: bool
) -> None:
    tree = FolderRoot(tmp_path)
    (tree.state_dir / "journal.jsonl").unlink(missing_ok=True)
    for path, text in (("proc/sys/kernel/random/boot_id", "b"), *((PATHS[name], start[name]) for name in KNOBS)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    root = Fragile(tree.root)
    Fragile.left, Fragile.after = crash, after
    claim: HostClaim | None = None
    try:
        claim = take_claim(root, run="r", owner="o", knobs=list(KNOBS), lease_seconds=60, guardian_command=())
        for number, knobs in enumerate(sequence):
            claim.apply(Arm(name=str(number), knobs=knobs))
            assert claim.drift() == ()
    except PowerCut:
        pass
    # The agent is gone. All that is left is the disk.
    journal = Journal.open(tree.state_dir)
    assert journal is not None
    assert all(change.ok for change in restore_knobs(tree, journal.header.found, KnobReason.GUARDIAN))
    assert differences(tree, start) == ()
    journal.leave()
    if claim is not None:
        claim.release()


def test_undo_needs_nothing_but_the_root_and_what_was_found(tmp_path: Path) -> None:
    (change,) = restore_knobs(FolderRoot(tmp_path), {"thp/enabled": "madvise"}, KnobReason.RESTORE, timeout_seconds=0.0)
    assert change.error is not None
