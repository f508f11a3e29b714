"""A fleet over a link to Ray: what is overdue is lost, and a cluster that is gone is looked for, for a while."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

import pytest

from agents.messages import HostFacts, Poll, Released, Survey
from fleetexp.fleets import ray_fleet
from fleetexp.fleets.ray import link as ray_link
from fleetexp.fleets.ray.link import RayLink
from fleetexp.fleets.ray.protocol import BridgeEvent, BridgeReply, Broken, Connected, Forget, Open, Rejoin, Send
from fleetexp.fleets.ray_fleet import RayFleet

GONE = Broken(what="the Ray head has not answered for 10 s", remedy="start it again")


class Link:
    """A link as the fleet sees it, with words to order."""

    def __init__(self) -> None:
        self.broken: Broken | None = None
        self.started_at = time.monotonic()
        self.told: list[Any] = []
        self.words: deque[BridgeEvent] = deque()
        self.restarts = 0
        self.heals = False

    def tell(self, order: Any) -> None:  # noqa: ANN401
        if self.broken is None:
            self.told.append(order)

    def hear(self, timeout_seconds: float) -> BridgeEvent | None:
        return self.words.popleft() if self.words else None

    def restart(self) -> None:
        self.restarts += 1
        self.started_at = time.monotonic()
        if self.heals:
            self.broken = None

    def of(self, kind: type) -> list[Any]:
        return [order for order in self.told if isinstance(order, kind)]


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link:
    monkeypatch.setattr(ray_fleet, "RESTART_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(ray_fleet, "REJOIN_SECONDS", 0.5)
    return Link()


def made(link: Link) -> RayFleet:
    return RayFleet(link, ["a", "b"], run="1-x")  # type: ignore[arg-type]


def test_an_answer_finds_its_request_and_one_to_what_was_forgotten_finds_none(link: Link) -> None:
    fleet = made(link)
    asked, forgotten = Poll(acknowledged=0), Poll(acknowledged=0)
    fleet.send("a", asked, 10.0)
    fleet.send("b", forgotten, 10.0)
    fleet.forget("b")
    first, second = link.of(Send)
    assert link.of(Forget) == [Forget(host="b")]
    link.words.extend(
        [BridgeReply(number=second.number, reply=Released()), BridgeReply(number=first.number, reply=Released())]
    )
    (answer,) = fleet.receive(0.1)
    assert (answer.host, answer.reply, answer.lost) == ("a", Released(), False)
    assert answer.request is asked


def test_what_the_bridge_does_not_answer_in_time_is_lost(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_fleet, "_LATE_SECONDS", 0.0)
    fleet = made(link)
    fleet.send("a", Poll(acknowledged=0), 0.0)
    time.sleep(0.01)
    (answer,) = fleet.receive(0.1)
    assert answer.lost
    assert "Poll" in str(answer.error)


def test_with_the_cluster_gone_everything_is_lost_at_once(link: Link) -> None:
    fleet = made(link)
    fleet.send("a", Poll(acknowledged=0), 60.0)
    fleet.send("b", Poll(acknowledged=0), 60.0)
    link.broken = GONE
    answers = fleet.receive(0.1)
    assert {answer.host for answer in answers} == {"a", "b"}
    assert all(answer.lost and GONE.what in str(answer.error) for answer in answers)


def test_a_cluster_that_is_gone_is_looked_for_and_the_host_asked_for_there(link: Link) -> None:
    fleet = made(link)
    link.broken = GONE
    fleet.reconnect("a", 45.0)
    assert fleet.receive(0.0) == []
    assert link.restarts, "it was not looked for"
    link.heals = True
    fleet.receive(0.0)
    assert link.broken is None
    assert link.of(Open)[-1] == Open(hosts=("a", "b"), run="1-x")
    (rejoin,) = link.of(Rejoin)
    assert (rejoin.host, rejoin.request) == ("a", Survey())
    facts = object.__new__(HostFacts)
    link.words.append(BridgeReply(number=rejoin.number, reply=facts))
    (answer,) = fleet.receive(0.1)
    assert answer.reply is facts


def test_a_cluster_that_stays_away_costs_a_bounded_wait_then_the_host_is_lost(link: Link) -> None:
    fleet = made(link)
    link.broken = GONE
    fleet.reconnect("a", 45.0)
    deadline = time.monotonic() + 10
    while not (answers := fleet.receive(0.01)):
        assert time.monotonic() < deadline
    assert [(answer.host, answer.lost) for answer in answers] == [("a", True)]
    restarts = link.restarts
    fleet.receive(0.0)
    assert link.restarts == restarts, "nobody waits any more: nothing is looked for"


def test_agents_that_go_on_answering_do_not_make_a_dead_head_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_link, "GONE_SECONDS", 0.3)
    monkeypatch.setattr(RayLink, "_start", lambda self: None)
    link = RayLink("10.0.0.1:6379")
    link.broken, link._connected, link._said = None, False, deque()
    link._words = queue.SimpleQueue()
    monkeypatch.setattr(link, "_kill", lambda: None)
    link._words.put(Connected(address="10.0.0.1:6379"))
    link.hear(0.0)
    deadline = time.monotonic() + 10
    while link.broken is None:
        assert time.monotonic() < deadline
        link._words.put(BridgeReply(number=1, reply=Released()))
        assert link.hear(0.1) is not None
    assert "has not answered" in link.broken.what


def test_a_word_or_an_order_that_does_not_travel_ends_the_link_and_is_no_silence() -> None:
    """Each passes through a thread: one that died of it used to leave the link deaf, or dumb, and looking well."""
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    words: queue.SimpleQueue[Any] = queue.SimpleQueue()
    theirs.send_bytes(b"no pickle")
    ray_link._hear(ours, words)
    assert words.get_nowait() is None
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    orders.put(lambda: "no pickle either")
    ray_link._speak(ours, orders)
    with pytest.raises(EOFError):
        theirs.recv()
    ours.close()
    theirs.close()


@pytest.mark.slow
def test_a_bridge_that_hears_what_it_does_not_understand_ends() -> None:
    ours, theirs = socket.socketpair()
    with theirs, ours:
        Connection(os.dup(ours.fileno())).send_bytes(b"no pickle")
        code = "import sys; from multiprocessing.connection import Connection as C\n"
        code += "from fleetexp.fleets.ray.bridge import Bridge; Bridge(C(int(sys.argv[1])), 'x')._hear()"
        run = [sys.executable, "-c", code, str(theirs.fileno())]
        done = subprocess.run(run, pass_fds=(theirs.fileno(),), capture_output=True, timeout=100, check=False)
    assert b"an order could not be read" in done.stderr
    assert done.returncode == 1
