"""The orchestrator's end of its Ray process: started, spoken to, listened to, and given up when it falls silent."""

from __future__ import annotations

import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection

from fleetexp.errors import RunError
from fleetexp.fleets.ray.protocol import BridgeAlive, BridgeEvent, Broken, Connected, Order
from fleetexp.secret import without_secrets
from fleetexp.shipped import PACKAGES

log = logging.getLogger(__name__)

CONNECT_SECONDS = 60.0
GONE_SECONDS = 15.0  # a head that has not answered for so long is gone; a busy machine is late without that
_LEAVING_SECONDS = 5.0
_TOKEN_REMEDY = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to the file that holds it"  # noqa: S105 - no token


class RayLink:
    """One bridge process at a time. No call waits for it: orders and words pass through threads."""

    def __init__(self, address: str) -> None:
        self.asked_for = address
        self.address = address  # as the cluster names itself, once connected
        self.broken: Broken | None = None
        self.started_at = 0.0
        self._start()

    def _start(self) -> None:
        self.broken, self.started_at = None, time.monotonic()
        self._connected = False
        self._heard_at = time.monotonic()
        self._words: queue.SimpleQueue[BridgeEvent | None] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._said: deque[str] = deque(maxlen=50)
        ours, theirs = socket.socketpair()
        environment = {**without_secrets(os.environ), "RAY_USAGE_STATS_ENABLED": "0"}
        environment.setdefault("RAY_AUTH_MODE", "token")
        environment.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (PACKAGES, environment.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fleetexp.fleets.ray.bridge", self.asked_for, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the orchestrator alone
                env=environment,
            )
        finally:
            theirs.close()
        self._connection: Connection[Order, BridgeEvent] = Connection(ours.detach())
        for act in (_hear, _speak):
            queue_ = self._words if act is _hear else self._orders
            threading.Thread(target=act, args=(self._connection, queue_), daemon=True).start()
        threading.Thread(target=_read_log, args=(self._process, self._said), daemon=True).start()

    def restart(self) -> None:
        """Give up the bridge there is and start another."""
        self._kill()
        self._start()

    def tell(self, order: Order) -> None:
        """Pass an order on, without waiting; lost where the link is broken."""
        if self.broken is None:
            self._orders.put(order)

    def hear(self, timeout_seconds: float) -> BridgeEvent | None:
        """Return the next word, waiting at most so long; None where there is none. Sets `broken` once it is over."""
        try:
            word = self._words.get(timeout=max(0.0, timeout_seconds))
        except queue.Empty:
            self._check_silence()
            return None
        if word is None:
            self._break("the process that talks to Ray has ended", "see the log (--log-level info) for what it said")
            return None
        match word:
            case Connected(address=address):
                self._connected, self.address, self._heard_at = True, address, time.monotonic()
            case BridgeAlive():
                self._heard_at = time.monotonic()
            case Broken(what=what, remedy=remedy):
                self._break(what, remedy)
            case _:  # agents go on answering when the head has died, and are not to be trusted then
                self._check_silence()
        return word

    def _check_silence(self) -> None:
        silent = time.monotonic() - self._heard_at
        if self._connected and silent > GONE_SECONDS:
            what = f"the Ray head at {self.address} has not answered for {silent:.0f} s"
            self._break(what, "start it again, and its nodes; then 'fleetexp resume'")
        elif not self._connected and silent > CONNECT_SECONDS:
            self._break(f"Ray at {self.asked_for} took longer than {CONNECT_SECONDS:.0f} s to let us in", "try again")

    def _break(self, what: str, remedy: str) -> None:
        if self.broken is not None:
            return
        if not self._connected and any("AuthToken" in line for line in self._said):
            what, remedy = "the Ray cluster refuses this process: its token is missing or wrong", _TOKEN_REMEDY
        self.broken = Broken(what=what, remedy=remedy)
        log.log(logging.WARNING if self._connected else logging.INFO, "%s", what)  # an error says the second
        self._kill()

    def refuse(self) -> RunError:
        """Return the error that says why there is no connection."""
        broken = self.broken or Broken(what="Ray does not answer", remedy="try again")
        return RunError(broken.what, where=f"--address {self.asked_for}", remedy=broken.remedy)

    def close(self) -> None:
        """Let the bridge go; its agents end with it."""
        self._orders.put(None)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_LEAVING_SECONDS)
        self._kill()

    def _kill(self) -> None:
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._orders.put(None)


def _hear(connection: Connection[Order, BridgeEvent], words: queue.SimpleQueue[BridgeEvent | None]) -> None:
    try:
        while True:
            words.put(connection.recv())
    except (EOFError, OSError):
        pass
    except Exception:
        log.exception("a word of the process that talks to Ray could not be read")
    finally:  # however it ends: it is heard
        words.put(None)


def _speak(connection: Connection[Order, BridgeEvent], orders: queue.SimpleQueue[Order | None]) -> None:
    try:
        while (order := orders.get()) is not None:
            connection.send(order)
    except OSError:
        pass
    except Exception:
        log.exception("an order could not be sent to the process that talks to Ray")
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)  # not a close: the other thread is reading, and hears the end this way


def _read_log(process: subprocess.Popen[bytes], said: deque[str]) -> None:
    assert process.stdout is not None  # noqa: S101 - asked for
    for line in process.stdout:
        text = line.decode(errors="replace").rstrip()
        said.append(text)
        log.info("ray: %s", text)
    process.stdout.close()
