"""What the processes that we start can read of our secrets: nothing, in argv and environment, but Ray's own token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.messages import MetricSource, SourceForm
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.command_output import run_command
from agents.metric_sources.page import SourcePage
from agents.metric_sources.parser import Readers
from agents.workloads.environment import command_environment
from agents.workloads.kinds.command import Command
from fleetexp.fleets.ray.link import RayLink
from tests.fleetexp.store.odd_urls import pieces

DEMO = Path(__file__).parents[3] / "configs" / "thp-2m-demo.yaml"
STORE = "postgresql://fleet:Wint3rH4rbour@127.0.0.1:1/x"
OURS = {"FLEETEXP_STORE": STORE, "FLEETEXP_TOKEN": "Wint3rH4rbour1234", "PGPASSWORD": "Wint3rH4rbour"}
RAYS = "of-Ray-0123456789"


@pytest.fixture(autouse=True)
def secrets_in_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (OURS | {"RAY_AUTH_TOKEN": RAYS}).items():
        monkeypatch.setenv(name, value)


def descendants(pid: int) -> Iterator[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, listed):
        yield child
        yield from descendants(child)


def seen_of(pid: int) -> str:
    """Return what `ps` and /proc show root of a process: its words and its variables."""
    try:
        return "\n".join(Path(f"/proc/{pid}/{name}").read_text(errors="replace") for name in ("cmdline", "environ"))
    except OSError:
        return ""


def test_a_command_that_reads_a_metric_finds_no_secret(tmp_path: Path) -> None:
    said = run_command(
        ["cat", "/proc/self/environ", "/proc/self/cmdline"], user=None, timeout_seconds=5, cut=Cancellation()
    )
    assert b"PATH=" in said
    assert not pieces(said.decode())
    assert RAYS not in said.decode()


def test_a_workload_is_given_no_secret() -> None:
    options = Command(argv=("/bin/true",), timeout_seconds=None, user=None, env=("THREADS=4",), capture="none")
    environment = command_environment(options)
    assert environment["THREADS"] == "4"
    assert not pieces(str(environment))
    assert RAYS not in environment.values()


def test_the_process_that_understands_pages_is_given_no_secret() -> None:
    before = set(descendants(os.getpid()))
    readers = Readers()
    source = MetricSource(metric="x", form=SourceForm.PROMETHEUS, pick="x", url="http://h/Wint3rH4rbour")
    readers.pick(SourcePage(body=b"x 1\n"), (source,), seconds=30.0, cut=Cancellation())
    (new,) = set(descendants(os.getpid())) - before
    shown = seen_of(new)
    readers.close()
    assert "PATH=" in shown
    assert not pieces(shown)
    assert RAYS not in shown


def test_the_process_that_talks_to_ray_is_given_rays_token_and_none_of_ours() -> None:
    link = RayLink("127.0.0.1:1")
    try:
        shown = seen_of(link._process.pid)
    finally:
        link._kill()
    assert RAYS in shown.partition("RAY_AUTH_TOKEN=")[2]
    assert not pieces(shown)


@pytest.mark.slow
def test_no_process_of_a_ray_node_of_ours_is_given_a_secret_of_ours(tmp_path: Path) -> None:
    words = ["run", str(DEMO), "--fleet", "simulated", "--hosts", "8", "--actors", "1", "--acknowledge-power", "--json"]
    package = str(Path(__file__).parents[3])
    environment = {**os.environ, "FLEETEXP_STORE": f"sqlite:///{tmp_path}/Wint3rH4rbour.db", "PYTHONPATH": package}
    shown: dict[int, str] = {}
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleetexp", *words], cwd=tmp_path, env=environment, stdout=out, stderr=err
        )
        with process:
            while process.poll() is None:
                shown |= {pid: text for pid in descendants(process.pid) if (text := seen_of(pid)).strip("\0\n")}
                time.sleep(0.05)
    assert process.returncode == 0, (tmp_path / "err").read_text()
    assert json.loads((tmp_path / "out").read_text())["store"].endswith("Wint3rH4rbour.db")
    assert any("raylet" in text for text in shown.values())
    assert any("HostPool" in text or "default_worker.py" in text for text in shown.values())
    parts = {part for text in shown.values() for part in text.replace("\n", "\0").split("\0")}
    assert not [part for part in parts if pieces(part)]
