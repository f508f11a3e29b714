"""The names of knobs and the files behind them; what exists is listed from the host, never assumed.

    thp/enabled                            sys/kernel/mm/transparent_hugepage/enabled
    thp/<N>kB/enabled                      .../hugepages-<N>kB/enabled
    thp/khugepaged/<name>                  .../khugepaged/<name>
    hugetlb/<N>kB/nr_hugepages             sys/kernel/mm/hugepages/hugepages-<N>kB/nr_hugepages
    hugetlb/node<K>/<N>kB/nr_hugepages     sys/devices/system/node/node<K>/hugepages/hugepages-<N>kB/nr_hugepages
    sysctl/vm.<name>                       proc/sys/vm/<name>

Sources: Documentation/admin-guide/mm/transhuge.rst, hugetlbpage.rst and sysctl/vm.rst of the Linux kernel.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from agents.errors import KnobError, UnknownKnob
from agents.page_sizes import HUGETLB, THP, sizes_in, thp_sizes
from agents.sysroot import SysRoot

NODES = "sys/devices/system/node"

_TOP_LEVEL = ("enabled", "defrag", "shmem_enabled", "shrink_underused", "use_zero_page")
_PER_SIZE = ("enabled", "shmem_enabled")
_KHUGEPAGED_COUNTERS = frozenset({"full_scans", "pages_collapsed"})
_POOL = ("nr_hugepages", "nr_overcommit_hugepages")
_NODE_POOL = ("nr_hugepages",)
_SYSCTLS = (
    "kernel.numa_balancing",
    "vm.compaction_proactiveness",
    "vm.extfrag_threshold",
    "vm.min_free_kbytes",
    "vm.nr_overcommit_hugepages",
    "vm.overcommit_memory",
    "vm.overcommit_ratio",
    "vm.swappiness",
    "vm.watermark_boost_factor",
    "vm.zone_reclaim_mode",
)

# What a file of choices can hold where its text doesn't say: a plain folder keeps only the bare word last written.
_SHMEM = ("always", "inherit", "within_size", "advise", "never")
_CHOICES = (
    (re.compile(r"thp/enabled"), ("always", "madvise", "never")),
    (re.compile(r"thp/defrag"), ("always", "defer", "defer+madvise", "madvise", "never")),
    (re.compile(r"thp/shmem_enabled"), ("always", "within_size", "advise", "never", "deny", "force")),
    (re.compile(r"thp/\d+kB/enabled"), ("always", "inherit", "madvise", "never")),
    (re.compile(r"thp/\d+kB/shmem_enabled"), _SHMEM),
)
# Largest legal number, where it is the same on every kernel; the kernel judges the rest.
_HIGHEST = {
    "thp/shrink_underused": 1,
    "thp/use_zero_page": 1,
    "thp/khugepaged/defrag": 1,
    "sysctl/vm.compaction_proactiveness": 100,
    "sysctl/vm.extfrag_threshold": 1000,
    "sysctl/vm.overcommit_memory": 2,
    "sysctl/vm.swappiness": 200,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One kernel setting of this host; `choices` is None where it holds a number, `highest` None where unlimited."""

    name: str
    path: str
    choices: tuple[str, ...] | None
    highest: int | None = None

    @property
    def is_pool(self) -> bool:
        """Whether this is a count of huge pages, of which the kernel may grant fewer than asked."""
        return self.name.endswith("/nr_hugepages")


def current_value(text: str) -> str:
    """Return what a knob's text says is set: the word in brackets, or the whole text where there are none."""
    chosen = re.search(r"\[([^\]]*)\]", text)
    return chosen[1].strip() if chosen else text.strip()


def find_knobs(root: SysRoot) -> tuple[Knob, ...]:
    """List every knob that exists on this host and can be read, in the order of `_names`."""
    found = []
    for name, path in _names(root):
        with contextlib.suppress(KnobError):
            found.append(_knob(root, name, path))
    return tuple(found)


def find_knob(root: SysRoot, name: str) -> Knob:
    """Find one knob by its name.

    Raises UnknownKnob, naming the nearest name that exists here and the sizes this kernel has.
    """
    known = dict(_names(root))
    if name in known:
        return _knob(root, name, known[name])
    hint = missing_knob_hint(name, known, thp_kib=thp_sizes(root), hugetlb_kib=sizes_in(root, HUGETLB))
    raise UnknownKnob(f"this host has no knob {name!r}", where=name, remedy=hint)


def missing_knob_hint(name: str, known: Collection[str], *, thp_kib: Iterable[int], hugetlb_kib: Iterable[int]) -> str:
    """Say what to write instead of a knob that a host with these knobs and page sizes does not have."""
    own = re.fullmatch(r"thp/\d+kB/((?:shmem_)?enabled)", name)
    if own and f"thp/{own[1]}" in known and not any(re.match(r"thp/\d+kB/", knob) for knob in known):
        only = _listed(thp_kib) or "one that it does not tell"
        return (
            f"sizes with knobs of their own came with Linux 6.8; this kernel has one size, {only}: write thp/{own[1]}"
        )
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hints = [f"did you mean {nearest[0]!r}?"] if nearest else []
    if re.search(r"\d+kB", name):
        kind, here = ("hugetlb", hugetlb_kib) if name.startswith("hugetlb") else ("transparent", thp_kib)
        hints.append(f"{kind} huge page sizes of this kernel: {_listed(here) or 'none'}")
    return "; ".join(hints) or "'fleetexp doctor' lists the knobs of this host"


def _listed(sizes_kib: Iterable[int]) -> str:
    return ", ".join(f"{size}kB" for size in sizes_kib)


def _knob(root: SysRoot, name: str, path: str) -> Knob:
    return Knob(name=name, path=path, choices=_choices(root, name, path), highest=_HIGHEST.get(name))


def _choices(root: SysRoot, name: str, path: str) -> tuple[str, ...] | None:
    usual = next((words for pattern, words in _CHOICES if pattern.fullmatch(name)), None)
    if usual is None:
        return None
    try:
        text = root.read(path).decode(errors="replace")
    except OSError as error:
        raise KnobError(f"{name} can't be read: {error.strerror}", where=path, remedy="read it as root") from error
    return tuple(text.replace("[", " ").replace("]", " ").split()) if "[" in text else usual


def _names(root: SysRoot) -> Iterator[tuple[str, str]]:
    """Yield (name, path) of all that exist; pools of the whole host come before those of its nodes."""
    for name in _TOP_LEVEL:
        if root.exists(f"{THP}/{name}"):
            yield f"thp/{name}", f"{THP}/{name}"
    for size in sizes_in(root, THP):
        for name in _PER_SIZE:
            path = f"{THP}/hugepages-{size}kB/{name}"
            if root.exists(path):
                yield f"thp/{size}kB/{name}", path
    for name in root.names(f"{THP}/khugepaged"):
        if name not in _KHUGEPAGED_COUNTERS:
            yield f"thp/khugepaged/{name}", f"{THP}/khugepaged/{name}"
    yield from _pools(root, "hugetlb", HUGETLB, _POOL)
    for node in sorted(int(entry[4:]) for entry in root.names(NODES) if re.fullmatch(r"node\d+", entry)):
        yield from _pools(root, f"hugetlb/node{node}", f"{NODES}/node{node}/hugepages", _NODE_POOL)
    for name in _SYSCTLS:
        path = f"proc/sys/{name.replace('.', '/')}"
        if root.exists(path):
            yield f"sysctl/{name}", path


def _pools(root: SysRoot, prefix: str, folder: str, files: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for size in sizes_in(root, folder):
        for name in files:
            path = f"{folder}/hugepages-{size}kB/{name}"
            if root.exists(path):
                yield f"{prefix}/{size}kB/{name}", path
