"""Free pages that are not where one looks: on the CPUs' own lists, and in blocks large enough for a huge page.

Since Linux 5.13 a free PMD-sized page may wait on its CPU's list, which MemFree and MemAvailable leave out: of 512 MiB
each, memory seems used in steps of a page for each CPU. /proc/zoneinfo counts these lists, but has some lines for each
CPU, so it is read only where such pages would matter.
"""

from __future__ import annotations

import re

from agents.catalogue.metric import Metric, MetricKind
from agents.collectors.collector import Collector
from agents.collectors.notes import Notes, why
from agents.collectors.sources import ParsedFile, Source
from agents.numbers import whole_number
from agents.page_sizes import base_page_bytes, pmd_kib
from agents.perf.cpus import parse_numbers
from agents.sysroot import SysRoot

_PER_CPU = "per_cpu_free_bytes"
_IN_HUGE_BLOCKS = "free_huge_bytes"
_ZONEINFO = "proc/zoneinfo"
_MATTERS = 0.01  # share of all memory in one PMD-sized page for each CPU
_PAGESET = re.compile(rb"^ +count: +([0-9]+)$", re.MULTILINE)  # in base pages, whatever the size of the pages listed
_BUDDY = re.compile(r"buddyinfo_order(\d+)_free_blocks")


def _per_cpu_lists(root: SysRoot, notes: Notes) -> list[Source]:
    """Open what counts the CPUs' own lists where these can hold much of the memory; else note why it is not read."""
    page, huge = base_page_bytes(root), pmd_kib(root) * 1024
    try:
        cpus = len(parse_numbers(root.read("sys/devices/system/cpu/online")))
        total = next(line for line in root.read("proc/meminfo").splitlines() if line.startswith(b"MemTotal:"))
        memory = whole_number(total.split()[1]) * 1024
    except (OSError, ValueError, IndexError, StopIteration) as error:
        reason = why(error) if isinstance(error, OSError | ValueError) else "no MemTotal"
        notes.missing([_PER_CPU], f"what the CPUs' own lists can hold is not known: {reason}")
        return []
    if not page or cpus * huge < _MATTERS * memory:
        notes.missing([_PER_CPU], "a huge page on each CPU's own list would be less than 1 % of the memory")
        return []

    def parse(data: bytes, out: dict[str, float]) -> None:
        if not (counts := _PAGESET.findall(data)):
            raise ValueError("no count of a CPU's list")
        out[_PER_CPU] = float(sum(map(whole_number, counts)) * page)

    return [ParsedFile(root, _ZONEINFO, parse, (_PER_CPU,), notes)]


class _InHugeBlocks:
    """The free memory in blocks that hold a PMD-sized page, from readings with the blocks of every order."""

    paths = ()

    def __init__(self, root: SysRoot, notes: Notes) -> None:
        self._root = root
        self._notes = notes

    def collect(self, out: dict[str, float]) -> None:
        page, huge = base_page_bytes(self._root), pmd_kib(self._root) * 1024
        blocks = {int(match[1]): count for name, count in out.items() if (match := _BUDDY.fullmatch(name))}
        if not blocks or not 0 < page <= huge:
            reason = (
                "this host does not tell how large its huge pages are" if blocks else "/proc/buddyinfo was not read"
            )
            self._notes.missing([_IN_HUGE_BLOCKS], reason)
            return
        held = sum(count * page * 2.0**order for order, count in blocks.items() if page << order >= huge)
        out[_IN_HUGE_BLOCKS] = held

    def retry(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


PER_CPU_LISTS = Collector(
    metrics=(
        Metric(
            name=_PER_CPU,
            unit="bytes",
            kind=MetricKind.GAUGE,
            source="/proc/zoneinfo count",
            meaning="free memory on the CPUs' own lists, which free and available leave out; read where a PMD-sized "
            "page on each would be 1 % of all memory or more",
        ),
    ),
    open=_per_cpu_lists,
)
HUGE_BLOCKS = Collector(
    metrics=(
        Metric(
            name=_IN_HUGE_BLOCKS,
            unit="bytes",
            kind=MetricKind.GAUGE,
            source="/proc/buddyinfo, all zones",
            meaning="free memory in blocks that hold a PMD-sized huge page; little of it with much free memory: "
            "fragmented; read at period boundaries",
        ),
    ),
    open=lambda root, notes: [_InHugeBlocks(root, notes)],
    rare=True,
)
