"""A package of a user's own, installed into a folder as an installer would leave it, and Python run beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

Result: TypeAlias = Any  # whatever the code made
ROOT = Path(__file__).parents[1]
WORKLOAD = '''
from dataclasses import dataclass
from pathlib import Path

from agents.catalogue.declared import Reported
from agents.workloads.option import Options, count
from agents.workloads.workload import Workload

Path(__file__).with_name("imported").touch()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks(Options):
    """Count ticks."""

    ticks: int = count("how many", 3, default=2, least=1)


def run(options, root, emit):
    emit.ready()
    emit.measured({"ticks_counted": float(options.ticks)})


REPORTED = Reported(name="ticks_counted", unit="ticks", meaning="ticks that were counted", better="increase")
WORKLOAD = Workload(name="ticks", options=Ticks, reports=(REPORTED,), run=run)
'''
POINTS = {"fleetexp.workloads": {"ticks": "ticker:WORKLOAD"}}


def install(site: Path, name: str, modules: Mapping[str, str], points: Mapping[str, Mapping[str, str]]) -> Path:
    """Put a distribution into a folder: its modules, and what an installer writes of its entry points."""
    site.mkdir(mode=0o755, parents=True, exist_ok=True)
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(mode=0o755)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{key} = {at}\n" for key, at in own.items()) for group, own in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return site


def allow(folder: Path, *lines: str) -> Path:
    """Write an administrator's file."""
    folder.mkdir(mode=0o755, exist_ok=True)
    (folder / "extensions").write_text("".join(f"{line}\n" for line in lines))
    (folder / "extensions").chmod(0o644)
    return folder / "extensions"


def beside(site: Path, allowed: Path, code: str, *, project: Path = ROOT) -> Result:
    """Run code in a new process that finds the packages of `site`; return what it assigns to `result`."""
    script = (
        "import json, pathlib, agents.extensions\n"
        f"agents.extensions.ALLOWED = pathlib.Path({str(allowed)!r})\n"
        f"{code}\nprint(json.dumps(result))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(project), str(site)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    result: Result = json.loads(finished.stdout.splitlines()[-1])
    return result
