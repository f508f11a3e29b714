"""Runs inside a guest: joins its Ray cluster as one node, and stays until it is told to end.

    python -m fleetexp.lab.guest_node HEAD ADDRESS LABELS

It says that it has joined, and is told to end, by files on the share.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from fleetexp.lab.initramfs import SHARE

JOINED, STOP = "joined", "stop"
LOGS = ("raylet.out", "raylet.err")
RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
# Ray waits 15 s for each of these files, which its agents write; an emulated machine needs longer to start those.
# The ports are given to `ray start` as well, so what is written ahead of time is what will be true.
_PORTS = {
    "metrics_agent_port": ("dashboard-agent-grpc-port", 52365),
    "dashboard_agent_listen_port": ("dashboard-agent-listen-port", 52366),
    "runtime_env_agent_port": ("runtime-env-agent-port", 52367),
    "metrics_export_port": ("metrics-export-port", 52368),
}
_LONGER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_raylet_start_wait_time_s": "400",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_worker_niceness": "0",
}


def _write_ports() -> None:
    """Write Ray's port files as soon as a raylet, which is younger than we are, names its session."""
    while True:
        for pid in [name for name in os.listdir("/proc") if name.isdigit() and int(name) > os.getpid()]:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                if not words[0].endswith("/raylet"):
                    continue
                given = {
                    match[1].replace("-", "_"): match[2]
                    for word in words
                    if (match := re.match(r"--([a-z_-]+)=(.*)", word))
                }
                if "node_id" in given and "session_dir" in given:
                    for kind, (_, port) in _PORTS.items():
                        if not (file := Path(given["session_dir"]) / f"{kind}_{given['node_id']}").exists():
                            fresh = file.with_name(f"fleetexp-{file.name}.new")
                            fresh.write_text(str(port))
                            fresh.rename(file)  # Ray reads it as soon as it is there
                    return
        time.sleep(0.5)


def main() -> None:
    """Join, and wait for the end."""
    head, address, labels, folder = sys.argv[1:]
    share = Path(SHARE)
    os.environ.update(_LONGER)
    threading.Thread(target=_write_ports, daemon=True).start()
    start = [
        *RAY, "start", "--address", head, "--node-ip-address", address, "--num-cpus", "1", "--labels", labels,
        "--object-store-memory", "100000000", "--disable-usage-stats", "--include-log-monitor=false",
        *(f"--{option}={port}" for option, port in _PORTS.values()),
    ]  # fmt: skip
    subprocess.run(start, check=True)
    (share / JOINED).touch()
    while not (share / STOP).exists():
        time.sleep(1)
    for log in LOGS:
        with contextlib.suppress(OSError):
            shutil.copyfile(Path(folder) / "session_latest/logs" / log, share / log)


if __name__ == "__main__":
    main()
