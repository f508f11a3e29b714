"""The section on metrics of histograms: the bucket that a value is known to lie in, as the error of the measurement."""

from __future__ import annotations

from analysis.quantities import quantity
from analysis.report.content import BucketRow, ReportInput
from analysis.report.page import Cell, ReportSection, Table

_NO_END = "no end"


def section(content: ReportInput) -> ReportSection | None:
    """Return how finely each metric of a histogram was measured under each arm; None where there is none."""
    if not content.buckets:
        return None
    table = Table(
        caption="How finely buckets told it",
        headers=("metric", "arm", "periods", "between", "and", "width of a bucket, mean"),
        rows=tuple(_row(row) for row in content.buckets),
        align="llrrrr",
    )
    text = (
        "A histogram says in which bucket a quantile lies, and between which two shares a share does. The place within "
        "the bucket is interpolated as Prometheus does. So each value may be off by the width of its bucket, however "
        "narrow the interval of the effect: a smaller difference rests on the interpolation. Where a metric never left "
        "one bucket under either arm, nothing is concluded from it."
    )
    return ReportSection(key="buckets", title="What a histogram can tell", paragraphs=(text,), tables=(table,))


def _row(row: BucketRow) -> tuple[Cell, ...]:
    open_ended = f"in {row.without_end} of {row.periods} periods its bucket has no end" if row.without_end else ""
    return (
        Cell(text=row.metric, code=True),
        Cell(text=row.arm, code=True),
        Cell(text=str(row.periods)),
        Cell(text=_NO_END if row.low is None else quantity(row.low, row.unit)),
        Cell(text=_NO_END if row.high is None else quantity(row.high, row.unit)),
        Cell(
            text=_NO_END if row.width is None else quantity(row.width, row.unit),
            note=open_ended,
            tone="bad" if row.without_end else "",
        ),
    )
