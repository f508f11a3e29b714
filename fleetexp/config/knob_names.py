"""How the knobs of an arm are named; whether a host has one of that name is for its agent to say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from agents.catalogue import COMMON_SIZES_KIB
from fleetexp.config.document import kind_of
from fleetexp.config.key import Written
from fleetexp.config.problem import Refused, nearest

_TOP = ("enabled", "defrag", "shmem_enabled", "shrink_underused", "use_zero_page")
_PER_SIZE = ("enabled", "shmem_enabled")
_POOL = ("nr_hugepages", "nr_overcommit_hugepages")
_SYSCTL = re.compile(r"sysctl/(vm|kernel)\.[a-z][a-z0-9_]*")
_FORMS: tuple[re.Pattern[str], ...] = (
    re.compile(rf"thp/({'|'.join(_TOP)})"),
    re.compile(rf"thp/[1-9][0-9]{{0,8}}kB/({'|'.join(_PER_SIZE)})"),
    re.compile(r"thp/khugepaged/[a-z][a-z0-9_]*"),
    re.compile(rf"hugetlb/[1-9][0-9]{{0,8}}kB/({'|'.join(_POOL)})"),
    re.compile(r"hugetlb/node[0-9]{1,4}/[1-9][0-9]{0,8}kB/nr_hugepages"),
    _SYSCTL,
)
_EXAMPLES = (
    *(f"thp/{name}" for name in _TOP),
    *(f"thp/{size}kB/{name}" for size in (64, *COMMON_SIZES_KIB) for name in _PER_SIZE),
    *(f"thp/khugepaged/{name}" for name in ("defrag", "max_ptes_none", "pages_to_scan", "scan_sleep_millisecs")),
    *(f"hugetlb/{size}kB/{name}" for size in COMMON_SIZES_KIB for name in _POOL),
    "hugetlb/node0/1048576kB/nr_hugepages",
    "sysctl/vm.compaction_proactiveness",
    "sysctl/kernel.numa_balancing",
)
_VALUE = r"[\x21-\x7e]([\x20-\x7e]{0,198}[\x21-\x7e])?"  # one line of plain characters
_UNITS: Mapping[str, int] = {"k": 1, "m": 1024, "g": 1024 * 1024}
_SIZE = re.compile(r"([0-9]{1,9})\s*([kmg])i?b?", re.IGNORECASE)


def check_knob_name(name: str) -> str:
    """Return the name; Refused, with the nearest legal one, where it has none of the known forms."""
    if any(form.fullmatch(name) for form in _FORMS):
        return name
    respelt = "/".join(_kernel_size(part) for part in name.strip("/").split("/"))
    if respelt != name and any(form.fullmatch(respelt) for form in _FORMS):
        raise Refused(f"{name!r} is no knob", f"did you mean {respelt!r}? Sizes are spelt as in the kernel's folders")
    close = nearest(respelt, _EXAMPLES)
    hint = f"did you mean {close!r}? " if close else ""
    raise Refused(
        f"{name!r} is no knob",
        hint + "forms: thp/KNOB, thp/<N>kB/KNOB, thp/khugepaged/KNOB, hugetlb/[node<K>/]<N>kB/nr_hugepages, "
        "sysctl/vm.NAME; 'fleetexp doctor' lists what this host has",
    )


def check_knob_value(value: object) -> str:
    """Return the value as the kernel is told it; Refused for what YAML made of a word, and for what is no one line."""
    if isinstance(value, bool):
        number = "1" if value else "0"
        raise Refused(f"{kind_of(value)} is no knob value", f"write {number}, or the word in quotes")
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise Refused(f"{kind_of(value)} is no knob value", "write a word or a whole number")
    if not re.fullmatch(_VALUE, value):
        raise Refused(f"{kind_of(value)} is no knob value", "write one line of plain characters")
    return value


def pool_of(knob: str) -> int | None:
    """Return the page size in KiB where the knob is a hugetlb pool's size over all nodes, else None."""
    match = re.fullmatch(r"hugetlb/([0-9]+)kB/nr_hugepages", knob)
    return int(match[1]) if match else None


def pool_sizes(knobs: Mapping[str, str]) -> tuple[int, ...]:
    """Return the sizes in KiB of the hugetlb pools that these knobs set, of the host or of a node, ascending."""
    found = (re.fullmatch(r"hugetlb/(?:node[0-9]+/)?([0-9]+)kB/nr_hugepages", name) for name in knobs)
    return tuple(sorted({int(match[1]) for match in found if match}))


def thp_sizes(knobs: Mapping[str, str]) -> tuple[int, ...]:
    """Return the transparent-huge-page sizes in KiB that these knobs name, ascending."""
    found = (re.fullmatch(r"thp/([0-9]+)kB/.*", name) for name in knobs)
    return tuple(sorted({int(match[1]) for match in found if match}))


def _kernel_size(part: str) -> str:
    match = _SIZE.fullmatch(part)
    return f"{int(match[1]) * _UNITS[match[2].lower()]}kB" if match else part


KnobName = Annotated[
    str,
    AfterValidator(check_knob_name),
    Written(called="knob", schema={"type": "string", "pattern": f"^(?:{'|'.join(form.pattern for form in _FORMS)})$"}),
]
KnobValue = Annotated[
    str,
    BeforeValidator(check_knob_value),
    Written(called="knob value", schema={"type": ["string", "integer"], "pattern": f"^{_VALUE}$"}),
]
