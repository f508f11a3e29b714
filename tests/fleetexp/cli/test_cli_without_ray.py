"""The command from a checkout, without installed metadata and without Ray: what needs none works, the rest says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetexp.exit_codes import ExitCode

REPOSITORY = Path(__file__).parents[3]
DEMO = str(REPOSITORY / "configs/thp-2m-demo.yaml")
HIDING = """
import importlib.abc, importlib.metadata, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ray":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
real = importlib.metadata.distribution

def distribution(name):
    if name in ("fleetexp", "ray"):
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)

importlib.metadata.distribution = distribution
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bare(tmp_path: Path) -> Run:
    """Run the command in an empty folder, with Ray and the metadata of fleetexp hidden from its interpreter."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(HIDING)
    work = tmp_path / "work"
    work.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fleetexp", *arguments],
            capture_output=True,
            text=True,
            timeout=110,
            cwd=work,
            env={**os.environ, "PYTHONPATH": f"{hidden}:{REPOSITORY}"},
            check=False,
        )

    return run


@pytest.mark.slow
def test_what_looks_at_a_host_needs_neither_ray_nor_metadata(bare: Run, host_root: Path) -> None:
    assert bare("--version").stdout == "fleetexp unknown\n"
    root = ("--root", str(host_root))
    for command in (["doctor", *root], ["plan", DEMO, *root], ["hosts", *root], ["restore", *root], ["sql"]):
        done = bare(*command)
        assert done.returncode == ExitCode.DONE, (command, done.stderr)


@pytest.mark.slow
def test_a_run_and_its_report_need_none_where_no_actor_is_asked_for(bare: Run) -> None:
    done = bare("run", DEMO, "--fleet", "simulated", "--hosts", "2")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert bare("report", "1").returncode == ExitCode.DONE
    versions = bare("sql", "SELECT versions FROM run", "--csv").stdout
    assert "unknown" in versions
    assert bare("export", "1", "--to", "out").returncode == ExitCode.DONE


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        ["hosts", "--fleet", "ray"],
        ["plan", DEMO, "--fleet", "ray"],
        ["run", DEMO, "--fleet", "simulated", "--actors", "1"],
    ],
)
def test_what_needs_ray_says_so_and_what_does_not(bare: Run, asked: list[str]) -> None:
    done = bare(*asked)
    assert done.returncode == ExitCode.ERROR
    assert "needs the package ray, which is not installed" in done.stderr
    assert "--fleet inline" in done.stderr
    assert "report it" not in done.stderr
