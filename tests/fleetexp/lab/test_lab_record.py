"""A lab is found again by its record, and `stop` ends whatever is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agents.process import mark_process
from fleetexp.errors import LabError
from fleetexp.lab import lab, network
from fleetexp.lab.guest import Guest, GuestState
from fleetexp.lab.guest_node import _PORTS, JOINED, _write_ports
from fleetexp.lab.joining import RayHead, joining_script
from fleetexp.lab.lab import entering, environment, stop, stop_what_is_left
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


def test_a_lab_killed_while_it_wrote_its_record_leaves_only_consoles_once_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    record = lab_in(tmp_path, Guest("lab-1", 101, tmp_path / "lab-1"))
    write_record(tmp_path, record, first=True)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(Path, "replace", lambda *_: signal.raise_signal(signal.SIGINT))
        write_record(tmp_path, record)
    record.guests[0].share.mkdir(parents=True)
    stop(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lab-1"]


def test_two_who_end_a_lab_at_once_both_find_it_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As 'fleetexp lab stop' and the 'lab boot' that sees its guests end by that, whoever overtakes the other."""
    if reason := why_not():
        pytest.skip(reason)
    read, ip = lab.read_record, network._ip

    def read_late(folder: Path) -> LabRecord:
        monkeypatch.undo()
        stop(folder)
        return read(folder)

    def removed_late(*words: str) -> None:
        if words[:2] == ("netns", "del"):
            ip(*words)
        ip(*words)

    for place, name, late in ((lab, "read_record", read_late), (network, "_ip", removed_late)):
        record = lab_in(tmp_path)
        write_record(tmp_path, record, first=True)
        record.network.create()
        monkeypatch.setattr(place, name, late)
        stop_what_is_left(tmp_path)
        assert not record.network.exists()
        assert not record_path(tmp_path).exists()
    with pytest.raises(LabError, match="no lab here"):
        stop(tmp_path)


def test_a_guest_whose_share_goes_while_it_is_stopped_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, really = Guest("lab-1", 101, tmp_path), Path.touch
    guest.share.mkdir()

    def after_the_other(path: Path) -> None:
        guest.share.rmdir()
        really(path)

    monkeypatch.setattr(Path, "touch", after_the_other)
    guest.stop()
    assert not guest.share.exists()


def test_a_port_that_ray_waits_for_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray reads each of these files as soon as it is there."""
    really, empty = Path.open, set[str]()

    def opened(path: Path, *how: Any, **more: Any) -> Any:  # noqa: ANN401 - as `open` has them
        file = really(path, *how, **more)
        empty.update(one.name for one in tmp_path.glob("*_n1") if not one.stat().st_size)
        return file

    program = ["/of/ray/raylet", "-c", "import time; time.sleep(60)", "--node_id=n1", f"--session_dir={tmp_path}"]
    with subprocess.Popen(program, executable=sys.executable) as raylet:
        monkeypatch.setattr(os, "getpid", lambda: raylet.pid - 1)
        monkeypatch.setattr(Path, "open", opened)
        _write_ports()
        raylet.kill()
    assert {one.name: int(one.read_text()) for one in tmp_path.iterdir()} == {
        f"{kind}_n1": port for kind, (_, port) in _PORTS.items()
    }
    assert empty == set()


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
