"""Settings: which of them give pages, and to whom?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from agents.conformance.bench import Bench
from agents.conformance.counters import Count
from agents.knobs import find_knob
from agents.page_sizes import thp_switch

_LARGE = 64 * 2**20  # bytes: to clear a page of this size, for each of 120 cases, takes minutes


def settings(bench: Bench) -> None:
    """Every value of this size's switch x the top level x defrag, asked for and not: pages where the rules say so.

    `always` gives to all, `madvise` to who asks, `never` to none, `inherit` as the top level. What the rules give may
    fall back to smaller pages; then that is counted. For a large page not each defrag is tried with each switch.
    """
    root = bench.host.root
    switch = thp_switch(root, bench.host.size_kib)
    own = find_knob(root, switch).choices or ()
    one_switch = switch == "thp/enabled"
    tops = ("",) if one_switch else find_knob(root, "thp/enabled").choices or ()
    unruly, uncounted, fell_back, granted = [], [], set(), 0
    for own_value, top, defrag in _values(bench, own, tops, find_knob(root, "thp/defrag").choices or ()):
        bench.apply(**{"own": own_value, "defrag": defrag} | ({} if one_switch else {"top": top}))
        effective = top if own_value == "inherit" else own_value
        for advise in (True, False):
            case = f"{own_value}{top and f', top {top}'}, defrag {defrag}, {'asked' if advise else 'not asked'}"
            with bench.memory(advise=advise) as memory, bench.counting() as rise:
                has = bench.granted(memory)
            wanted = effective == "always" or (effective == "madvise" and advise)
            if has and not wanted:
                unruly.append(case)
            if wanted and not has:
                fell_back.add(f"defrag {defrag}, {'asked' if advise else 'not asked'}")
                if rise.of(Count.FALLBACK) == 0:
                    uncounted.append(case)
            granted += has
    bench.check_call("pages against the rules", held=not unruly, wanted="none", seen="; ".join(unruly))
    bench.check_call("attempts that nothing counted", held=not uncounted, wanted="none", seen="; ".join(uncounted))
    bench.tell("pages given", str(granted))
    if fell_back:
        bench.tell("fell back", "; ".join(sorted(fell_back)))


def _values(
    bench: Bench, own: Sequence[str], tops: Sequence[str], defrags: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield the settings to try: for a large page the switches with one defrag, and each defrag with `always`."""
    for own_value, top, defrag in product(own, tops, defrags):
        each_defrag = (own_value, top) == ("always", tops[0])
        if bench.size < _LARGE or each_defrag or defrag == "madvise":
            yield own_value, top, defrag
