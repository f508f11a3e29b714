"""The mission, whole: a Ray head outside, a node inside a guest with 1 GB pages, a switchback, PostgreSQL, a report.

    python -m tests.lab.mission --kernel IMAGE --initramfs FILE [--append ARGUMENTS] [--keep FOLDER]

Any kernel will do whose initramfs keeps to `guest_machine`. Needs root, QEMU and PostgreSQL; takes minutes, because the
guest is emulated. It prints what the kernel counted, what the store holds, and how long each part took.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fleetexp.store.store import open_store
from tests.lab.guest_machine import Guest
from tests.postgresql_server import Server, programs
from tests.ray_cluster import DETECTION, PROJECT, Cluster, until

SPEC = """\
name: mission-1g
hypothesis: an experiment over a Ray cluster reaches a kernel with 1 GB pages and says what it did
design: switchback
population: {pools: [lab]}
control: small
arms:
  small: {thp/1048576kB/enabled: never, thp/2048kB/enabled: always}
  big: {thp/1048576kB/enabled: always, thp/2048kB/enabled: always}
assignment: {seed: 4}
periods: {washout: 1s, measure: 30s, blocks: 2, sample_every: 1s}
workload: {pointer_chase: {region: 1GiB, page_size: 1GiB, dereferences: 20000, pretouch: false}}
metrics: {primary: access_nanoseconds_per_dereference, secondary: [fault_seconds]}
safety: {lease: 120s, max_failed_hosts: 1}
"""
# An emulated node is slow, not dead; and it is given longer for each answer.
SLOW = {**DETECTION, "RAY_health_check_timeout_ms": "15000", "FLEETEXP_PATIENCE": "3"}
# Two processes of Ray's serve nothing here, with no dashboard and no runtime environments, and start slowly: they idle.
NODE = """\
cd /
export PYTHONPATH={project} RAY_AUTH_MODE=token RAY_AUTH_TOKEN={token} FLEETEXP_HOST={name} NUMBA_CACHE_DIR=/tmp/numba
{slow}
{prepare}
for folder in /tmp/ray /var/lib/fleetexp; do mkdir -p $folder && mount -t tmpfs own $folder; done
echo 'import signal; signal.pause()' > /tmp/ray/idle.py
for agent in {agents}; do mount --bind /tmp/ray/idle.py $agent; done
ip addr show dev eth0 | grep -q {address} || {{ ip link set eth0 up; ip addr add {address}/24 dev eth0; }}
exec {python} {script} {head} {address} {labels}
"""
RAY = Path(find_spec("ray").origin or "").parent  # type: ignore[union-attr]
AGENTS = ("dashboard/agent.py", "_private/runtime_env/agent/main.py")
JOIN_SECONDS, RUN_SECONDS = 900, 1800


class Lab:
    """A cluster of a head and guests, with a database; everything is gone after `close`."""

    def __init__(self, folder: Path, *, hosts: int = 0) -> None:
        self.folder = folder
        self.cluster = Cluster(folder / "cluster", hosts=hosts, environment=SLOW)
        self.guests: list[Guest] = []
        self.took: dict[str, float] = {}
        found = programs()
        assert found is not None, "PostgreSQL is not installed"
        self._server = Server(found)

    def start(self) -> None:
        self._server.start()
        self.store = self._server.by_socket(self._server.new_database())
        self.cluster.start()

    def boot(
        self, kernel: Path, initramfs: Path, arguments: str, *, name: str, memory: str = "8G", prepare: str = ""
    ) -> Guest:
        """Boot a guest, run a line of shell in it, and have it join the cluster with the label pool=lab."""
        number = 100 + len(self.guests)
        folder = self.folder / name
        folder.mkdir(parents=True)
        guest = Guest(self.cluster, folder, number, kernel, initramfs, arguments, memory)
        self.guests.append(guest)
        guest.start(
            NODE.format(
                project=PROJECT,
                token=self.cluster.token,
                name=name,
                slow="\n".join(f"export {key}={value}" for key, value in SLOW.items()),
                address=guest.address,
                python=sys.executable,
                script=PROJECT / "tests/lab/guest_node.py",
                head=self.cluster.address,
                labels="pool=lab",
                agents=" ".join(str(RAY / agent) for agent in AGENTS),
                prepare=prepare,
            )
        )
        return guest

    def timed(self, what: str, true: Callable[[], bool], within: float) -> None:
        self.took[what] = until(true, within, what)

    def joined(self, guest: Guest) -> bool:
        ended = guest.process.poll() if guest.process is not None else None
        assert guest.is_running(), f"QEMU ended with {ended}: {guest.console[-3000:]}"
        return (guest.share / "joined").exists()

    def run(self, spec: str) -> dict[str, Any]:
        """Run an experiment over the cluster; returns exit code, the object printed, and what went to stderr."""
        path = self.folder / "spec.yaml"
        path.write_text(spec)
        start = time.monotonic()
        words = ["run", str(path), "--fleet", "ray", "--address", self.cluster.address, "--store", self.store]
        words += ["--reports", str(self.folder / "reports"), "--json"]
        code, out, err = self.cluster.said(words, within=RUN_SECONDS)
        self.took["the run"] = time.monotonic() - start
        answer = json.loads(out) if out.strip() else {}
        assert "state" in answer, f"there was no run: exit code {code}, {answer}, {err[-4000:]}"
        return {"code": code, "out": answer, "err": err[-4000:]}

    def close(self) -> None:
        for guest in self.guests:
            with contextlib.suppress(OSError):
                guest.stop()
        self.cluster.close()
        self._server.stop("immediate")
        self._server.remove()


def noted(guest: Guest, name: str) -> dict[str, Any]:
    """What the guest has left on its share: its counters and its knob, before or after."""
    seen: dict[str, Any] = json.loads((guest.share / f"{name}.json").read_text())
    return seen


def mission(folder: Path, kernel: Path, initramfs: Path, arguments: str) -> dict[str, Any]:
    """Carry the mission out; returns the kernel's counters, what is stored, the run's answer and the times."""
    lab = Lab(folder)
    try:
        lab.start()
        guest = lab.boot(kernel, initramfs, arguments, name="guest-1")
        lab.timed("the guest has joined", lambda: lab.joined(guest), JOIN_SECONDS)
        run = lab.run(SPEC)
        stored: dict[str, Any] = {}
        with contextlib.closing(open_store(lab.store, create=False)) as store:
            stored["allocated"] = store.select(
                "SELECT p.arm, max(s.thp_1048576kb_anon_fault_alloc) - min(s.thp_1048576kb_anon_fault_alloc),"
                " max(s.thp_split_pud) - min(s.thp_split_pud), count(*) FROM period p"
                " JOIN sample s ON s.period_id = p.period_id"
                " WHERE p.kind = 'measure' AND p.state = 'complete' GROUP BY p.period_id, p.arm ORDER BY p.period_id"
            )
            stored["backed"] = store.select(
                "SELECT arm, max(maximum) FROM period_metrics WHERE metric = 'thp_1048576kB_backed_bytes'"
                " AND kind = 'measure' AND state = 'complete' GROUP BY arm ORDER BY arm"
            )
            stored["effects"] = store.select(
                "SELECT metric, control_mean, treatment_mean FROM effects WHERE headline = 1 AND role IN"
                " ('primary', 'secondary') ORDER BY metric"
            )
            stored["not_restored"] = store.select("SELECT count(*) FROM knob_audit WHERE restored = 'no'")[0][0]
        guest.stop()
        return {
            "run": run,
            "before": noted(guest, "before"),
            "after": noted(guest, "after"),
            "stored": stored,
            "report": [str(path) for path in (folder / "reports").glob("*.html")],
            "seconds": {what: round(seconds, 1) for what, seconds in lab.took.items()},
        }
    finally:
        lab.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kernel", type=Path, required=True)
    parser.add_argument("--initramfs", type=Path, required=True)
    parser.add_argument("--append", default="", help="arguments for the kernel, and through it for the initramfs")
    parser.add_argument("--keep", type=Path, help="folder for console, spec and report")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="fleetexp-mission-"))
    try:
        seen = mission(folder, given.kernel, given.initramfs, given.append)
        del seen["run"]["out"]["findings"]  # they are in the report
        sys.stdout.write(json.dumps(seen, indent=2, default=str) + "\n")
    finally:
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
