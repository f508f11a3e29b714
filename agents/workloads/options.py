"""The options of each kind of workload: read from a spec, checked, in base units."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from agents.errors import WorkloadError
from agents.messages import Problem, Severity, WorkloadSpec
from agents.workloads.fields import Fields

KIB = 1024
PAGES_AT_MOST = 100_000  # of page_fault: each fault is a measurement of its own
UNIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.\\@-]*\.(service|scope|slice)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\0]*", re.DOTALL)


class Backing(StrEnum):
    """Where the memory of a workload comes from."""

    ANONYMOUS = "anonymous"
    HUGETLB = "hugetlb"


@dataclass(frozen=True, slots=True, kw_only=True)
class PointerChase:
    """Random dependent dereferences in a region, after faulting it in."""

    region_bytes: int
    dereferences: int
    backing: Backing
    page_size_kib: int  # 0: the largest that is enabled when it starts
    repeats: int  # 0: until stopped
    pretouch: bool
    madvise: bool
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFault:
    """The latency of each first touch of a big page over a region."""

    region_bytes: int
    backing: Backing
    page_size_kib: int  # 0: the largest that is enabled when it starts
    repeats: int  # passes over the region; 0: until stopped
    pretouch: bool
    madvise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquire:
    """Ask for big pages, count what is granted, give them back."""

    pages: int
    page_size_kib: int
    backing: Backing
    repeats: int  # 0: until stopped
    madvise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program of the user's own; never a shell."""

    argv: tuple[str, ...]
    timeout_seconds: float | None
    user: str | None
    env: tuple[str, ...]  # NAME=value, added to a small clean environment
    capture: bool  # whether stdout is read as measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A systemd unit or a cgroup that runs anyway."""

    unit: str | None
    cgroup: str | None
    restart: bool


Memory: TypeAlias = PointerChase | PageFault | Acquire
Options: TypeAlias = Memory | Command | Service


def parse_options(spec: WorkloadSpec) -> tuple[Options | None, tuple[Problem, ...]]:
    """Return the options, or None and every problem with them."""
    reader = _READERS.get(spec.kind)
    if reader is None:
        problem = Problem(
            severity=Severity.ERROR,
            what=f"there is no workload {spec.kind!r}",
            where="workload",
            remedy=f"choose one of {', '.join(_READERS)}",
        )
        return None, (problem,)
    fields = Fields(spec)
    options = reader(fields)
    problems = fields.finish()
    return (None, problems) if problems else (options, ())


def read_options(spec: WorkloadSpec) -> Options:
    """Return the options; WorkloadError with the first problem where there is one."""
    options, problems = parse_options(spec)
    if options is None:
        raise WorkloadError(problems[0].what, where=problems[0].where, remedy=problems[0].remedy)
    return options


def _pointer_chase(fields: Fields) -> PointerChase:
    return PointerChase(
        region_bytes=_region(fields),
        dereferences=fields.count("dereferences", default=4_000_000, least=1),
        backing=_backing(fields),
        page_size_kib=_page_size(fields),
        repeats=fields.count("repeats", default=0),
        pretouch=fields.flag("pretouch", default=True),
        madvise=fields.flag("madvise", default=False),
        seed=fields.count("seed", default=0),
    )


def _page_fault(fields: Fields) -> PageFault:
    options = PageFault(
        region_bytes=_region(fields),
        backing=_backing(fields),
        page_size_kib=_page_size(fields),
        repeats=fields.count("repeats", default=1),
        pretouch=fields.flag("pretouch", default=True),
        madvise=fields.flag("madvise", default=False),
    )
    if options.page_size_kib and options.region_bytes > options.page_size_kib * KIB * PAGES_AT_MOST:
        fields.refuse(
            "region_bytes",
            f"more than {PAGES_AT_MOST:,} pages of {options.page_size_kib} KiB, each a measurement of its own",
            "choose a smaller region or a bigger page size",
        )
    return options


def _acquire(fields: Fields) -> Acquire:
    return Acquire(
        pages=fields.count("pages", least=1),
        page_size_kib=_page_size(fields, least=4),
        backing=_backing(fields),
        repeats=fields.count("repeats", default=1),
        madvise=fields.flag("madvise", default=False),
    )


def _command(fields: Fields) -> Command:
    argv = fields.words("argv")
    if not argv or not argv[0]:
        fields.refuse("argv", "no program is named", "give the program and its arguments, one word each")
    timeout = fields.seconds("timeout_seconds")
    env = fields.words("env", default=())
    for entry in env:
        if not _VARIABLE.fullmatch(entry):
            fields.refuse("env", f"{entry!r} is not NAME=value", "write each variable as NAME=value")
    return Command(
        argv=argv,
        timeout_seconds=timeout,
        user=fields.word("user"),
        env=env,
        capture=fields.word("capture", default="metrics", choices=("metrics", "none")) == "metrics",
    )


def _service(fields: Fields) -> Service:
    unit, cgroup = fields.word("unit"), fields.word("cgroup")
    if (unit is None) == (cgroup is None):
        fields.refuse("unit", "a service is one unit or one cgroup", "give exactly one of unit and cgroup")
    if unit is not None and not UNIT.fullmatch(unit):
        fields.refuse("unit", f"{unit!r} is no unit name", "write it as systemctl shows it, such as web.service")
    if cgroup is not None and (not cgroup.startswith("/") or ".." in cgroup.split("/") or not cgroup.strip("/")):
        fields.refuse("cgroup", f"{cgroup!r} is no cgroup path", "write a path such as /system.slice/web.service")
    restart = fields.word("restart", default="never", choices=("on_apply", "never")) == "on_apply"
    if restart and unit is None:
        fields.refuse("restart", "only a unit can be restarted", "name the unit, or set restart to never")
    return Service(unit=unit, cgroup=cgroup, restart=restart)


def _region(fields: Fields) -> int:
    return fields.count("region_bytes", least=4 * KIB)


def _backing(fields: Fields) -> Backing:
    return Backing(fields.word("backing", default=Backing.ANONYMOUS, choices=tuple(Backing)) or Backing.ANONYMOUS)


def _page_size(fields: Fields, least: int = 0) -> int:
    size = fields.count("page_size_kib", default=None if least else 0, least=least)
    if size and (size < 4 or size & (size - 1)):
        fields.refuse("page_size_kib", f"{size} KiB is no page size", "choose a power of two, 4 or more")
        return 0
    return size


_READERS: Mapping[str, Callable[[Fields], Options]] = {
    "pointer_chase": _pointer_chase,
    "page_fault": _page_fault,
    "acquire": _acquire,
    "command": _command,
    "service": _service,
}
