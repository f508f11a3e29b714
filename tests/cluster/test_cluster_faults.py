"""What breaks in a real cluster, and that every host that can be reached is put back and verified.

The fixture looks at the end of each test: every host reads as it was found, none is claimed, and the store is sound.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.cluster.conftest import LEASE_SECONDS, LONG, PROMISE_SECONDS
from tests.ray_cluster import KNOB, until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
Fleet = Any  # conftest.py


def test_a_raylet_that_is_killed_is_a_lost_host_which_its_guardian_puts_back(fleet: Fleet) -> None:
    driver = fleet.launch(stages=LONG, cap=3)
    fleet.until_measuring(driver)
    node = fleet.treated()[0]
    node.kill("raylet/raylet")
    took = until(lambda: fleet.is_as_found([node]), PROMISE_SECONDS, "the guardian puts it back")
    assert took > 0.5, "it was put back before the lease could run out: by whom?"
    until(lambda: fleet.undone_by_guardians([node]), 5, "its guardian says that it was it")
    until(lambda: fleet.events("host_lost"), 60, "the loss is noticed")
    node.restart()  # as systemd would
    code, answer = fleet.finish(driver)
    assert (code, answer["state"]) == (0, "completed"), fleet.story()
    assert {host for host, _ in fleet.events("host_back")} == {node.name}


def test_a_link_cut_for_less_than_the_lease_costs_at_most_a_period(fleet: Fleet) -> None:
    driver = fleet.launch(stages=LONG, cap=3)
    fleet.until_measuring(driver)
    node = fleet.treated()[0]
    node.cut()
    time.sleep(LEASE_SECONDS / 3)  # the length of the fault itself
    node.mend()
    code, answer = fleet.finish(driver)
    assert (code, answer["state"]) == (0, "completed"), fleet.story()


def test_a_link_cut_for_more_than_the_lease_undoes_the_host_which_is_taken_up_again(fleet: Fleet) -> None:
    driver = fleet.launch(stages=LONG, cap=3)
    fleet.until_measuring(driver)
    node = fleet.treated()[0]
    node.cut()
    until(lambda: fleet.is_as_found([node]), PROMISE_SECONDS, "it puts itself back, unreachable as it is")
    until(lambda: fleet.undone_by_guardians([node]), 5, "its guardian says that it was it")
    until(lambda: fleet.events("host_lost"), 60, "the loss is noticed")
    node.mend()
    if not node.processes("raylet/raylet"):  # declared dead meanwhile, it has left: systemd starts it again
        node.start()
    code, answer = fleet.finish(driver)
    assert (code, answer["state"]) == (0, "completed"), fleet.story()
    assert fleet.events("host_back")


def test_unreachable_hosts_count_in_the_cap_and_end_the_run(fleet: Fleet) -> None:
    driver = fleet.launch(stages=LONG, cap=1)
    fleet.until_measuring(driver)
    lost = fleet.cluster.nodes[:2]
    for node in lost:
        node.kill()
    until(lambda: any("2 hosts" in detail for _, detail in fleet.events("halting_to")), 120, "the cap is reached")
    for node in lost:
        node.start()
    code, answer = fleet.finish(driver)
    assert (code, answer["state"]) == (4, "paused"), fleet.story()
    assert fleet.is_as_found()


def test_an_orchestrator_that_is_killed_is_resumed_by_another(fleet: Fleet) -> None:
    driver = fleet.launch(stages=LONG, cap=3)
    fleet.until_measuring(driver)
    treated = fleet.treated()
    (pid,) = fleet.cluster.head.processes("-m fleetexp run")
    os.kill(pid, signal.SIGKILL)
    took = until(fleet.is_as_found, PROMISE_SECONDS, "every host puts itself back")
    assert took > 0.5
    until(lambda: fleet.undone_by_guardians(treated), 5, "their guardians say that it was they")
    code, answer = fleet.resume()
    assert (code, answer["state"]) == (0, "completed"), fleet.story()


def test_somebody_elses_write_on_one_node_is_noticed_and_measured_again(fleet: Fleet) -> None:
    driver = fleet.launch(stages=LONG, cap=3)
    fleet.until_measuring(driver)
    node = fleet.treated()[0]
    assert node.root is not None
    node.root.write(KNOB, b"madvise")
    code, answer = fleet.finish(driver)
    assert (code, answer["state"]) == (0, "completed"), fleet.story()
    assert {host for host, _ in fleet.events("drift")} == {node.name}
    assert fleet.is_as_found()
