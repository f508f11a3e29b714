"""Under which circumstances big pages were to be had: told in sizes that mean the same whatever a base page holds."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fleetexp.reporting import report_content
from fleetexp.store.store import open_store
from tests.fleetexp.reporting.fleet_run import fleet_run


def test_success_is_set_against_free_memory_fragmentation_and_uptime_in_bytes_and_seconds(tmp_path: Path) -> None:
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'fleet.db'}")) as store:
        content = report_content(store, fleet_run(store, hosts=8))
    assert {(row.circumstance, row.unit) for row in content.successes} == {
        ("free memory", "bytes"),
        ("free memory in blocks that hold a huge page", "bytes"),
        ("uptime at the start", "seconds"),
    }
