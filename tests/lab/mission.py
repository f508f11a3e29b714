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
periods: {washout: 1s, measure: 60s, blocks: 2, sample_every: 2s}
workload: {pointer_chase: {region: 1GiB, page_size: 1GiB, dereferences: 20000, repeats: 10, pretouch: false}}
metrics: {primary: access_nanoseconds_per_dereference, secondary: [fault_seconds]}
safety: {lease: 120s, max_failed_hosts: 1}
"""
# An emulated node is slow, not dead; and it is given longer for each answer.
SLOW = {**DETECTION, "RAY_health_check_timeout_ms": "30000", "FLEETEXP_PATIENCE": "6"}
NODE = """\
cd /
export PYTHONPATH={project} RAY_AUTH_MODE=token RAY_AUTH_TOKEN={token} FLEETEXP_HOST={name} NUMBA_CACHE_DIR=/tmp/numba
{slow}
ip addr show dev eth0 | grep -q {address} || {{ ip link set eth0 up; ip addr add {address}/24 dev eth0; }}
exec {python} {script} {head} {address} {labels}
"""
JOIN_SECONDS, SURVEY_SECONDS, RUN_SECONDS = 900, 420, 1500


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

    def boot(self, kernel: Path, initramfs: Path, arguments: str, *, name: str, memory: str = "8G") -> Guest:
        """Boot a guest and have it join the cluster with the label pool=lab."""
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
            )
        )
        return guest

    def timed(self, what: str, true: Callable[[], bool], within: float) -> None:
        self.took[what] = until(true, within, what)

    def joined(self, guest: Guest) -> bool:
        assert guest.is_running(), guest.console[-3000:]
        return (guest.share / "joined").exists()

    def sees(self, name: str) -> bool:
        """Whether `fleetexp hosts` finds the host free."""
        words = ["hosts", "--fleet", "ray", "--address", self.cluster.address, "--store", self.store, "--json"]
        code, out, _ = self.cluster.said(words, within=SURVEY_SECONDS)
        hosts = json.loads(out)["hosts"] if code == 0 else []
        return any(one["host"] == name and one["free"] for one in hosts)

    def run(self, spec: str) -> dict[str, Any]:
        """Run an experiment over the cluster; returns exit code, the object printed, and what went to stderr."""
        path = self.folder / "spec.yaml"
        path.write_text(spec)
        start = time.monotonic()
        words = ["run", str(path), "--fleet", "ray", "--address", self.cluster.address, "--store", self.store]
        words += ["--reports", str(self.folder / "reports"), "--json"]
        code, out, err = self.cluster.said(words, within=RUN_SECONDS)
        self.took["the run"] = time.monotonic() - start
        return {"code": code, "out": json.loads(out) if out.strip() else None, "err": err[-4000:]}

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
        lab.timed("its agent has answered", lambda: lab.sees("guest-1"), SURVEY_SECONDS)
        run = lab.run(SPEC)
        stored: dict[str, Any] = {}
        with contextlib.closing(open_store(lab.store, create=False)) as store:
            column = "thp_1048576kb_anon_fault_alloc"
            stored["allocated"] = store.select(
                f"SELECT p.arm, max(s.{column}) - min(s.{column}), max(s.thp_split_pud) - min(s.thp_split_pud), count(*)"  # noqa: S608
                " FROM period p JOIN sample s ON s.period_id = p.period_id"
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
        print(json.dumps(mission(folder, given.kernel, given.initramfs, given.append), indent=2, default=str))
    finally:
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
