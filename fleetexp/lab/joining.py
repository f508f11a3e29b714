"""What makes a guest a node of a Ray cluster: the script that it runs, the longer times that emulated nodes need."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fleetexp.errors import LabError
from fleetexp.lab.initramfs import SAYS
from fleetexp.shipped import PACKAGES

PORT = 6379
# An emulated node is slow, not dead: its head asks again for more than a minute before it gives it up.
PATIENT = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "15000",
    "RAY_health_check_failure_threshold": "4",
    "FLEETEXP_TIMEOUT_FACTOR": "10",
}
# Two processes of Ray's serve nothing here, with no dashboard and no runtime environments, and start slowly: they idle.
_AGENTS = ("dashboard/agent.py", "_private/runtime_env/agent/main.py")
_SCRIPT = """\
cd /
echo {name} >/proc/sys/kernel/hostname
[ -n "$CARD" ] || {{ echo "{says} lacks network"; exit 1; }}
{exports}
{prepare}
for folder in {folder} /var/lib/fleetexp; do mkdir -p $folder && mount -t tmpfs own $folder || exit; done
echo 'import signal; signal.pause()' > {folder}/idle.py
for agent in {agents}; do mount --bind {folder}/idle.py $agent || exit; done
ip link set lo up && ip link set "$CARD" up && ip addr add {address}/24 dev "$CARD" || exit
ip route add default via {gateway} || exit  # Ray asks the routes which address is its own
exec {python} -P -m fleetexp.lab.guest_node {head} {address} {labels} {folder}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayHead:
    """The cluster that guests join; `folder` is where Ray keeps its sessions, on the head and on every node."""

    address: str
    token: str
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment of whoever is let in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, **PATIENT}


def joining_script(head: RayHead, *, name: str, address: str, prepare: str = "") -> str:
    """Return what a guest runs to join as the host of this name in the pool 'lab'; `prepare` is shell, run before."""
    variables = {
        **head.variables,
        "PYTHONPATH": PACKAGES,
        "NUMBA_CACHE_DIR": "/tmp/numba",  # noqa: S108 - of the guest, which has no other user
    }
    ray = ray_folder()
    return _SCRIPT.format(
        says=SAYS,
        exports="\n".join(f"export {key}={shlex.quote(value)}" for key, value in variables.items()),
        prepare=prepare,
        folder=shlex.quote(str(head.folder)),
        agents=" ".join(shlex.quote(str(ray / agent)) for agent in _AGENTS),
        address=address,
        python=shlex.quote(sys.executable),
        head=head.address,
        gateway=head.address.rpartition(":")[0],
        name=name,
        labels=f"pool=lab,fleetexp.host={name}",  # known by its label before it has said a word
    )


def ray_folder() -> Path:
    """Return where the package ray is; LabError where it is not installed."""
    found = find_spec("ray")
    if found is None or found.origin is None:
        raise LabError("a lab needs the package ray, which is not installed", remedy="install it: pip install ray")
    return Path(found.origin).parent
