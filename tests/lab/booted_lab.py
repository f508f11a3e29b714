"""A lab that a test boots by the command, as a user does: what its guests have counted, and a run on it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fleetexp.lab.guest import Guest
from fleetexp.lab.machine import KernelImage
from fleetexp.lab.record import LabRecord, read_record
from tests.ray_cluster import PROJECT, until

RUN_SECONDS = 2400
# What the kernel has counted and how its knobs read: as the guest joins, and once more when it is asked for.
NOTES = """\
thp=/sys/kernel/mm/transparent_hugepage
seen() {
    grep thp_split_pud /proc/vmstat
    for name in anon_fault_alloc anon_fault_fallback split; do
        echo "$name $(cat $thp/hugepages-1048576kB/stats/$name)"
    done
    for knob in $thp/enabled $thp/hugepages-*/enabled; do echo "$knob $(cat $knob)"; done
}
seen >/mnt/share/before
(until [ -e /mnt/share/count ]; do sleep 1; done; seen >/mnt/share/new; mv /mnt/share/new /mnt/share/after) &
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "fleetexp", *words]


def fleetexp(*words: str, cwd: Path, within: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        command(*words), env=environment, cwd=cwd, capture_output=True, text=True, timeout=within, check=False
    )


@contextlib.contextmanager
def booting(folder: Path, image: KernelImage, *words: str, prepare: str = "") -> Iterator[subprocess.Popen[str]]:
    """Start `fleetexp lab boot`, in the foreground, with its folder below; whatever it leaves is ended afterwards.

    `prepare` is shell that each guest runs before it joins.
    """
    script = folder / "prepare.sh"
    script.write_text(prepare + NOTES)
    options = ["--folder", str(folder / "lab"), "--prepare", str(script), "--json", *words]
    try:
        with (
            (folder / "boot.log").open("w") as log,
            subprocess.Popen(
                # A test that is killed ends the command in order, which takes the guests away.
                [
                    *("setpriv", "--pdeathsig", "TERM"),
                    *command("lab", "boot", str(image.image), str(image.initramfs), *options),
                ],
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()
    finally:
        if (folder / "lab/lab.json").exists():
            fleetexp("lab", "stop", "--folder", str(folder / "lab"), cwd=folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootedLab:
    """A lab whose guests have all joined; `folder` holds its own folder, specs and reports."""

    folder: Path
    seen: dict[str, Any]
    record: LabRecord

    @classmethod
    def joined(cls, folder: Path, process: subprocess.Popen[str]) -> Self:
        """Wait until the command says that all have joined."""
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "boot.log").read_text()
        return cls(folder=folder, seen=json.loads(line), record=read_record(folder / "lab"))

    def run(self, spec: str, store: str) -> dict[str, Any]:
        """Run an experiment on the guests; returns exit code, the object printed, and what went to stderr."""
        (self.folder / "spec.yaml").write_text(spec)
        words = ["run", "spec.yaml", "--fleet", "ray", "--store", store, "--reports", "reports", "--json"]
        enter = ["lab", "enter", "--folder", str(self.folder / "lab"), *command(*words)]
        done = fleetexp(*enter, cwd=self.folder, within=RUN_SECONDS)
        assert done.stdout.strip(), (done.returncode, done.stderr[-4000:])
        return {"code": done.returncode, "out": json.loads(done.stdout), "err": done.stderr[-4000:]}

    def noted(self, guest: Guest) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the guest's counters and knobs, as it joined and now."""
        (guest.share / "count").touch()
        until((guest.share / "after").exists, 60, "the guest has counted")
        return _noted(guest.share / "before"), _noted(guest.share / "after")


def _noted(path: Path) -> dict[str, Any]:
    lines = dict(line.split(" ", 1) for line in path.read_text().splitlines())
    return {
        "knobs": {name: value for name, value in lines.items() if name.startswith("/")},
        "counters": {name: int(value) for name, value in lines.items() if not name.startswith("/")},
    }
