"""Options of workloads: what is taken, what is refused, and with which words."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from agents.errors import WorkloadError
from agents.messages import WorkloadSpec
from agents.workloads import metric_names
from agents.workloads.host_pages import Backing
from agents.workloads.kinds.command import Command
from agents.workloads.kinds.pointer_chase import PointerChase
from agents.workloads.kinds.service import Service
from agents.workloads.options import parse_options, read_options
from agents.workloads.process_thp import ProcessThp

GIB = 2**30


Given: TypeAlias = Any  # also what a spec must never hold


def spec(kind: str, **options: Given) -> WorkloadSpec:
    return WorkloadSpec(kind=kind, options=options)


def test_only_the_region_of_a_pointer_chase_must_be_given() -> None:
    assert read_options(spec("pointer_chase", region_bytes=GIB)) == PointerChase(
        region_bytes=GIB,
        dereferences=4_000_000,
        backing=Backing.ANONYMOUS,
        page_size_kib=0,
        repeats=0,
        pretouch=True,
        madvise=False,
        process_thp=ProcessThp.AS_FOUND,
        seed=0,
    )


def test_a_command_is_read_whole() -> None:
    read = read_options(
        spec("command", argv=("a", "b"), timeout_seconds=2, user="nobody", env=("A=1", "B=x=y"), capture="none")
    )
    assert read == Command(argv=("a", "b"), timeout_seconds=2.0, user="nobody", env=("A=1", "B=x=y"), capture=False)


def test_a_service_is_a_unit_or_a_cgroup() -> None:
    assert read_options(spec("service", unit="web@1.service", restart="on_apply")) == Service(
        unit="web@1.service", cgroup=None, restart=True
    )
    assert read_options(spec("service", cgroup="/a/b")) == Service(unit=None, cgroup="/a/b", restart=False)


@pytest.mark.parametrize(
    ("kind", "options", "where", "what"),
    [
        ("nonsense", {}, "workload", "no workload 'nonsense'"),
        ("pointer_chase", {}, "region_bytes", "missing"),
        ("pointer_chase", {"region_bytes": "1GiB"}, "region_bytes", "'1GiB' is not a whole number"),
        ("pointer_chase", {"region_bytes": True}, "region_bytes", "True is not a whole number"),
        ("pointer_chase", {"region_bytes": 64}, "region_bytes", "64 is not a whole number from 4096"),
        ("pointer_chase", {"region_bytes": 2**63}, "region_bytes", "is not a whole number"),
        ("pointer_chase", {"region_bytes": GIB, "dereferences": 0}, "dereferences", "0 is not"),
        ("pointer_chase", {"region_bytes": GIB, "backing": "disk"}, "backing", "'disk' is not possible"),
        ("pointer_chase", {"region_bytes": GIB, "pretouch": 1}, "pretouch", "neither true nor false"),
        ("pointer_chase", {"region_bytes": GIB, "page_size_kib": 3}, "page_size_kib", "not a page size"),
        ("pointer_chase", {"region_bytes": GIB, "sede": 1}, "sede", "no option 'sede'"),
        ("page_fault", {"region_bytes": 2**40, "page_size_kib": 4}, "region_bytes", "more than 100,000 pages"),
        ("page_fault", {"region_bytes": GIB, "backing": "hugetlb", "collapse": True}, "collapse", "big already"),
        ("page_fault", {"region_bytes": GIB, "page_size_kib": 2048, "fallback": True}, "fallback", "for hugetlb pages"),
        ("page_fault", {"region_bytes": GIB, "backing": "hugetlb", "fallback": True}, "fallback", "that is named"),
        ("page_fault", {"region_bytes": GIB, "process_thp": "off"}, "process_thp", "'off' is not possible"),
        ("acquire", {"pages": 1}, "page_size_kib", "missing"),
        ("acquire", {"pages": 0, "page_size_kib": 2048}, "pages", "0 is not"),
        ("command", {}, "argv", "missing"),
        ("command", {"argv": ()}, "argv", "no program"),
        ("command", {"argv": "ls -l"}, "argv", "not a list"),
        ("command", {"argv": ("a\0b",)}, "argv", "no program can be given"),
        ("command", {"argv": ("a", "\ud800")}, "argv", "no program can be given"),
        ("command", {"argv": ("a", "x" * 2**17)}, "argv", "a word of 131,072 bytes"),
        ("command", {"argv": ("a",), "env": ("A=\ud800",)}, "env", "no program can be given"),
        ("command", {"argv": ("a",), "env": ("=A=1",)}, "env", "not NAME=value"),
        ("command", {"argv": ("a",), "timeout_seconds": 0}, "timeout_seconds", "not a time above 0"),
        ("command", {"argv": ("a",), "timeout_seconds": float("nan")}, "timeout_seconds", "not a time above 0"),
        ("command", {"argv": ("a",), "env": ("NOVALUE",)}, "env", "not NAME=value"),
        ("command", {"argv": ("a",), "user": 0}, "user", "not a text"),
        ("service", {}, "unit", "one unit or one cgroup"),
        ("service", {"unit": "a.service", "cgroup": "/a"}, "unit", "one unit or one cgroup"),
        ("service", {"unit": "--force"}, "unit", "not a unit name"),
        ("service", {"cgroup": "/a/../b"}, "cgroup", "not a cgroup path"),
        ("service", {"cgroup": "/a", "restart": "on_apply"}, "restart", "only a unit"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name(kind: str, options: dict[str, Any], where: str, what: str) -> None:
    read, problems = parse_options(spec(kind, **options))
    assert read is None
    assert any(problem.where.endswith(where) and what in problem.what and problem.remedy for problem in problems)
    with pytest.raises(WorkloadError):
        read_options(spec(kind, **options))


def test_every_problem_is_found_at_once_and_the_nearest_name_is_told() -> None:
    _, problems = parse_options(spec("pointer_chase", region_bytes=-1, repeats="x", derefrences=3))
    assert [problem.where.rpartition(" ")[2] for problem in problems] == ["region_bytes", "repeats", "derefrences"]
    assert problems[-1].remedy == "did you mean dereferences?"


def test_what_each_kind_reports_is_known_beforehand() -> None:
    assert metric_names(spec("pointer_chase")) == (
        ("access_nanoseconds_per_dereference", "nanoseconds", "decrease"),
        ("access_seconds", "seconds", "decrease"),
        ("fault_seconds", "seconds", "decrease"),
    )
    assert [name for name, _, _ in metric_names(spec("page_fault"))] == [
        "fault_latency_seconds",
        "fault_seconds",
        "granted_share",
        "pages_asked",
        "pages_granted",
    ]
    assert ("pages_granted", "pages", "increase") in metric_names(spec("acquire"))
    assert metric_names(spec("command")) == ()
