"""Lease and note: rewritten in place on any disk, and never misread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.errors import JournalError
from agents.lease import GuardianNote, GuardianState, Lease, Phase, RewrittenRecord, boot_seconds
from agents.process import ProcessMark


def test_a_lease_runs_out_and_is_extended(tmp_path: Path) -> None:
    lease = Lease.create(tmp_path, claim="c1", seconds=0.0)
    assert lease.read().expired
    assert lease.read().remaining_seconds == 0.0
    lease.extend("c1", boot_seconds() + 60)
    other = Lease.open(tmp_path)
    assert other is not None
    state = other.read()
    assert (state.claim, state.expired, state.over) == ("c1", False, False)
    assert 59 < state.remaining_seconds <= 60
    lease.finish("c1")
    assert other.read().over
    lease.close()
    other.close()


def test_a_new_lease_leaves_the_old_one_to_whoever_has_it_open(tmp_path: Path) -> None:
    old = Lease.create(tmp_path, claim="c1", seconds=1.0)
    new = Lease.create(tmp_path, claim="c2", seconds=1.0)
    old.finish("c1")
    assert (old.read().claim, old.read().over) == ("c1", True)
    assert (new.read().claim, new.read().over) == ("c2", False)
    old.close()
    new.close()


def test_a_lease_that_is_closed_while_it_is_extended_writes_into_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll renews while a release lets go: the next file to be opened gets the number of the descriptor."""
    lease, really = Lease.create(tmp_path, claim="c1", seconds=60.0), os.pwrite
    release = threading.Thread(target=lease.close)
    (tmp_path / "journal").write_bytes(b"keep")
    with (tmp_path / "journal").open("r+b") as next_file:

        def closed_meanwhile(fd: int, data: bytes, offset: int) -> int:
            release.start()
            release.join(0.2)  # the longest that a lease which is in use is waited for here
            if not release.is_alive():
                os.dup2(next_file.fileno(), fd)
            return really(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", closed_meanwhile)
        lease.extend("c1", boot_seconds() + 60)
        release.join()
    monkeypatch.undo()
    assert (tmp_path / "journal").read_bytes() == b"keep"
    with pytest.raises(JournalError):
        lease.extend("c1", boot_seconds() + 60)


def test_a_note_says_who_and_what(tmp_path: Path) -> None:
    note = GuardianNote.create(tmp_path, claim="c1")
    assert note.read() == GuardianState(claim="c1", phase=Phase.STARTING, process=None)
    stuck = GuardianState(
        claim="c1", phase=Phase.STUCK, process=ProcessMark(pid=1, started=2, session=3), detail="in use — 1 GiB" * 100
    )
    note.write(stuck)
    other = GuardianNote.open(tmp_path, read_only=True)
    assert other is not None
    read = other.read()
    assert (read.phase, read.process, read.has_taken_over) == (Phase.STUCK, stuck.process, True)
    assert read.detail.startswith("in use ? 1 GiB")
    with pytest.raises(JournalError):
        other.write(stuck)
    note.close()
    other.close()
    other.close()


def test_there_may_be_none(tmp_path: Path) -> None:
    assert Lease.open(tmp_path) is None
    assert GuardianNote.open(tmp_path / "nowhere") is None
    (tmp_path / "lease").mkdir()
    with pytest.raises(JournalError, match="not a regular file"):
        Lease.open(tmp_path)


def test_damage_is_noticed_not_believed(tmp_path: Path) -> None:
    lease = Lease.create(tmp_path, claim="c1", seconds=60.0)
    path = tmp_path / "lease"
    path.write_bytes(path.read_bytes().replace(b"c1", b"c2"))
    with pytest.raises(JournalError, match="damaged"):
        lease.read()
    path.write_bytes(b"")
    with pytest.raises(JournalError, match="damaged"):
        lease.read()
    lease.close()


def test_a_reader_never_sees_half_a_record(tmp_path: Path) -> None:
    record = RewrittenRecord.create(tmp_path / "r", {"n": 0, "text": ""})
    done = threading.Event()

    def write() -> None:
        for number in range(3000):
            record.write({"n": number, "text": str(number) * (number % 150)})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reader = RewrittenRecord.open(tmp_path / "r", read_only=True)
    assert reader is not None
    while not done.is_set():
        content = reader.read(dict)
        assert content["text"] == str(content["n"]) * (int(str(content["n"])) % 150)
    writer.join()
    record.close()
    reader.close()


def test_a_renewal_needs_no_room_on_the_disk(tmp_path: Path, mounted: Callable[..., None]) -> None:
    mounted("-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(tmp_path))
    lease = Lease.create(tmp_path, claim="c1", seconds=60.0)
    with pytest.raises(OSError, match="No space left"), (tmp_path / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    for _ in range(100):
        lease.extend("c1", boot_seconds() + 60)
    assert not lease.read().expired
    with pytest.raises(JournalError, match="No space left"):
        GuardianNote.create(tmp_path, claim="c1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["filler", "lease"]
    lease.close()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file"):
        Lease.create(tmp_path / "nowhere", claim="c1", seconds=1.0)
