"""A Ray node of our own on this machine: no other user of it can get in, look in, or slip code into its workers.

It asks for a token, because Ray listens on every address. Its folder, which Ray opens to all, lies in one that is ours
alone. Its workers do not import from the folder that fleetexp was started in, which may be anybody's.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from fleetexp.errors import RunError
from fleetexp.secret import secrets_withheld
from fleetexp.shipped import PACKAGES

_FOLDERS: list[Path] = []


@atexit.register  # before Ray's own: what is registered last runs first
def _clear() -> None:
    for folder in _FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)


# Read once, when Ray is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 would slow down what is measured
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # noqa: E402

from fleetexp.fleets.ray.actors import OwnCode  # noqa: E402


def start_node(object_store_bytes: int) -> None:
    """Start the node and connect to it; RunError, and its folder is left for its logs, where that fails."""
    # Ray's paths of sockets have little room: a long TMPDIR would be too long.
    folder = Path(tempfile.mkdtemp(prefix="fleetexp-", dir=os.environ.get("RAY_TMPDIR", "/tmp")))  # noqa: S108
    try:
        with secrets_withheld():
            ray.init(
                address="local",
                num_cpus=1,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                object_store_memory=object_store_bytes,
                job_config=OwnCode(_py_driver_sys_path=[PACKAGES]),
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder / "r"),
            )
    except (RuntimeError, OSError, ValueError) as error:
        raise RunError(f"Ray did not start: {error}", where=str(folder), remedy="see its logs there") from error
    _FOLDERS.append(folder)
