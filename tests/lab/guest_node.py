"""Runs inside a guest: joins its Ray cluster as one node, and leaves the kernel's own counters on the share.

    python guest_node.py HEAD ADDRESS LABELS

Not a test itself: `mission.py` boots a guest and runs this in it. It ends when /mnt/share/stop appears.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

SHARE = Path("/mnt/share")
BIG = Path("/sys/kernel/mm/transparent_hugepage/hugepages-1048576kB")
# Ray waits 15 s for each of these files, which its agents write; an emulated machine needs longer to start those.
# The ports are given to `ray start` as well, so what is written ahead of time is what will be true.
PORTS = {
    "metrics_agent_port": 52365,
    "dashboard_agent_listen_port": 52366,
    "runtime_env_agent_port": 52367,
    "metrics_export_port": 52368,
}
PATIENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_raylet_start_wait_time_s": "400",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_worker_niceness": "0",
    "HOME": "/root",
}


def counters() -> dict[str, int]:
    """What the kernel has counted so far."""
    vmstat = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    out = {"thp_split_pud": int(vmstat.get("thp_split_pud", 0))}
    for name in ("anon_fault_alloc", "anon_fault_fallback", "split"):
        with contextlib.suppress(OSError):
            out[name] = int((BIG / "stats" / name).read_text())
    return out


def note(name: str) -> None:
    knob = BIG / "enabled"
    seen = {"counters": counters(), "knob": knob.read_text().strip() if knob.exists() else ""}
    (SHARE / f"{name}.json").write_text(json.dumps(seen))


def write_ports() -> None:
    """Write Ray's port files as soon as a raylet, which is younger than we are, names its session."""
    while True:
        for pid in [name for name in os.listdir("/proc") if name.isdigit() and int(name) > os.getpid()]:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                if not words[0].endswith("/raylet"):
                    continue
                given = dict(match.groups() for word in words if (match := re.match(r"--([a-z_-]+)=(.*)", word)))
                node = given.get("node_id") or given.get("node-id")
                session = given.get("session_dir") or given.get("session-dir")
                if node and session:
                    for kind, port in PORTS.items():
                        if not (file := Path(session) / f"{kind}_{node}").exists():
                            file.write_text(str(port))
                    return
        time.sleep(0.5)


def main() -> None:
    head, address, labels = sys.argv[1:]
    os.environ.update(PATIENCE)
    note("before")
    threading.Thread(target=write_ports, daemon=True).start()
    code = "from ray.scripts.scripts import main; main()"
    start = [
        sys.executable, "-c", code, "start", "--address", head, "--node-ip-address", address, "--num-cpus", "1",
        "--object-store-memory", "100000000", "--labels", labels, "--disable-usage-stats",
        "--dashboard-agent-grpc-port=52365", "--dashboard-agent-listen-port=52366",
        "--runtime-env-agent-port=52367", "--metrics-export-port=52368", "--include-log-monitor=false",
    ]  # fmt: skip
    subprocess.run(start, check=True)
    (SHARE / "joined").touch()
    while not (SHARE / "stop").exists():
        time.sleep(1)
    note("after")
    logs = Path("/tmp/ray/session_latest/logs")
    for log in ("raylet.out", "raylet.err", "dashboard_agent.log", "runtime_env_agent.log"):
        with contextlib.suppress(OSError):
            shutil.copyfile(logs / log, SHARE / log)


if __name__ == "__main__":
    main()
