"""A survey on one screen: what huge pages would back and add on a host, or on which hosts of a fleet most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agents.survey.figures import EIGHTHS, GIB, SHARES, PageSurvey, ProcessFigures, Sight, SizeFigures
from fleetexp.cli.grid import grid
from fleetexp.cli.output import duration, labelled, memory, size, visible, wrapped
from fleetexp.fleets.page_surveys import FleetSurvey

_MIB = 2**20
_SHARES = ("none", *(f"to {number}/{EIGHTHS}" for number in range(1, EIGHTHS)), f"below {EIGHTHS}/{EIGHTHS}", "all")
_SIGHTS = {
    Sight.WHOLE: "whole",
    Sight.SAMPLED: "sample",
    Sight.WOULD_SPLIT: "no",
    Sight.NOT_PERMITTED: "refused",
    Sight.NOT_OFFERED: "no",
    Sight.OUT_OF_TIME: "no time",
    Sight.GONE: "ended",
}
_WHY = {
    Sight.WOULD_SPLIT: "looking would split big pages",
    Sight.NOT_PERMITTED: "this user may not look: run as root",
    Sight.NOT_OFFERED: "there is no pagemap: survey the host itself",
    Sight.OUT_OF_TIME: "time was over: give it more --seconds or --cpu-percent",
    Sight.GONE: "the process ended",
}


def host_lines(found: PageSurvey, *, columns: int, top: int) -> list[str]:
    """Lay out one host: what was looked at and what it took, each page size, how growth spreads, the processes."""
    lines = [labelled(label, visible(text), columns=columns) for label, text in _head(found)]
    if not found.sizes:
        return [*lines, "", wrapped("This kernel has no huge pages, transparent or hugetlb: nothing to weigh up.")]
    seen = any(one.residency is not None for one in found.totals)
    lines += ["", *(_size_table(found, columns) if seen else _bounds_table(found, columns))]
    if seen:
        lines += ["", *_share_table(found, columns)]
    if top and found.processes:
        lines += ["", *_process_table(found, columns, top), "", *_cgroup_table(found, columns, top)]
    return lines


def _head(found: PageSurvey) -> Iterator[tuple[str, str]]:
    pages = f"pages of {size(found.base_page_bytes / 1024)}"
    yield "host", f"{found.host}: Linux {found.kernel}, {memory(found.memory_total_bytes)}, {pages}"
    anon = sum(one.anon_bytes for one in found.processes)
    small = f"; {found.small_processes} small ones left out, {memory(found.small_anon_bytes)}"
    yield "processes", f"{len(found.processes)} with {memory(anon)} of anonymous memory" + small
    took = f"{found.cpu_seconds:.1f} s of CPU in {duration(found.wall_seconds)}"
    each = f", {found.cpu_seconds * GIB / found.looked_at_bytes:.2f} s a GiB" if found.looked_at_bytes else ""
    yield "looked at", f"{memory(found.looked_at_bytes)} of address space; {took}{each}"
    if found.splitting_sizes_kib:
        sizes = ", ".join(map(size, found.splitting_sizes_kib))
        yield (
            "NOT LOOKED",
            f"pages of {sizes} may live here, and reading pagemap or smaps splits them. What follows is from maps and "
            "status: where extents lie, and the most that can be true. What is resident where is not known",
        )
    for sight, why in _WHY.items():
        if sight is not Sight.WOULD_SPLIT and (count := sum(one.sight is sight for one in found.processes)):
            yield "not seen", f"{count} of the processes: {why}"
    readers = [*found.known_readers, *(f"{one.command} (pid {one.pid}, {one.path})" for one in found.open_readers)]
    if readers:
        yield "readers", f"other programs here read files that split pages above a PMD's size: {', '.join(readers)}"
    shared = sum(one.shared_bytes or 0 for one in found.processes)
    forked = sum(one.forked_children > 0 for one in found.processes)
    rate = f"{found.forks_per_second:.1f} a second since boot" if found.forks_per_second is not None else "not known"
    yield "forks", f"{rate}; {forked} processes with children in their program, {size(shared / 1024)} shared with them"
    cut = ", ".join(f"{one.cut_extents} of {size(one.size_kib)}" for one in found.totals if one.cut_extents)
    if cut:
        yield "cut", f"{cut}: extents of contiguous memory lost to borders between mappings, as mprotect makes them"


def _numbers(count: int, first: int = 0) -> frozenset[int]:
    return frozenset(range(first, count))


def _size_table(found: PageSurvey, columns: int) -> Iterator[str]:
    thp = {one.size_kib: one.thp or "hugetlb" for one in found.sizes}
    sampled = any(one.sight is Sight.SAMPLED for one in found.processes)
    heads = ["size", "THP", "extents", "whole", "most", "part", "backs", "adds", "tables", "laid_by"]
    rows = []
    for one in found.totals:
        kept = one.residency
        if kept is not None:
            error = f" ±{kept.growth_error_bytes / GIB:.2f}" if sampled else ""
            amounts = [_gib(one.backable_bytes or 0), _gib(kept.growth_bytes) + error]
            tables = [f"{kept.tables_saved_bytes / _MIB:.1f}", f"{kept.deposit_bytes / _MIB:.1f}"]
            counts = map(_count, (one.extents, kept.whole, kept.mostly, kept.partly))
            rows.append([size(one.size_kib), thp[one.size_kib], *counts, *amounts, *tables])
    yield from grid(heads, rows, _numbers(len(heads), 2), columns)
    yield wrapped(
        "Each size alone, against base pages. Extents: aligned, within one mapping; most: more than half of it is "
        "resident. GiB that pages of this size would back, and add; MiB of page tables that they free, and that the "
        "kernel lays by for the case of a split."
    )


def _bounds_table(found: PageSurvey, columns: int) -> Iterator[str]:
    thp = {one.size_kib: one.thp or "hugetlb" for one in found.sizes}
    heads = ["size", "THP", "extents", "whole at most", "adds at most"]
    rows = [
        [
            size(one.size_kib),
            thp[one.size_kib],
            *map(_count, (one.extents, one.whole_at_most)),
            _gib(one.growth_at_most_bytes),
        ]
        for one in found.totals
    ]
    yield from grid(heads, rows, _numbers(len(heads), 2), columns)


def _share_table(found: PageSurvey, columns: int) -> Iterator[str]:
    large = [one for one in found.totals if one.residency is not None and one.size_kib >= found.pmd_kib]
    heads = ["resident", *(f"{size(one.size_kib)}_{what}" for one in large for what in ("extents", "adds"))]
    rows = []
    for share in range(SHARES):
        cells = [_SHARES[share]]
        for one in large:
            if one.residency is not None:
                growth = one.residency.growth_by_share_bytes[share]
                cells += [_count(one.residency.extents_by_share[share]), _gib(growth)]
        rows.append(cells)
    yield from grid(heads, rows, _numbers(len(heads), 1), columns)


def _process_table(found: PageSurvey, columns: int, top: int) -> Iterator[str]:
    rows = [
        (
            [str(one.pid), visible(one.command), _gib(one.anon_bytes), _SIGHTS[one.sight], str(one.forked_children)],
            one.sizes,
        )
        for one in found.processes[:top]
    ]
    yield from _by_size(found, ["pid", "command", "anon", "seen", "forked"], rows, frozenset({0, 2, 4}), columns)
    if (rest := len(found.processes) - top) > 0:
        yield f"and {rest} smaller ones (--top)"


def _cgroup_table(found: PageSurvey, columns: int, top: int) -> Iterator[str]:
    rows = [
        (
            [
                visible(one.cgroup or "not known"),
                "?" if one.anon_bytes is None else _gib(one.anon_bytes),
                f"{one.seen}/{one.processes}",
            ],
            one.sizes,
        )
        for one in found.cgroups[:top]
    ]
    yield from _by_size(found, ["cgroup", "anon", "seen"], rows, frozenset({1}), columns)


def _by_size(
    found: PageSurvey,
    heads: Sequence[str],
    rows: Sequence[tuple[Sequence[str], Sequence[SizeFigures]]],
    numeric: frozenset[int],
    columns: int,
) -> Iterator[str]:
    """Lay out rows, each with what the PMD's size and the largest would back and add there."""
    shown = [one.size_kib for one in found.sizes if one.size_kib >= found.pmd_kib][-2:]
    all_heads = [*heads, *(f"{size(kib)}_{what}" for kib in shown for what in ("whole", "adds"))]
    cells = []
    for begin, sizes in rows:
        by_size = {one.size_kib: one for one in sizes}
        cells.append([*begin, *(cell for kib in shown for cell in _whole_and_growth(by_size[kib]))])
    yield from grid(all_heads, cells, numeric | _numbers(len(all_heads), len(heads)), columns)


def _whole_and_growth(one: SizeFigures) -> list[str]:
    if one.residency is None:
        return [f"<={_count(one.whole_at_most)}", f"<={_gib(one.growth_at_most_bytes)}"]
    return [_count(one.residency.whole), _gib(one.residency.growth_bytes)]


def _count(number: int) -> str:
    """Write a number in at most five places."""
    return (
        str(number) if number < 100_000 else f"{number / 1e3:.0f}k" if number < 10_000_000 else f"{number / 1e6:.0f}M"
    )


def _gib(count: float) -> str:
    return f"{count / GIB:.2f}"


def fleet_lines(found: FleetSurvey, *, columns: int, top: int) -> list[str]:
    """Rank the hosts, and then their programs, by what their largest page size would back without adding much."""
    ranked = sorted(found.surveys, key=lambda one: -wholly_backed_bytes(one.totals))
    heads = ["host", "memory", "size", "extents", "whole", "backs", "adds", "seen"]
    rows = [_host_row(one) for one in ranked[:top] if one.totals]
    lines = list(grid(heads, rows, _numbers(len(heads) - 1, 1), columns))
    lines += [wrapped("First who would benefit: memory that its largest page size in use would back without growth.")]
    programs = sorted(
        ((one, survey) for survey in found.surveys for one in survey.processes),
        key=lambda pair: -wholly_backed_bytes(pair[0].sizes),
    )
    lines += ["", *_program_table([(survey.host, one) for one, survey in programs[:top]], columns)]
    return lines + [wrapped(visible(f"{host}: {reason}")) for host, reason in found.without.items()]


def _largest_used(sizes: Sequence[SizeFigures]) -> SizeFigures:
    """Return the largest size of which an extent is wholly resident, or can be; else the largest there is."""
    whole = [one for one in sizes if (one.residency.whole if one.residency is not None else one.whole_at_most)]
    return (whole or list(sizes))[-1]


def wholly_backed_bytes(sizes: Sequence[SizeFigures]) -> int:
    """Return the memory that pages of the largest size in use would back without growth; 0 where that was not seen."""
    if not sizes:
        return 0
    one = _largest_used(sizes)
    return 0 if one.residency is None else one.residency.whole * one.size_kib * 1024


def _host_row(found: PageSurvey) -> list[str]:
    one = _largest_used(found.totals)
    seen = f"{sum(process.sight.seen for process in found.processes)}/{len(found.processes)}"
    backs = "?" if one.backable_bytes is None else _gib(one.backable_bytes)
    whole, adds = _whole_and_growth(one)
    amounts = [_count(one.extents), whole, backs, adds]
    return [visible(found.host), _gib(found.memory_total_bytes), size(one.size_kib), *amounts, seen]


def _program_table(programs: Sequence[tuple[str, ProcessFigures]], columns: int) -> Iterator[str]:
    heads = ["host", "pid", "command", "anon", "size", "whole", "adds", "forked"]
    rows = []
    for host, process in programs:
        if process.sizes:
            one = _largest_used(process.sizes)
            begin = [visible(host), str(process.pid), visible(process.command), _gib(process.anon_bytes)]
            rows.append([*begin, size(one.size_kib), *_whole_and_growth(one), str(process.forked_children)])
    yield from grid(heads, rows, frozenset({1, 3, 4, 5, 6, 7}), columns)
