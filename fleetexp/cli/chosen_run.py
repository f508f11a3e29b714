"""Which run a command is about: the one named, or else the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetexp.store.records import RunRecord
    from fleetexp.store.store import Store


def chosen_run(store: Store, run_id: int | None) -> RunRecord:
    """Return the run asked for, or the newest; NoSuchRun (or RunError where there is none at all)."""
    if run_id is not None:
        return store.run(run_id)
    runs = store.runs()
    if not runs:
        from fleetexp.errors import RunError

        raise RunError("the store holds no run", where="--store", remedy="start one with 'fleetexp run SPEC.yaml'")
    return max(runs, key=lambda run: run.run_id)
