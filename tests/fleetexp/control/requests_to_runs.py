"""Requests to a run that is under way, left without waiting for them to be heard."""

from __future__ import annotations

import contextlib

from fleetexp.domain import RunRequest
from fleetexp.store.store import open_store


def request_stop(store_url: str, run_id: int, how: RunRequest, who: str) -> None:
    with contextlib.closing(open_store(store_url, create=False)) as store:
        store.request(run_id, how, who)
