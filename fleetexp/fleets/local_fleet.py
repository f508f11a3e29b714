"""This machine as a fleet of one: a Ray node of our own, started for the run and ended with it."""

from __future__ import annotations

import contextlib
import logging
import platform
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agents.clock import SYSTEM_CLOCK, Clock
from agents.messages import Request, Survey
from agents.sysroot import FolderRoot, SysRoot
from fleetexp.errors import RunError
from fleetexp.fleets.base import Fleet, HostReply
from fleetexp.fleets.inline_fleet import look_over
from fleetexp.fleets.inventory import FoundHost

log = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 80_000_000  # Ray's least is 75 MB; readings are small


class LocalInventory:
    """This machine, found without starting Ray."""

    name = "local"
    address = ""
    one_machine = True

    def __init__(self, host: str, root: SysRoot) -> None:
        self._host = host
        self._root = root

    def survey(self) -> Sequence[FoundHost]:
        return [look_over(self._host, self._root, {})]

    def open(self, hosts: Sequence[str], run: str) -> LocalFleet:
        where = str(self._root.root) if isinstance(self._root, FolderRoot) else "/"
        return LocalFleet(hosts[0], run=run, root=where)

    def close(self) -> None:
        """There is nothing to let go of."""


class LocalFleet:
    """One host, its agent an actor of a Ray node that only this process has the token of.

    Where Ray itself dies (raylet, GCS, all of it), `reconnect` starts it anew; until then the guardian holds the host.
    """

    name = "local"
    clock: Clock = SYSTEM_CLOCK

    def __init__(self, host: str, *, run: str, labels: Mapping[str, str] | None = None, root: str = "/") -> None:
        self._host = host
        self._run = run
        self._labels = dict(labels or {})
        self._root = root
        self._waiting: Request | None = None  # something has been asked and not been given up
        self._fleet = self._start()

    def _start(self) -> Fleet:
        from fleetexp.fleets.ray.own_node import start_node  # noqa: PLC0415, I001 - it goes before Ray
        import ray  # noqa: PLC0415

        from fleetexp.fleets.ray.actors import RayActors, RayHost  # noqa: PLC0415 - it imports Ray

        # Ray prints what happens to its processes on our stdout, in the middle of a table or a JSON object.
        ray._private.worker.print_to_stdstream = _to_the_log
        with _signals_kept():
            start_node(_OBJECT_STORE_BYTES)
            node_id = ray.get_runtime_context().get_node_id()
        node = RayHost(node_id=node_id, root=self._root, labels=self._labels)
        return RayActors({self._host: node}, run=self._run)

    def hosts(self) -> Sequence[str]:
        return (self._host,)

    def send(self, host: str, request: Request, timeout_seconds: float) -> None:
        self._waiting = request
        self._fleet.send(host, request, timeout_seconds)

    def receive(self, timeout_seconds: float) -> list[HostReply]:
        # An actor goes on answering for a while after its raylet has died: a node in that state is not one to trust.
        if self._waiting is not None and not self._alive():
            request, self._waiting = self._waiting, None
            self._fleet.forget(self._host)
            error = ConnectionError("the Ray node on this machine has died")
            return [HostReply(host=self._host, request=request, error=error, lost=True)]
        return self._fleet.receive(timeout_seconds)

    def forget(self, host: str) -> None:
        self._waiting = None
        self._fleet.forget(host)

    def reconnect(self, host: str, timeout_seconds: float) -> None:
        if not self._alive():
            log.warning("Ray is gone: starting it again")
            self._shut_down()
            try:
                self._fleet = self._start()
            except RunError as error:  # `receive` will say that the host is lost, and the machine tries again
                log.warning("%s", error)
                self._waiting = Survey()
                return
        self._waiting = Survey()
        self._fleet.reconnect(host, timeout_seconds)

    def _alive(self) -> bool:
        """Whether raylet and GCS are running, by their processes: asking them can hang for a minute."""
        import ray  # noqa: PLC0415

        if not ray.is_initialized():
            return False
        node = ray._private.worker._global_node
        if node is None:
            return False
        dead = {kind for kind, _ in node.dead_processes()}
        return not dead & {"raylet", "gcs_server"}

    def _shut_down(self) -> None:
        import ray  # noqa: PLC0415

        with contextlib.suppress(Exception):  # whatever is left of it is being thrown away
            ray.shutdown()

    def close(self) -> None:
        self._fleet.close()
        self._shut_down()


def _to_the_log(data: Mapping[str, Any], **_: object) -> None:
    for line in data.get("lines", ()):
        log.info("ray: %s", line)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep our signal handlers: Ray puts its own SIGTERM handler in, which exits without restoring anything."""
    saved = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: nothing was changed there
            for number, handler in saved.items():
                signal.signal(number, handler)


def inventory(_address: str, root: SysRoot | None) -> LocalInventory:
    """Return this machine."""
    return LocalInventory(platform.node(), root or FolderRoot())
