"""A Ray cluster on one machine: each node in a network namespace with an address and a name of its own.

Nothing of this machine's own network is touched: the bridge is in a namespace as well. Each node sees its own folder
as /tmp/ray, and serves a host whose /sys and /proc are a folder. Needs root, `ip` and `unshare`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from agents.sysroot import FolderRoot
from tests.host_tree import build_host

PROJECT = Path(__file__).resolve().parent.parent
KNOB = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
_NET = "10.231.77"
_RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
_ALIVE = """\
import json, sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("alive:", json.dumps([node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]]))
"""
HOSTS = 4
# More patient than docs/DEPLOY.md: on a busy machine a node may be late without being dead.
DETECTION = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "6000",
    "RAY_health_check_failure_threshold": "4",
}


def why_not() -> str:
    """Say why there can be no such cluster here; '' where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in ("ip", "unshare", "mount") if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)}"
    name = f"fxprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces can't be made here: {made.stderr.strip()}"
    pair = ["ip", "-n", name, "link", "add", "a0", "type", "veth", "peer", "name", "a1"]
    linked = subprocess.run(pair, capture_output=True, text=True, check=False)
    mounts = subprocess.run(
        ["ip", "netns", "exec", name, "unshare", "--mount", "--uts", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run(["ip", "netns", "del", name], check=False)
    return "" if linked.returncode == mounts.returncode == 0 else f"{linked.stderr}{mounts.stderr}".strip()


def until(true: Callable[[], bool], within: float, what: str) -> float:
    """Wait for something to be so, looking often; returns the seconds it took."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < within, f"not within {within} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - start


def beside_each_other(act: Callable[[Node], None], nodes: Sequence[Node]) -> None:
    """Do something on several nodes at once; raises the first failure, once all are done."""
    with ThreadPoolExecutor(max_workers=len(nodes) or 1) as pool:
        for done in [pool.submit(act, node) for node in nodes]:
            done.result()


def _end(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Node:
    """One machine of the cluster: a namespace, a name, an address, a folder for Ray, and a host's tree."""

    cluster: Cluster
    name: str
    number: int
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    root: FolderRoot | None = None

    @property
    def address(self) -> str:
        return f"{_NET}.{self.number}"

    @property
    def space(self) -> str:
        return f"{self.cluster.prefix}n{self.number}"

    @property
    def _cable(self) -> str:
        return f"v{self.number}"

    @property
    def _folder(self) -> Path:
        return self.cluster.folder / f"ray-{self.number}"

    def plug_in(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        _ip("netns", "add", self.space)
        net = self.cluster.net
        _ip("-n", net, "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        _ip("-n", net, "link", "set", self._cable, "master", "br0", "up")
        _ip("-n", self.space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.space, "link", "set", "eth0", "up")
        _ip("-n", self.space, "link", "set", "lo", "up")

    def cut(self) -> None:
        """Take the node off the network; everything on it goes on running."""
        self.cluster.broken = True
        _ip("-n", self.cluster.net, "link", "set", self._cable, "down")

    def mend(self) -> None:
        _ip("-n", self.cluster.net, "link", "set", self._cable, "up")

    def command(self, *words: str) -> list[str]:
        """Return a command that runs on this node: its network, its name, its /tmp/ray."""
        script = f'mount --bind {self._folder} /tmp/ray && hostname {self.name} && exec "$@"'
        return ["ip", "netns", "exec", self.space, "unshare", "--mount", "--uts", "sh", "-c", script, "sh", *words]

    def start(self) -> None:
        """Start Ray on it, and wait until it says that it runs."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        where = ["--head", "--port", "6379", "--include-dashboard=false"]
        if self is not self.cluster.head:
            where = ["--address", self.cluster.address]
        labels = ",".join(f"{name}={value}" for name, value in self.labels.items())
        words = [*_RAY, "start", *where, "--node-ip-address", self.address, "--num-cpus", "1"]
        words += [
            "--object-store-memory",
            "80000000",
            "--disable-usage-stats",
            *(["--labels", labels] if labels else []),
        ]
        root = {} if self.root is None else {"FLEETEXP_ROOT": str(self.root.root)}
        done = subprocess.run(
            self.command(*words),
            env={**self.cluster.environment, **root, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]

    def restart(self) -> None:
        """Start it anew, whatever of it is left: a node that was given up may be leaving of itself just now."""
        _end(self.processes())
        self.start()

    def processes(self, *names: str) -> list[int]:
        """Processes on this node, but for guardians; with names, those whose command line has one, else but drivers."""
        listed = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True, check=False)
        found = []
        for pid in map(int, listed.stdout.split()):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                wanted = any(name in line for name in names) if names else "-m fleetexp" not in line
                if wanted and line and "agents.guardian" not in line:
                    found.append(pid)
        return found

    def kill(self, *names: str) -> None:
        """SIGKILL processes of Ray on this node; all of them where none is named. Guardians and drivers live on."""
        self.cluster.broken = True
        pids = self.processes(*names)
        assert pids, f"there is nothing to kill on {self.name}: the test would prove nothing"
        _end(pids)

    def is_up(self) -> bool:
        return bool(self.processes("raylet/raylet"))

    def holds(self) -> str:
        """The value that the knob of the tests holds on this node's host now."""
        assert self.root is not None
        text = self.root.read(KNOB).decode().strip()
        return text[text.index("[") + 1 : text.index("]")] if "[" in text else text

    def remove(self) -> None:
        """Kill whatever is left in the namespace, and the namespace."""
        for _ in range(50):
            listed = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True, check=False)
            if not listed.stdout.split():
                break
            _end(map(int, listed.stdout.split()))
            time.sleep(0.1)
        subprocess.run(["ip", "netns", "del", self.space], check=False, capture_output=True)


class Cluster:
    """A head that is not a host, and nodes that are. `close` leaves nothing behind, however far `start` has come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = f"fx{os.getpid() % 100000}"
        self.net = f"{self.prefix}net"
        self.token = secrets.token_hex(32)
        self.broken = False  # something was killed or cut since it was last seen whole
        self.head = Node(self, "head", 1)
        self.nodes = [
            Node(
                self,
                f"web-{number}",
                number + 1,
                labels={"pool": "web", "sku": "big" if number % 2 else "small"},
                root=build_host(folder / f"web-{number}", files={"proc/sys/kernel/hostname": f"web-{number}"}),
            )
            for number in range(1, HOSTS + 1)
        ]

    @property
    def address(self) -> str:
        return f"{self.head.address}:6379"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FLEETEXP_"))}
        ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}
        return {**kept, **ours, **DETECTION, "PYTHONPATH": str(PROJECT)}

    def start(self) -> None:
        Path("/tmp/ray").mkdir(exist_ok=True)
        _ip("netns", "add", self.net)
        _ip("-n", self.net, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.net, "link", "set", "br0", "up")
        for node in (self.head, *self.nodes):
            node.plug_in()
        self.head.start()
        beside_each_other(Node.start, self.nodes)

    def heal(self) -> None:
        """Bring back what a test has broken, so that the next finds a whole cluster."""
        if not self.broken:
            return
        for node in self.nodes:
            node.mend()
        if not (self.head.is_up() and self.head.processes("gcs_server")):
            for node in self.nodes:
                _end(node.processes())
            self.head.restart()
        beside_each_other(Node.restart, [node for node in self.nodes if not node.is_up()])
        for _ in range(3):
            alive = self.alive()
            missing = [node for node in self.nodes if node.name not in alive]
            if not missing:
                self.broken = False
                return
            beside_each_other(Node.restart, missing)  # they run, and the head has given them up
        raise AssertionError(f"the cluster can't be made whole: {[node.name for node in missing]} are missing")

    def alive(self) -> set[str]:
        """The nodes of which the head says that they are alive."""
        said = self.python(_ALIVE, self.address)  # among it what Ray has to say of nodes that died
        _, _, alive = said.rpartition("alive: ")
        return set(json.JSONDecoder().raw_decode(alive)[0])

    def fleetexp(
        self, *words: str, token: str | None = None, stdout: object = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start a `fleetexp` command on the head."""
        environment = self.environment
        if token is not None:
            environment["RAY_AUTH_TOKEN"] = token
        if token == "":
            del environment["RAY_AUTH_TOKEN"]
            environment["HOME"] = str(self.folder)  # where no token lies either
        return subprocess.Popen(
            self.head.command(sys.executable, "-m", "fleetexp", *words),
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,  # type: ignore[call-overload]
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def said(self, words: Sequence[str], *, within: float = 120.0, token: str | None = None) -> tuple[int, str, str]:
        """Run a `fleetexp` command on the head; returns its exit code, stdout and stderr."""
        process = self.fleetexp(*words, token=token)
        try:
            out, err = process.communicate(timeout=within)
        finally:
            process.kill()
        return process.returncode, out, err

    def python(self, code: str, *words: str, within: float = 240.0) -> str:
        """Run a few lines of Python on the head; returns what they print."""
        done = subprocess.run(
            self.head.command(sys.executable, "-c", code, *words),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def close(self) -> None:
        with contextlib.suppress(OSError):
            beside_each_other(Node.remove, (*self.nodes, self.head))
        subprocess.run(["ip", "netns", "del", self.net], check=False, capture_output=True)
