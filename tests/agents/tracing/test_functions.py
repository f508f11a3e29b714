"""Which functions are traced on a kernel follows from its symbols; what can't be is typed, with a reason in words."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from agents.messages import KnobReason
from agents.sysroot import FolderRoot
from agents.traced_calls import Traced, TracedFunction
from agents.tracing.functions import NoTracing, Probe, find_probes
from agents.tracing.removal import _try_once, remove_tracing
from tests.agents.guardian.own_tree import OwnTree

ALL = tuple(Traced)
SYMBOLS = "split_huge_pmd_locked __split_huge_pmd __split_huge_pud_locked do_huge_pmd_anonymous_page "


def kernel(
    folder: Path, symbols: str, *, readme: str = "hist:keys=<field1>", files: str = "kprobe_events", big: bool = True
) -> OwnTree:
    """Make the files of a kernel that are looked at; `big`: it has 1 GiB pages."""
    if big:
        (folder / "sys/kernel/mm/transparent_hugepage/hugepages-1048576kB").mkdir(parents=True)
    tracing = folder / "sys/kernel/tracing"
    (tracing / "instances").mkdir(parents=True)
    for name in ("trace_clock", *files.split()):
        (tracing / name).write_text("")
    (tracing / "README").write_text(readme)
    (folder / "proc").mkdir()
    lines = [f"ffffffff81{number:06x} t {name}\n" for number, name in enumerate(symbols.split())]
    (folder / "proc/kallsyms").write_text("".join(lines))
    return OwnTree(folder)


def test_where_calls_that_split_nothing_are_many_the_entry_tells(tmp_path: Path) -> None:
    probes, missing = find_probes(kernel(tmp_path, SYMBOLS), [Traced.SPLITS], architecture="x86_64")
    assert probes == (
        Probe(
            function=TracedFunction.SPLIT_PMD,
            symbol="split_huge_pmd_locked",
            fetch="entry=+0($arg3):x64",
            condition="entry & 0x80",
        ),
        Probe(function=TracedFunction.SPLIT_PUD, symbol="__split_huge_pud_locked"),
    )
    assert missing == ()


def test_the_function_that_only_splits_is_preferred_and_needs_no_condition(tmp_path: Path) -> None:
    root = kernel(tmp_path, SYMBOLS + "__split_huge_pmd_locked")
    (first, _), _ = find_probes(root, [Traced.SPLITS], architecture="riscv64")
    assert first == Probe(function=TracedFunction.SPLIT_PMD, symbol="__split_huge_pmd_locked")


def test_on_an_architecture_without_a_rule_nothing_is_guessed(tmp_path: Path) -> None:
    _, (one,) = find_probes(kernel(tmp_path, SYMBOLS), [Traced.SPLITS], architecture="riscv64")
    assert (one.function, one.cause) == (TracedFunction.SPLIT_PMD, NoTracing.AMBIGUOUS)


def test_a_function_that_this_kernel_lacks_or_has_twice_is_named(tmp_path: Path) -> None:
    root = kernel(tmp_path, "__split_huge_pmd_locked do_huge_pmd_anonymous_page do_huge_pmd_anonymous_page")
    probes, missing = find_probes(root, ALL)
    assert [probe.function for probe in probes] == [TracedFunction.SPLIT_PMD]
    assert {one.function for one in missing} == set(TracedFunction) - {TracedFunction.SPLIT_PMD}
    assert {one.cause for one in missing} == {NoTracing.NO_FUNCTION}


def test_a_kernel_without_pages_of_a_size_misses_nothing_of_it(tmp_path: Path) -> None:
    root = kernel(tmp_path, "__split_huge_pmd_locked do_huge_pmd_anonymous_page", big=False)
    _, missing = find_probes(root, ALL)
    assert [one.function for one in missing] == [TracedFunction.CONTIGUOUS]


@pytest.mark.parametrize(
    ("files", "readme", "cause"),
    [
        ("", "hist:keys=", NoTracing.NO_KPROBES),
        ("kprobe_events", "tracing mini-HOWTO", NoTracing.NO_HISTOGRAMS),
    ],
)
def test_what_the_kernel_was_built_without_is_the_reason_for_all(
    tmp_path: Path, files: str, readme: str, cause: NoTracing
) -> None:
    probes, (one,) = find_probes(kernel(tmp_path, SYMBOLS, files=files, readme=readme), ALL)
    assert (probes, one.function, one.cause) == ((), None, cause)


def test_without_tracefs_nothing_is_traced(tmp_path: Path) -> None:
    assert [one.cause for one in find_probes(OwnTree(tmp_path), ALL)[1]] == [NoTracing.NO_TRACEFS]


class Closed(OwnTree):
    """A machine whose tracefs only root may look into."""

    def exists(self, path: str) -> bool:
        if path.startswith("sys/kernel/tracing/"):
            raise PermissionError(13, "Permission denied", path)
        return super().exists(path)


def test_where_tracefs_is_closed_to_this_user_that_is_the_reason(tmp_path: Path) -> None:
    root = Closed(kernel(tmp_path, SYMBOLS).root)
    assert [one.cause for one in find_probes(root, ALL)[1]] == [NoTracing.NOT_PERMITTED]
    assert remove_tracing(root, "0123456789ab", KnobReason.RESTORE) == ()


def test_a_claim_that_no_agent_made_names_nothing_to_remove(tmp_path: Path) -> None:
    root = kernel(tmp_path, SYMBOLS)
    for claim in ("../instances", "A-1", "x" * 80, ""):
        assert remove_tracing(root, claim, KnobReason.RESTORE) == ()


@pytest.mark.parametrize("last_listing", range(4))
def test_an_instance_that_somebody_else_removes_meanwhile_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_listing: int
) -> None:
    """An agent that closes its tracing and the guardian that undoes its claim may do it at once."""
    instance = tmp_path / "instances/fleetexp_c1"
    for event in ("fleetexp_c1/splits", "synthetic/fleetexp_c1_splits"):
        (instance / "events" / event).mkdir(parents=True)
        (instance / "events" / event / "trigger").touch()
    listings, really = 0, os.scandir

    def after_the_other(folder: Path) -> Any:  # noqa: ANN401 - an iterator that has no name
        nonlocal listings
        if (listings := listings + 1) > last_listing and instance.exists():
            monkeypatch.undo()
            shutil.rmtree(instance)
        return really(folder)

    monkeypatch.setattr(os, "scandir", after_the_other)
    _try_once(tmp_path, "fleetexp_c1")
    assert not instance.exists()


def test_a_tree_has_no_kernel_to_trace(tmp_path: Path) -> None:
    root = FolderRoot(kernel(tmp_path, SYMBOLS).root)
    assert [one.cause for one in find_probes(root, ALL)[1]] == [NoTracing.NOT_REAL]


def test_nothing_is_looked_for_where_nothing_is_asked(tmp_path: Path) -> None:
    assert find_probes(FolderRoot(tmp_path), []) == ((), ())
