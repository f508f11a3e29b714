"""Which knobs a host has: what exists is listed from the host, never assumed."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from agents.errors import KnobError, UnknownKnob
from agents.knobs.families import FAMILIES, POOL_SIZE, Family, Values
from agents.page_sizes import HUGETLB, sizes_in, thp_sizes
from agents.sysroot import SysRoot


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
        return self.name.endswith(POOL_SIZE)


def current_value(text: str) -> str:
    """Return what a knob's text says is set: the word in brackets, or the whole text where there are none."""
    chosen = re.search(r"\[([^\]]*)\]", text)
    return chosen[1].strip() if chosen else text.strip()


def find_knobs(root: SysRoot) -> tuple[Knob, ...]:
    """List every knob that exists on this host and can be read, in the order of the families."""
    found = []
    for name, path, values in _names(root, FAMILIES):
        with contextlib.suppress(KnobError):
            found.append(_knob(root, name, path, values))
    return tuple(found)


def find_knob(root: SysRoot, name: str) -> Knob:
    """Find one knob by its name.

    Raises UnknownKnob, naming the nearest name that exists here and the sizes this kernel has.
    """
    own = [family for family in FAMILIES if re.fullmatch(family.pattern, name)]
    for families in (own, FAMILIES):  # all of them only for a name of no form, or one to be refused
        known = {each: (path, values) for each, path, values in _names(root, families)}
        if name in known:
            return _knob(root, name, *known[name])
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


def _names(root: SysRoot, families: Iterable[Family]) -> Iterator[tuple[str, str, Values]]:
    for family in families:
        yield from family.on_host(root)


def _knob(root: SysRoot, name: str, path: str, values: Values) -> Knob:
    if not isinstance(values, tuple):
        return Knob(name=name, path=path, choices=None, highest=values)
    try:
        text = root.read(path).decode(errors="replace")
    except OSError as error:
        raise KnobError(f"{name} can't be read: {error.strerror}", where=path, remedy="read it as root") from error
    said = tuple(text.replace("[", " ").replace("]", " ").split()) if "[" in text else values
    return Knob(name=name, path=path, choices=said)
