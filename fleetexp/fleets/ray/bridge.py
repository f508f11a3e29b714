"""The process that talks to Ray for the orchestrator, which can kill it: whatever hangs or dies here stays here.

Ray's calls can hang for a minute when the head of its cluster is gone, and its library ends the process it is in when
that lasts. So an orchestrator never has Ray inside it: it starts this as a child, tells it what to do over a socket
(`protocol`), and takes its silence for what it is. When the orchestrator dies the socket closes, and this ends too;
the agents then die with it, and the guardians of their hosts undo what was changed.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from fleetexp.fleets.base import HostReply
from fleetexp.fleets.ray.actors import OwnCode, RayActors, said
from fleetexp.fleets.ray.nodes import Node, RayNodes
from fleetexp.fleets.ray.protocol import (
    REJOIN_SECONDS,
    BridgeAlive,
    BridgeEvent,
    BridgeReply,
    Broken,
    Connected,
    Dismiss,
    Dismissed,
    Forget,
    Open,
    Order,
    Rejoin,
    Seen,
    Send,
    SurveyNodes,
)

log = logging.getLogger(__name__)

_TURN_SECONDS = 0.05
_KNOCK_SECONDS = 5.0
_MANY_NODES = 200


class Bridge:
    """Orders come in by a queue that a thread fills; all else, Ray included, happens in `run`."""

    def __init__(self, connection: Connection, own_id: str) -> None:
        self._connection = connection
        self._own_id = own_id
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._nodes = RayNodes(own_id)
        self._actors: RayActors | None = None
        self._numbers: dict[int, tuple[int, str]] = {}  # id of a request under way -> its number, its host
        self._rejoining: dict[str, tuple[Send | Rejoin, float]] = {}  # what is asked, until when its node may come
        self._look_until: float | None = None
        self._table: tuple[float, list[Node]] | None = None

    def run(self) -> None:
        threading.Thread(target=self._hear, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()
        while True:
            self._take_orders()
            if (table := self._table) is not None:
                self._table = None
                self._follow(table[1])
            self._nodes.settle()
            self._look()
            self._rejoin()
            if self._actors is not None:
                for answer in self._actors.receive(_TURN_SECONDS):
                    self._answer(answer)

    # ------------------------------------------------------------------ threads
    def _hear(self) -> None:
        try:
            while True:
                self._orders.put(self._connection.recv())
        except (EOFError, OSError):
            os._exit(0)  # the orchestrator is gone; Ray ends the agents of a driver that has left
        except BaseException:
            log.exception("an order could not be read")
            os._exit(1)  # the orchestrator hears that; one that went on without orders would look well

    def _watch(self) -> None:
        """Read the table of nodes again and again; a head that is gone keeps this waiting, and so silences us."""
        while True:
            try:
                nodes = ray.nodes()
            except Exception as error:  # whatever Ray raises here, there is no table
                log.warning("no table of nodes: %s", error)
            else:
                self._table = (time.monotonic(), nodes)
                time.sleep(1.0 if len(nodes) < _MANY_NODES else 3.0)
                continue
            time.sleep(1.0)

    # ------------------------------------------------------------------ orders
    def _take_orders(self) -> None:
        timeout = 0.0 if self._actors is not None else _TURN_SECONDS
        try:
            while True:
                self._obey(self._orders.get(timeout=timeout) if timeout else self._orders.get_nowait())
                timeout = 0.0
        except queue.Empty:
            return

    def _obey(self, order: Order) -> None:
        match order:
            case SurveyNodes(within_seconds=within):
                self._look_until = time.monotonic() + within
                self._nodes.look_again()
            case Open(hosts=hosts, run=run):
                self._actors = RayActors({host: self._nodes.where(host) for host in hosts}, run=run)
            case Send(host=host) if self._actors is None or self._actors.node_of(host) is not None:
                self._pass_on(order)
            case Send(host=host) | Rejoin(host=host):  # its node is not known yet
                self._rejoining[host] = (order, time.monotonic() + REJOIN_SECONDS)
            case Forget(host=host):
                self._rejoining.pop(host, None)
                self._numbers = {key: at for key, at in self._numbers.items() if at[1] != host}
                if self._actors is not None:
                    self._actors.forget(host)
            case Dismiss():
                if self._actors is not None:
                    self._actors.close()
                    self._actors = None
                self._say(Dismissed())

    def _pass_on(self, order: Send | Rejoin) -> None:
        if self._actors is None:
            return
        self._numbers[id(order.request)] = (order.number, order.host)
        self._actors.send(order.host, order.request, order.timeout_seconds)

    def _answer(self, answer: HostReply) -> None:
        number, _ = self._numbers.pop(id(answer.request), (0, ""))
        if not number:
            return
        error = answer.error
        if isinstance(error, RayError) or (error is not None and not _travels(error)):
            error = ConnectionError(said(error))
        self._say(BridgeReply(number=number, reply=answer.reply, error=error, lost=answer.lost))

    def _say(self, word: BridgeEvent) -> None:
        self._connection.send(word)

    # ------------------------------------------------------------------ nodes
    def _follow(self, nodes: list[Node]) -> None:
        """Take a new table: tell that the head lives, and of agents whose nodes don't."""
        self._nodes.update(nodes)
        if not self._nodes.alive(self._own_id):
            self._say(Broken(what="the Ray node on this machine has died", remedy="start it again with 'ray start'"))
            os._exit(1)
        self._say(BridgeAlive())
        if self._actors is None:
            return
        for host in self._actors.hosts():
            node = self._actors.node_of(host)
            if node is not None and not self._nodes.alive(node.node_id):
                self._actors.lose(host, "its Ray node has died")

    def _look(self) -> None:
        """Say what was seen once every node has answered, or time is up; not before there is a table of nodes."""
        if self._look_until is None or (
            (self._nodes.looking or not self._nodes.known) and time.monotonic() < self._look_until
        ):
            return
        self._look_until = None
        self._say(Seen(found=self._nodes.seen()))

    def _rejoin(self) -> None:
        """Put agents on the nodes that lost hosts are on now; wait for a node that is being started again."""
        for host, (order, until) in list(self._rejoining.items()):
            node = self._nodes.where(host)
            if node is not None and self._actors is not None:
                del self._rejoining[host]
                self._actors.move(host, node)
                self._actors.renew(host)
                self._pass_on(order)
            elif time.monotonic() > until:
                del self._rejoining[host]
                gone = ConnectionError("no node of the cluster is this host")
                self._say(BridgeReply(number=order.number, error=gone, lost=True))


def _travels(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # whatever its class does
        return False
    return True


def connect(address: str) -> str | Broken:
    """Connect to the cluster; returns our node's id, or why that can't be done."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()
        except OSError as error:
            return Broken(
                what=f"no Ray head answers at {address}: {error.strerror or error}",
                remedy="check the address and the port, and whether 'ray start --head' runs there",
            )
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            namespace=None,
            job_config=OwnCode(),
        )
    except AuthenticationError:
        return Broken(
            what="the Ray cluster asks for a token, and this process has none or another",
            remedy="set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to the file that holds it",
        )
    except Exception as error:  # Ray raises whatever is at hand
        return Broken(
            what=f"Ray does not let us in at {address}: {said(error)}",
            remedy="run this on a node of the cluster, for example on its head, or by 'ray job submit'",
        )
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # Ray puts its own in
            signal.signal(number, signal.SIG_IGN)
    return str(ray.get_runtime_context().get_node_id())


def main(arguments: list[str]) -> int:
    """Run as `ADDRESS DESCRIPTOR`; stdout and stderr are the log."""
    address, descriptor = arguments
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the orchestrator decides when we end
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    connection: Any = Connection(int(descriptor))
    own_id = connect(address)
    if isinstance(own_id, Broken):
        connection.send(own_id)
        return 1
    connection.send(Connected(address=str(ray.get_runtime_context().gcs_address)))
    Bridge(connection, own_id).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
