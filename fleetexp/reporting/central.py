"""What a report tells of a metrics' server, read from the store."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.report.content import CentralGapRow, CentralRow
from fleetexp.reporting import queries
from fleetexp.store.store import Store


def asked(store: Store, run_id: int) -> Iterator[CentralRow]:
    """Yield the requests of a run in their order, without those for the server's clock."""
    for one in store.central_requests(run_id):
        if one.metric:
            yield CentralRow(
                metric=one.metric,
                server=one.server,
                promql=one.promql,
                start_at=one.start_at,
                end_at=one.end_at,
                step_seconds=one.step_seconds,
                outcome=one.outcome.value,
                said="; ".join(filter(None, (one.detail, *one.warnings))),
                series=one.series,
                sha256=one.sha256 or "",
            )


def gaps(store: Store, run_id: int) -> Iterator[CentralGapRow]:
    """Yield how many periods have a value of each metric, and how many have none for each reason."""
    for metric, gap, periods in store.select(queries.central_gaps(run_id)):
        yield CentralGapRow(metric=metric, gap=gap, periods=periods)
