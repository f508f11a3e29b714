"""The kernel settings that can be written, one entry for each family of them: its names, files and legal values.

Specs, hosts and the simulated kernel all know knobs by this table. To add a sysctl, or another setting beside one that
is here, add its file to the family's; to add a family, add an entry. What exists on a host is listed from the host.

Sources: Documentation/admin-guide/mm/transhuge.rst, hugetlbpage.rst and sysctl/{vm,kernel}.rst of the Linux kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from agents.page_sizes import HUGETLB, THP, sizes_in
from agents.sysroot import SysRoot

# The words that a file can hold (its text says so too, except in a plain folder, which keeps only the word last
# written); the largest legal number, where it is the same on every kernel; None: any number, the kernel judges it.
Values: TypeAlias = tuple[str, ...] | int | None

_NODES = "sys/devices/system/node"
_HOLES = {"size": "[1-9][0-9]{0,8}", "node": "[0-9]{1,4}"}
_ANY_FILE = "[a-z][a-z0-9_]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Settings whose names have one form.

    In `name` and `folder`, {size} stands for a page size in KiB, {node} for a number of a NUMA node and {file} for one
    of `files`, a dot in which is a folder's end. `spelling`: a spec may name other files too, of this form. `lists`: a
    host's own list of files is what there is, but for `counters`.
    """

    name: str
    folder: str
    files: Mapping[str, Values]
    spelling: str = ""
    lists: bool = False
    counters: frozenset[str] = frozenset()
    called: str = "KNOB"  # a file, for people

    @property
    def form(self) -> str:
        """How names look, for people."""
        return self.name.format(size="<N>", node="<K>", file=self.called)

    @property
    def pattern(self) -> str:
        """The expression of a whole name."""
        return self.name.format(**_HOLES, file=f"({self.spelling or '|'.join(map(re.escape, self.files))})")

    def size_in(self, name: str) -> int | None:
        """Return the page size in KiB that a name of this family has, None for a name of another."""
        match = re.fullmatch(self.name.replace("{size}", "([0-9]+)").format(**_HOLES, file="[^/]+"), name)
        return int(match[1]) if match else None

    def on_host(self, root: SysRoot) -> Iterator[tuple[str, str, Values]]:
        """Yield name, path and legal values of all that a host has."""
        for node in _nodes(root) if "{node}" in self.folder else (0,):
            for size in self._sizes(root, node):
                folder = self.folder.format(node=node, size=size)
                listed = (file for file in root.names(folder) if file not in self.counters)
                for file in listed if self.lists else self.files:
                    path = f"{folder}/{file.replace('.', '/')}"
                    if root.exists(path):
                        yield self.name.format(node=node, size=size, file=file), path, self.files.get(file)

    def _sizes(self, root: SysRoot, node: int) -> tuple[int, ...]:
        if "{size}" not in self.folder:
            return (0,)
        return sizes_in(root, self.folder.rpartition("/")[0].format(node=node))


def _nodes(root: SysRoot) -> list[int]:
    return sorted(int(entry[4:]) for entry in root.names(_NODES) if re.fullmatch(r"node\d+", entry))


THP_SIZES = Family(
    name="thp/{size}kB/{file}",
    folder=f"{THP}/hugepages-{{size}}kB",
    files={
        "enabled": ("always", "inherit", "madvise", "never"),
        "shmem_enabled": ("always", "inherit", "within_size", "advise", "never"),
    },
)
POOL_SIZE = "/nr_hugepages"  # ends the name of a count of huge pages, of which fewer may be granted than asked
POOLS = Family(
    name="hugetlb/{size}kB/{file}",
    folder=f"{HUGETLB}/hugepages-{{size}}kB",
    files={"nr_hugepages": None, "nr_overcommit_hugepages": None},
)
NODE_POOLS = Family(
    name="hugetlb/node{node}/{size}kB/{file}",
    folder=f"{_NODES}/node{{node}}/hugepages/hugepages-{{size}}kB",
    files={"nr_hugepages": None},
)

FAMILIES: tuple[Family, ...] = (  # pools of the whole host come before those of its nodes
    Family(
        name="thp/{file}",
        folder=THP,
        files={
            "enabled": ("always", "madvise", "never"),
            "defrag": ("always", "defer", "defer+madvise", "madvise", "never"),
            "shmem_enabled": ("always", "within_size", "advise", "never", "deny", "force"),
            "shrink_underused": 1,
            "use_zero_page": 1,
        },
    ),
    THP_SIZES,
    Family(
        name="thp/khugepaged/{file}",
        folder=f"{THP}/khugepaged",
        files={"defrag": 1, "max_ptes_none": None, "pages_to_scan": None, "scan_sleep_millisecs": None},
        spelling=_ANY_FILE,
        lists=True,
        counters=frozenset({"full_scans", "pages_collapsed"}),
    ),
    POOLS,
    NODE_POOLS,
    Family(
        name="sysctl/{file}",
        folder="proc/sys",
        files={
            "kernel.numa_balancing": None,
            "vm.compaction_proactiveness": 100,
            "vm.extfrag_threshold": 1000,
            "vm.min_free_kbytes": None,
            "vm.nr_overcommit_hugepages": None,
            "vm.overcommit_memory": 2,
            "vm.overcommit_ratio": None,
            "vm.swappiness": 200,
            "vm.watermark_boost_factor": None,
            "vm.zone_reclaim_mode": None,
        },
        spelling=rf"(vm|kernel)\.{_ANY_FILE}",
        called="vm.NAME",
    ),
)
