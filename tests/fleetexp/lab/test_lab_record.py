"""A lab is found again by its record, and `stop` ends whatever is left of it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from agents.process import mark_process
from fleetexp.lab.guest import Guest, GuestState
from fleetexp.lab.guest_node import JOINED
from fleetexp.lab.joining import RayHead, joining_script
from fleetexp.lab.lab import entering, environment, stop
from fleetexp.lab.network import Network
from fleetexp.lab.record import LabRecord, read_record, record_path, write_record
from tests.ray_cluster import why_not


def lab_in(folder: Path, *guests: Guest) -> LabRecord:
    network = Network(space=f"fxlab{os.getpid()}")
    head = RayHead(address=f"{network.head}:6379", token="c0ffee", folder=folder / "ray/r")  # noqa: S106 - of no cluster
    return LabRecord(network=network, head=head, kernel="/boot/bzImage", guests=guests)


def test_a_record_is_read_as_it_was_written_and_is_root_s_alone(tmp_path: Path) -> None:
    record = lab_in(tmp_path, Guest("lab-1", 101, tmp_path / "lab-1", mark_process(os.getpid())))
    write_record(tmp_path, record, first=True)
    assert read_record(tmp_path) == record
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert record_path(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_guest_is_known_by_its_process_and_by_what_it_left_on_its_share(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        guest = Guest("lab-1", 101, tmp_path, mark_process(process.pid))
        assert guest.state is GuestState.BOOTING
        guest.share.mkdir()
        (guest.share / JOINED).touch()
        assert guest.state is GuestState.JOINED
        process.kill()
        process.wait()
        assert guest.state is GuestState.ENDED


def test_the_script_of_a_guest_is_sound_shell_and_prepares_before_it_joins(tmp_path: Path) -> None:
    head = lab_in(tmp_path / "a folder").head
    script = joining_script(head, name="lab-1", address="10.231.78.101", prepare="sysctl -w vm.swappiness=1")
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert script.index("vm.swappiness") < script.index("fleetexp.lab.guest_node")


def test_what_runs_on_the_lab_s_network_is_let_into_its_cluster_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/etc/fleetexp/token")
    monkeypatch.setenv("FLEETEXP_STORE", "sqlite:///mine.db")
    found = environment(lab_in(tmp_path))
    assert (found["RAY_AUTH_TOKEN"], found["FLEETEXP_RAY_ADDRESS"]) == ("c0ffee", "10.231.78.1:6379")
    assert found["FLEETEXP_STORE"] == "sqlite:///mine.db"
    assert "RAY_AUTH_TOKEN_PATH" not in found


@pytest.mark.slow
def test_stop_ends_what_runs_on_the_network_though_it_ignores_sigterm_and_removes_all_but_consoles(
    tmp_path: Path,
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    record = lab_in(tmp_path, Guest("lab-1", 101, tmp_path / "lab-1"))
    write_record(tmp_path, record, first=True)
    record.head.folder.mkdir(parents=True)
    record.guests[0].share.mkdir(parents=True)
    record.guests[0].console_path.write_text("it booted\n")
    try:
        record.network.create()
        record.network.plug(101)
        script = "trap '' TERM; touch ready; while :; do sleep 1; done"
        words = entering(record, ["sh", "-c", script])
        with subprocess.Popen(words, cwd=tmp_path, env=environment(record)) as process:
            while not (tmp_path / "ready").exists():
                time.sleep(0.05)
            stop(tmp_path)
            assert process.wait(timeout=5) == -9
    finally:
        record.network.remove()
    assert not record.network.exists()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["console.log", "lab-1", "ready"]
