"""The journal: whole or not there, readable after any crash, with room left for an undo."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.errors import JournalError
from agents.journal import KEPT, Header, Journal, RestoreOutcome, closed_journals
from agents.messages import KnobChange, KnobReason
from agents.process import ProcessMark
from agents.state_files import StateFolder

AT = datetime(2026, 2, 2, 12, tzinfo=UTC)
FOUND = {"thp/enabled": "madvise", "thp/2048kB/enabled": "inherit"}


def header(claim: str = "c1", run: str = "r1", at: datetime = AT) -> Header:
    agent = ProcessMark(pid=12, started=34, session=56)
    return Header(
        claim=claim, run=run, owner="me", boot_id="b", claimed_at=at, lease_seconds=60.0, agent=agent, found=FOUND
    )


def change(after: str = "always", error: str | None = None) -> KnobChange:
    return KnobChange(
        knob="thp/enabled",
        before="madvise",
        wanted="always",
        after=after,
        reason=KnobReason.APPLY,
        changed_at=AT,
        error=error,
    )


def text(state_dir: Path) -> bytes:
    return (state_dir / "journal.jsonl").read_bytes().rstrip(b"\0")


def test_what_was_written_is_read_by_whoever_opens_it_next(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, header())
    journal.intend("thp/enabled", "madvise", "always", KnobReason.APPLY)
    journal.record(change())
    journal.record(change(error="mismatch"))
    journal.guard(ProcessMark(pid=7, started=8, session=9))
    journal.guard(ProcessMark(pid=70, started=80, session=90))
    journal.unguard(7)
    again = Journal.open(tmp_path)
    assert again is not None
    assert again.header == header()
    assert again.changes == (change(), change(error="mismatch"))
    assert again.guarded == (ProcessMark(pid=70, started=80, session=90),)
    assert again.is_open()
    assert again.in_place
    for one in (journal, again):
        one.leave()


def test_two_writers_see_each_other_and_overwrite_nothing(tmp_path: Path) -> None:
    agent = Journal.create(tmp_path, header())
    guardian = Journal.open(tmp_path)
    assert guardian is not None
    agent.record(change("a"))
    guardian.record(change("b"))
    agent.record(change("c"))
    assert [one.after for one in guardian.changes] == ["a", "b", "c"]
    for one in (agent, guardian):
        one.leave()


def test_nobody_holds_a_host_without_a_journal(tmp_path: Path) -> None:
    assert Journal.open(tmp_path) is None
    assert Journal.open(tmp_path / "nowhere") is None
    assert closed_journals(tmp_path) == ()


@settings(max_examples=25)
@given(cut=st.integers(min_value=0, max_value=10_000))
def test_a_line_torn_anywhere_loses_only_itself(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    state_dir = tmp_path_factory.mktemp("state")
    journal = Journal.create(state_dir, header())
    start = len(text(state_dir))
    journal.record(change("first"))
    whole = len(text(state_dir))
    journal.record(change("torn"))
    end = len(text(state_dir))
    journal.leave()
    keep = min(whole + cut % (end - whole), end - 2)  # a line that lacks its newline only is whole
    path = state_dir / "journal.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:keep] + bytes(len(data) - keep))
    again = Journal.open(state_dir)
    assert again is not None
    assert [one.after for one in again.changes] == ["first"]
    again.record(change("next"))
    assert [one.after for one in again.changes] == ["first", "next"]
    again.leave()
    third = Journal.open(state_dir)
    assert third is not None
    assert [one.after for one in third.changes] == ["first", "next"]
    third.leave()
    assert start < whole


def test_a_closed_journal_is_history_and_the_host_is_free(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, header())
    watching = Journal.open(tmp_path)
    journal.record(change())
    journal.close(RestoreOutcome.RELEASED, "all as found")
    assert not journal.is_open()
    assert watching is not None
    assert not watching.is_open()
    watching.leave()
    assert Journal.open(tmp_path) is None
    (closed,) = closed_journals(tmp_path)
    assert (closed.claim, closed.run, closed.outcome, closed.detail) == (
        "c1",
        "r1",
        RestoreOutcome.RELEASED,
        "all as found",
    )
    assert closed.found == FOUND
    assert closed.changes == (change(),)
    assert closed.closed_at > closed.claimed_at
    assert b"\0" not in next((tmp_path / "closed").iterdir()).read_bytes()


def test_a_new_claim_is_not_mistaken_for_the_old_one(tmp_path: Path) -> None:
    old = Journal.create(tmp_path, header())
    kept = Journal.open(tmp_path)
    old.close(RestoreOutcome.RELEASED)
    new = Journal.create(tmp_path, header("c2"))
    assert kept is not None
    assert not kept.is_open()
    assert not kept.in_place
    assert new.is_open()
    for one in (kept, new):
        one.leave()


def test_only_the_last_hundred_are_kept_and_they_can_be_asked_for_by_run(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        run = "odd" if number % 2 else "even"
        Journal.create(tmp_path, header(f"c{number}", run, AT + timedelta(seconds=number))).close(
            RestoreOutcome.RELEASED
        )
    closed = closed_journals(tmp_path)
    assert [one.claim for one in closed] == [f"c{number}" for number in range(3, KEPT + 3)]
    assert {one.run for one in closed_journals(tmp_path, "odd")} == {"odd"}


def test_a_damaged_header_is_an_error_with_a_remedy_and_nothing_is_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for damaged in (b"", b"\0" * 100, b'{"kind":"cl', b'{"kind":"change"}\n', b'{"kind":"claim"}\n', b"[1]\n"):
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match="by hand") as caught:
            Journal.open(tmp_path)
        assert caught.value.where == str(path)
        assert path.read_bytes() == damaged


def test_a_damaged_closed_journal_is_passed_over(tmp_path: Path) -> None:
    Journal.create(tmp_path, header()).close(RestoreOutcome.RELEASED)
    (tmp_path / "closed" / "20000101-x.jsonl").write_text("garbage")
    assert [one.claim for one in closed_journals(tmp_path)] == ["c1"]


def test_a_journal_that_is_moved_while_it_is_looked_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, really_open = Journal.create(tmp_path, header()), StateFolder.open

    def open_after_the_move(folder: StateFolder, name: str, flags: int = os.O_RDONLY) -> int:
        if journal.in_place:
            journal.close(RestoreOutcome.RELEASED)
        return really_open(folder, name, flags)

    monkeypatch.setattr(StateFolder, "open", open_after_the_move)
    assert [one.claim for one in closed_journals(tmp_path)] == ["c1"]


def test_a_journal_closed_but_not_moved_is_moved_by_the_next_to_look(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, header())
    (tmp_path / "closed").rmdir()
    (tmp_path / "closed").write_text("in the way")
    journal.close(RestoreOutcome.REBOOTED)
    assert (tmp_path / "journal.jsonl").exists()
    (tmp_path / "closed").unlink()
    (tmp_path / "closed").mkdir()
    assert Journal.open(tmp_path, read_only=True) is None
    assert (tmp_path / "journal.jsonl").exists()
    assert Journal.open(tmp_path) is None
    assert not (tmp_path / "journal.jsonl").exists()
    assert closed_journals(tmp_path)[0].outcome is RestoreOutcome.REBOOTED


def test_a_state_folder_that_was_removed_ends_no_claim(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    journal = Journal.create(state_dir, header())
    (state_dir / "journal.jsonl").unlink()
    (state_dir / "closed").rmdir()
    assert journal.is_open()
    assert not journal.in_place
    journal.close(RestoreOutcome.LEASE_EXPIRED)  # says nothing, raises nothing
    assert not journal.is_open()


def test_a_claim_that_cannot_be_journaled_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").write_text("in the way")
    with pytest.raises(JournalError):
        Journal.create(tmp_path, header())
    (tmp_path / "closed").unlink()

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(JournalError, match="input/output error"):
            Journal.create(tmp_path, header())
    assert [path.name for path in tmp_path.iterdir()] == ["closed"]


def test_on_a_full_disk_writes_are_refused_and_an_undo_is_still_recorded(
    tmp_path: Path, mounted: Callable[..., None]
) -> None:
    mounted("-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(tmp_path))
    journal = Journal.create(tmp_path, header())
    with pytest.raises(OSError, match="No space left"), (tmp_path / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    with pytest.raises(JournalError, match="No space left"):
        for _ in range(2000):
            journal.intend("thp/enabled", "madvise", "always", KnobReason.APPLY)
    for number in range(100):
        journal.record(change(str(number)))
    journal.close(RestoreOutcome.LEASE_EXPIRED)
    (closed,) = closed_journals(tmp_path)
    assert closed.outcome is RestoreOutcome.LEASE_EXPIRED
    assert [one.after for one in closed.changes] == [str(number) for number in range(100)]


def test_a_journal_grows_past_its_first_chunk(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, header())
    size = (tmp_path / "journal.jsonl").stat().st_size
    for number in range(200):
        journal.intend("thp/enabled", "madvise", "always" * 20, KnobReason.APPLY)
        journal.record(change(str(number)))
    assert (tmp_path / "journal.jsonl").stat().st_size > size
    again = Journal.open(tmp_path)
    assert again is not None
    assert len(again.changes) == 200
    for one in (journal, again):
        one.leave()


def test_what_could_not_be_closed_properly_is_history_of_unknown_end(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, header())
    journal.record(change())
    path = tmp_path / "journal.jsonl"
    path.rename(tmp_path / "closed" / "20260202-c1.jsonl")
    journal.leave()
    (closed,) = closed_journals(tmp_path)
    assert closed.outcome is RestoreOutcome.UNRECORDED
    assert closed.changes == (change(),)


def test_a_state_folder_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(JournalError, match="not a regular file"):
        Journal.open(tmp_path)


@pytest.mark.parametrize("pid", [0, -1, True, 1.5, "self", 2**40])
def test_a_number_that_no_process_has_is_guarded_by_nobody(tmp_path: Path, pid: object) -> None:
    """Group and session 0 are those of every process that a container sees from outside: all would be killed."""
    journal = Journal.create(tmp_path, header())
    journal._append({"kind": "guard", "pid": pid, "started": 0, "session": 0})
    journal.guard(ProcessMark(pid=70, started=80, session=90))
    assert journal.guarded == (ProcessMark(pid=70, started=80, session=90),)
    journal.leave()


@pytest.mark.parametrize("claim", ["../../x", "", "a/b", "a\0b", None, 7])
def test_a_claim_whose_name_is_no_name_of_a_file_is_refused(tmp_path: Path, claim: object) -> None:
    Journal.create(tmp_path, header()).leave()
    path = tmp_path / "journal.jsonl"
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps({**json.loads(first), "claim": claim}).encode() + b"\n" + rest)
    with pytest.raises(JournalError, match="claim"):
        Journal.open(tmp_path)


def test_a_journal_that_is_a_pipe_a_folder_or_mostly_hole_is_no_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl")
    for read_only in (True, False):
        with pytest.raises(JournalError, match="not a regular file"):
            Journal.open(tmp_path, read_only=read_only)
    assert closed_journals(tmp_path) == ()
    (tmp_path / "journal.jsonl").unlink()
    Journal.create(tmp_path, header()).leave()
    os.truncate(tmp_path / "journal.jsonl", 1 << 40)
    again = Journal.open(tmp_path)
    assert again is not None
    again.record(change())
    assert again.changes == (change(),)
    again.leave()


def test_lines_that_fill_more_than_one_reading_are_all_taken_in(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, header())
    for number in range(40):
        journal.record(change(str(number) * 20_000))
    again = Journal.open(tmp_path)
    assert again is not None
    assert len(again.changes) == 40
    journal.close(RestoreOutcome.RELEASED)
    assert len(closed_journals(tmp_path)[0].changes) == 40
    again.leave()


@pytest.mark.parametrize("field", ["claim", "claimed_at"])
def test_what_is_said_of_a_header_that_can_not_be_read_is_short_however_long_its_fields(
    field: str, tmp_path: Path
) -> None:
    Journal.create(tmp_path, header())
    record = json.loads(text(tmp_path).splitlines()[0]) | {field: AT.isoformat() + ":9" * 10_000}
    (tmp_path / "journal.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(JournalError) as caught:
        Journal.open(tmp_path)
    assert len(str(caught.value)) < 1_000 + len(str(tmp_path))


def test_a_full_journal_begins_nothing_more_and_still_records_the_undo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.journal._FULL_BYTES", 10_000)
    journal = Journal.create(tmp_path, header())
    journal.record(change("x" * 10_000))
    with pytest.raises(JournalError, match="full"):
        journal.intend("thp/enabled", "never", "always", KnobReason.APPLY)
    journal.record(change())
    journal.close(RestoreOutcome.RELEASED)
    assert closed_journals(tmp_path)[0].outcome is RestoreOutcome.RELEASED


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"found": {f"sysctl/vm.k{number}": "1" for number in range(1001)}}, id="1,001 knobs"),
        pytest.param({"found": {"thp/enabled": "x" * 4097}}, id="a value longer than a page"),
        pytest.param(
            {"found": {f"sysctl/vm.k{number}": "x" * 4096 for number in range(300)}}, id="longer than is read"
        ),
        pytest.param({"claim": "a b"}, id="a claim with a blank"),
        pytest.param({"owner": "\ud800"}, id="half a character"),
        pytest.param({"run": "r" * 100_001}, id="a long name of a run"),
        pytest.param({"lease_seconds": float("inf")}, id="a lease for ever"),
    ],
)
def test_a_claim_whose_journal_nobody_could_read_again_is_refused_before_it_is_written(
    tmp_path: Path, odd: dict[str, Any]
) -> None:
    with pytest.raises(JournalError, match="can't be read"):
        Journal.create(tmp_path, replace(header(), **odd))
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_names_more_knobs_than_a_claim_can_hold_is_refused_at_once(tmp_path: Path) -> None:
    Journal.create(tmp_path, header()).leave()
    path = tmp_path / "journal.jsonl"
    record = json.loads(text(tmp_path))
    record["found"] = {f"sysctl/vm.{number}": "1" for number in range(20_000)}
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(JournalError, match="20,000 knobs"):
        Journal.open(tmp_path)
