"""The lab's record on disk: written before anything is made, so that whatever a kill leaves behind can be found."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from agents.json_fields import as_object, as_text, as_whole, read_object
from agents.process import mark_record, parse_mark
from fleetexp.errors import LabError
from fleetexp.lab.guest import Guest
from fleetexp.lab.joining import PORT, RayHead
from fleetexp.lab.network import Network

_NAME = "lab.json"
_FRESH = "lab.new"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabRecord:
    """What a lab consists of. The file is root's alone: it holds the cluster's token."""

    network: Network
    head: RayHead
    kernel: str
    guests: tuple[Guest, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What a command is given that is to reach the lab's hosts."""
        return {**self.head.variables, "FLEETEXP_RAY_ADDRESS": self.head.address, "RAY_ADDRESS": self.head.address}


def record_path(folder: Path) -> Path:
    return folder / _NAME


def write_record(folder: Path, record: LabRecord, *, first: bool = False) -> None:
    """Write the record; `first`: LabError where the folder has one already."""
    path = record_path(folder)
    target = path if first else folder / _FRESH
    text = json.dumps(
        {
            "space": record.network.space,
            "token": record.head.token,
            "ray": str(record.head.folder),
            "kernel": record.kernel,
            "hosts": [
                {
                    "name": guest.name,
                    "number": guest.number,
                    "address": record.network.address(guest.number),
                    "console": str(guest.console_path),
                    "process": None if guest.mark is None else mark_record(guest.mark),
                }
                for guest in record.guests
            ],
        },
        indent=2,
    )
    if not first:
        target.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except FileExistsError as error:
        remedy = "end it with 'fleetexp lab stop', or name another --folder"
        raise LabError("there is a lab here already, or what a killed one left", str(folder), remedy) from error
    if not first:
        target.replace(path)


def remove_record(folder: Path) -> None:
    """Remove the record, and one that a kill left half written beside it."""
    for name in (_FRESH, _NAME):
        (folder / name).unlink(missing_ok=True)


def read_record(folder: Path) -> LabRecord:
    """Return the record of the folder; LabError where there is none, or what is there is none."""
    path = record_path(folder)
    try:
        values = read_object(path.read_bytes())
        network = Network(space=as_text(values.get("space"), "space"))
        hosts = values.get("hosts")
        if not isinstance(hosts, list):
            raise ValueError("the hosts are no list")
        return LabRecord(
            network=network,
            head=RayHead(
                address=f"{network.head}:{PORT}",
                token=as_text(values.get("token"), "token"),
                folder=Path(as_text(values.get("ray"), "ray")),
            ),
            kernel=as_text(values.get("kernel"), "kernel"),
            guests=tuple(_guest(folder, host) for host in hosts),
        )
    except FileNotFoundError as error:
        raise LabError("there is no lab here", str(folder), "boot one: fleetexp lab boot KERNEL INITRAMFS") from error
    except (OSError, ValueError) as error:
        remedy = "look at it, and at 'ip netns list'; delete it once nothing of the lab is left"
        raise LabError(f"the lab's record can't be read: {error}", str(path), remedy) from error


def _guest(folder: Path, value: object) -> Guest:
    host = as_object(value, "a host")
    name, process = as_text(host.get("name"), "name"), host.get("process")
    mark = None if process is None else parse_mark(process)
    return Guest(name, as_whole(host.get("number"), "number"), folder / name, mark)
