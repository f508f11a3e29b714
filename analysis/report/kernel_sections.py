"""The sections on what the kernel did with big pages: how long faults took, how often they succeeded, splits."""

from __future__ import annotations

from analysis.quantities import DASH, number, quantity, scale_for
from analysis.report.content import ReportInput, SplitCauseRow, StallRow, SuccessRow
from analysis.report.page import Cell, ReportSection, Table
from analysis.report.shares import FEWEST_CLUSTERS
from analysis.report.tables import MOST_ROWS, left_off_note
from analysis.wording import interval_text

BANDS_KEY = "success"


def big_pages(content: ReportInput) -> ReportSection:
    """Say how long big pages took to get, how often they were to be had, and how often they were split again."""
    tables = (
        *_supplies(content),
        *_latencies(content),
        *_stalls(content),
        *_successes(content),
        *_splits(content),
        *_mapping_splits(content),
        *_causes(content),
    )
    paragraphs = []
    if not content.latencies:
        paragraphs.append("Fault latency was not measured: no workload here times its faults (page_fault does).")
    if not content.successes:
        paragraphs.append(
            "Success against free memory, fragmentation and uptime can't be shown: no big page was asked for."
        )
    text = "What a big page costs to get, how often there is one, and how long it stays whole."
    if content.successes:
        by = content.successes[0].clustered_by.value
        paragraphs.append(f"Pages of one of the {by} are given or refused alike: an interval counts {by}, not pages.")
    paragraphs += _against_the_counters(content)
    if content.split_causes and (content.caused_splits or content.stalls):
        paragraphs.append(f"Not all of it was traced: {content.split_causes}.")
    return ReportSection(
        key="kernel",
        title="Getting and keeping big pages",
        paragraphs=(text, *paragraphs, *left_off_note(len(content.successes))),
        tables=tables,
    )


def _latencies(content: ReportInput) -> tuple[Table, ...]:
    if not content.latencies:
        return ()
    rows = []
    for row in content.latencies[:MOST_ROWS]:
        scale = scale_for(row.unit, (row.p50, row.p99))
        rows.append(
            (
                Cell(text=row.metric, code=True),
                Cell(text=row.arm),
                Cell(text=number(row.readings)),
                Cell(text=scale.show(row.p50)),
                Cell(text=scale.show(row.p99)),
                Cell(text=quantity(row.maximum, row.unit)),
            )
        )
    return (
        Table(
            caption="How long faults took: in each period, then the mean over the periods",
            headers=("metric", "arm", "readings", "median", "99 %", "worst of all"),
            rows=tuple(rows),
            align="llrrrr",
            key="latencies",
        ),
    )


def _supplies(content: ReportInput) -> tuple[Table, ...]:
    if not content.supplies:
        return ()
    rows = content.supplies[:MOST_ROWS]
    memory = scale_for("bytes", (row.memory_used_bytes for row in rows))
    cells = tuple(
        (
            Cell(text=row.arm),
            Cell(text=quantity(row.page_size_kib, "KiB") if row.page_size_kib else "the largest enabled"),
            Cell(text=f"{number(100 * row.given / row.asked)} %", note=f"{number(row.given)} of {number(row.asked)}"),
            *(Cell(text=quantity(time, "seconds")) for time in (row.p50, row.p99, row.maximum, row.region_seconds)),
            Cell(text=DASH if row.memory_used_bytes is None else memory.show(row.memory_used_bytes)),
        )
        for row in rows
    )
    waits = ("first touch, median", "99 %", "worst", "the whole region")
    return (
        Table(
            caption="Side by side: big pages that each arm's workload was given of those it asked for, and its waits",
            headers=("arm", "pages of", "given", *waits, "memory used"),
            rows=cells,
            align="lrrrrrrr",
            key="supply",
        ),
    )


def _successes(content: ReportInput) -> tuple[Table, ...]:
    if not content.successes:
        return ()
    return (
        Table(
            caption="Big pages given, of those asked for, by what the host was like in that period",
            headers=("page size", "circumstance", "range", "periods", "asked for", "given [95 % interval]"),
            rows=tuple(_success_cells(row) for row in content.successes[:MOST_ROWS]),
            align="rllrrr",
            key=BANDS_KEY,
        ),
    )


def _success_cells(row: SuccessRow) -> tuple[Cell, ...]:
    scale = scale_for(row.unit, (row.least, row.most))
    if row.interval is None:
        given = f"no interval below {FEWEST_CLUSTERS} {row.clustered_by.value}"
    else:
        given = interval_text(row.interval, lambda end: f"{number(100 * end)} %")
        given += f" over {row.clusters:,} {row.clustered_by.value}"
    return (
        Cell(text=quantity(row.page_size_kib, "KiB")),
        Cell(text=row.circumstance),
        Cell(text=f"{scale.show(row.least)} to {scale.show(row.most)}"),
        Cell(text=number(row.periods)),
        Cell(text=number(row.asked)),
        Cell(text=f"{number(100 * row.given / row.asked)} %", note=given),
    )


def _splits(content: ReportInput) -> tuple[Table, ...]:
    rows = []
    for row in content.exposure[:MOST_ROWS]:
        seconds = content.host_seconds.get(row.arm)
        if row.splits is None or not seconds:
            continue
        hours = seconds / 3600
        backed = (row.backed_bytes or 0.0) / 2**30
        rows.append(
            (
                Cell(text=row.arm),
                Cell(text=quantity(row.page_size_kib, "KiB")),
                Cell(text=quantity(seconds, "seconds")),
                Cell(text=number(row.splits)),
                Cell(text=number(row.splits / hours)),
                Cell(text=number(row.splits / hours / backed) if backed else DASH),
            )
        )
    if not rows:
        return ()
    return (
        Table(
            caption="How often big pages were split",
            headers=("arm", "page size", "measured for", "splits", "per host and hour", "and per GiB backed"),
            rows=tuple(rows),
            align="lrrrrr",
            key="splits",
        ),
    )


def _mapping_splits(content: ReportInput) -> tuple[Table, ...]:
    rows = tuple(
        (
            Cell(text=row.arm),
            Cell(text=row.metric, code=True),
            Cell(text=number(row.splits)),
            Cell(text=number(row.splits / seconds * 3600)),
        )
        for row in content.mapping_splits[:MOST_ROWS]
        if (seconds := content.host_seconds.get(row.arm))
    )
    if not rows:
        return ()
    return (
        Table(
            caption="How often mappings of big pages were split, whether or not the pages themselves were",
            headers=("arm", "counter", "splits", "per host and hour"),
            rows=rows,
            align="llrr",
            key="mapping_splits",
        ),
    )


def _causes(content: ReportInput) -> tuple[Table, ...]:
    if not content.caused_splits:
        return ()
    return (
        Table(
            caption="Who had big pages split, and why: traced in the kernel",
            headers=("arm", "counter", "cause", "program", "splits", "per host and hour", "time lost", "each"),
            rows=tuple(_cause_cells(content, row) for row in content.caused_splits[:MOST_ROWS]),
            align="llllrrrr",
            key="split_causes",
        ),
    )


def _cause_cells(content: ReportInput, row: SplitCauseRow) -> tuple[Cell, ...]:
    seconds = content.host_seconds.get(row.arm)
    return (
        Cell(text=row.arm),
        Cell(text=row.metric, code=True),
        Cell(text=row.cause.replace("_", " ")),
        Cell(text=row.program or "(others)", code=True),
        Cell(text=number(row.splits)),
        Cell(text=number(row.splits / seconds * 3600) if seconds else DASH),
        *_time_cells(row.seconds_lost, row.timed),
    )


def _time_cells(seconds: float | None, timed: float) -> tuple[Cell, Cell]:
    if seconds is None or not timed:
        return Cell(text=DASH), Cell(text=DASH)
    return Cell(text=quantity(seconds, "seconds")), Cell(text=quantity(seconds / timed, "seconds"))


def _stalls(content: ReportInput) -> tuple[Table, ...]:
    if not content.stalls:
        return ()
    return (
        Table(
            caption="How long the kernel kept programs waiting for big pages: traced in the kernel",
            headers=("arm", "what for", "program", "calls", "time lost", "each", "none longer than"),
            rows=tuple(_stall_cells(row) for row in content.stalls[:MOST_ROWS]),
            align="lllrrrr",
            key="stalls",
        ),
    )


def _stall_cells(row: StallRow) -> tuple[Cell, ...]:
    longest = row.longest_seconds
    return (
        Cell(text=row.arm),
        Cell(text=row.function.replace("_", " ")),
        Cell(text=row.program or "(others)", code=True),
        Cell(text=number(row.calls)),
        *_time_cells(row.seconds_lost, row.calls),
        Cell(text=DASH if longest is None else quantity(longest, "seconds")),
    )


def _against_the_counters(content: ReportInput) -> list[str]:
    """Say whether the causes add up to what the kernel itself has counted."""
    if not content.splits_counted:
        return []
    parts = []
    for row in content.splits_counted:
        against = "which was not read" if row.counted is None else f"which rose by {number(row.counted)}"
        agree = row.counted == row.traced
        parts.append(f"{row.arm}, {row.metric}: {number(row.traced)} traced" + ("" if agree else f", {against}"))
    if all(row.counted == row.traced for row in content.splits_counted):
        return [f"The causes add up to what the kernel's own counters rose by ({'; '.join(parts)})."]
    return [f"The causes do not add up to the kernel's own counter everywhere: {'; '.join(parts)}."]
