"""What does not come back by itself: a node, and the head. The run waits for them, mostly, and gives them up.

A file of its own: it has a process and a cluster beside those of the other faults.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from fleetexp.fleets.ray.link import GONE_SECONDS
from tests.cluster.conftest import LONG, PROMISE_SECONDS
from tests.ray_cluster import until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
Fleet = Any  # conftest.py


def test_a_node_that_stays_away_is_the_loudest_outcome_and_what_it_undid_is_collected_when_it_is_back(
    fleet: Fleet,
) -> None:
    driver = fleet.launch(stages=LONG, cap=3)
    fleet.until_measuring(driver)
    node = fleet.treated()[0]
    node.kill()
    code, answer = fleet.finish(driver, within=420)
    assert (code, answer["state"]) == (5, "restore_incomplete"), fleet.story()
    assert node.name in answer["reason"]
    assert fleet.is_as_found([other for other in fleet.cluster.nodes if other is not node])
    node.start()  # much later, somebody repairs it
    code, out, err = fleet.cluster.said(["restore", "--run", "1", *fleet.database, "--json"])
    assert (code, err) == (0, "")
    assert json.loads(out) == {"run_id": 1, "left": {}}
    store = fleet.opened()
    try:
        assert store.run(1).state.value == "halted"
        undone = [c for host, c in store.knob_changes(1) if host == node.name and c.reason.value == "guardian"]
        assert undone
        assert undone[-1].after == fleet.found[node.name]
    finally:
        store.close()


def test_the_head_is_killed_and_every_host_puts_itself_back(fleet: Fleet) -> None:
    driver = fleet.launch(stages="[{share: 100%, hold: 45s}]", cap=3)  # longer than it takes to miss a head
    fleet.until_measuring(driver)
    treated = fleet.treated()
    fleet.cluster.head.kill("gcs_server", "raylet/raylet")
    killed_at = time.monotonic()
    until(fleet.is_as_found, GONE_SECONDS + 5 + PROMISE_SECONDS, "every host puts itself back")
    until(lambda: fleet.undone_by_guardians(treated), 5, "nobody could tell the agents to")
    code, answer = fleet.finish(driver)
    assert time.monotonic() - killed_at < 240
    assert (code, answer["state"]) in {(4, "paused"), (5, "restore_incomplete")}, fleet.story()
    assert "head" in fleet.story()
    fleet.cluster.heal()
    code, answer = fleet.resume()
    assert (code, answer["state"]) == (0, "completed"), fleet.story()
