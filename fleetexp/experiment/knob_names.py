"""How the knobs of an arm are named; whether a host has one of that name is for its agent to say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from agents.catalogue import COMMON_SIZES_KIB
from agents.knobs.families import FAMILIES, NODE_POOLS, POOL_SIZE, POOLS, THP_SIZES
from fleetexp.experiment.document import kind_of
from fleetexp.experiment.key import Written
from fleetexp.experiment.problem import ValueRefused, nearest

_FORMS: tuple[re.Pattern[str], ...] = tuple(re.compile(family.pattern) for family in FAMILIES)
_EXAMPLES = tuple(
    dict.fromkeys(
        family.name.format(size=size, node=0, file=file)
        for family in FAMILIES
        for size in (64, *COMMON_SIZES_KIB)
        for file in family.files
    )
)
_VALUE = r"[\x21-\x7e]([\x20-\x7e]{0,198}[\x21-\x7e])?"  # one line of plain characters
_UNITS: Mapping[str, int] = {"k": 1, "m": 1024, "g": 1024 * 1024}
_SIZE = re.compile(r"([0-9]{1,9})\s*([kmg])i?b?", re.IGNORECASE)


def check_knob_name(name: str) -> str:
    """Return the name; ValueRefused, with the nearest legal one, where it has none of the known forms."""
    if any(form.fullmatch(name) for form in _FORMS):
        return name
    respelt = "/".join(_kernel_size(part) for part in name.strip("/").split("/"))
    if respelt != name and any(form.fullmatch(respelt) for form in _FORMS):
        raise ValueRefused(
            f"{name!r} is not a knob", f"did you mean {respelt!r}? Sizes are spelt as in the kernel's folders"
        )
    close = nearest(respelt, _EXAMPLES)
    hint = f"did you mean {close!r}? " if close else ""
    raise ValueRefused(
        f"{name!r} is not a knob",
        f"{hint}forms: {', '.join(family.form for family in FAMILIES)}; 'fleetexp doctor' lists what this host has",
    )


def check_knob_value(value: object) -> str:
    """Return the value as the kernel is told; ValueRefused for what YAML made of a word, and what is not one line."""
    if isinstance(value, bool):
        number = "1" if value else "0"
        raise ValueRefused(f"{kind_of(value)} is not a knob value", f"write {number}, or the word in quotes")
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise ValueRefused(f"{kind_of(value)} is not a knob value", "write a word or a whole number")
    if not re.fullmatch(_VALUE, value):
        raise ValueRefused(f"{kind_of(value)} is not a knob value", "write one line of plain characters")
    return value


def pool_of(knob: str) -> int | None:
    """Return the page size in KiB where the knob is a hugetlb pool's size over all nodes, else None."""
    return POOLS.size_in(knob) if knob.endswith(POOL_SIZE) else None


def pool_sizes(knobs: Mapping[str, str]) -> tuple[int, ...]:
    """Return the sizes in KiB of the hugetlb pools that these knobs set, of the host or of a node, ascending."""
    sizes = (family.size_in(name) for family in (POOLS, NODE_POOLS) for name in knobs if name.endswith(POOL_SIZE))
    return tuple(sorted({size for size in sizes if size is not None}))


def thp_sizes(knobs: Mapping[str, str]) -> tuple[int, ...]:
    """Return the transparent-huge-page sizes in KiB that these knobs name, ascending."""
    return tuple(sorted({size for name in knobs if (size := THP_SIZES.size_in(name)) is not None}))


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
