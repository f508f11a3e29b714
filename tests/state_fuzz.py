"""Files of an agent's state that nobody wrote: journals, notes, spools; and what must hold whatever they say."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from agents import knob_restore
from agents import lease as lease_module
from agents.claim import claim_status, closed_journals
from agents.errors import AgentError, JournalError
from agents.host_lock import HostLock
from agents.journal import Header, Journal
from agents.knobs import find_knob, read_knob
from agents.lease import GuardianNote, Lease
from agents.messages import HostEvent, HostEventKind, KnobChange, KnobReason, Measurement, Sample
from agents.process import ProcessMark
from agents.recovery import read_lease, read_note, restore
from agents.spool import Spool, decode, encode
from agents.sysroot import FolderRoot
from tests.cpu_time import no_hang
from tests.host_tree import BOOT_ID, THP, build_host

AT = datetime(2026, 2, 2, 12, tzinfo=UTC)
NOBODY = ProcessMark(pid=4_194_300, started=10**12, session=4_194_300)  # no process of any machine
FOUND = {"thp/2048kB/enabled": "inherit", "thp/enabled": "madvise", "sysctl/vm.swappiness": "60"}
LEFT = {"thp/2048kB/enabled": b"always inherit [madvise] never", "thp/enabled": b"[always] madvise never"}
# Never a number that a process could have: what goes wrong here must not kill one.
_VALUES: tuple[Any, ...] = (
    *(None, -1, 1.5, 10**30, 1e308, math.nan, math.inf, "", "x", "\ud800", "a\0b", "\x1b[2J", "../../../x", "/etc/x"),
    *(
        "a" * 3_000,
        "9" * 5_000,
        "٣",
        [],
        {},
        [[]],
        {"a": {}},
        "2026-02-02",
        "2026-02-02T12:00:00",
        "0001-01-01T00:00:00",
    ),
    *({"pid": "self", "started": None, "session": ""}, {"pid": 1.5}, {"thp/enabled": None}, {"../x": "1"}),
    *(
        {"proc/sys/kernel/panic": "1", "thp/enabled": "madvise"},
        {"x" * 3_000: "y"},
        "claim",
        "close",
        "guard",
        "change",
    ),
)
_KEYS = ("kind", "knob", "pid", "at", "found", "agent", "claim", "detail", "x", "", "\ud800", "values")
NOISE = (
    *(
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"{}",
        b"[]",
        b"null",
        b"1",
        b'"',
        b"\0",
        b"\0\0\0",
        b"\xff\xfe",
        b"\n\n",
        b"NaN",
    ),
    *(
        b"9" * 5_000,
        b"-",
        b"1e999",
        b'{"kind":"change"}',
        b'{"kind":"guard","pid":"self","started":1,"session":1}',
        b"\r",
    ),
    *(
        b'{"kind":"close","outcome":"x","detail":"","at":"x"}',
        b'{"kind":["close"]}',
        b'{"kind":"later","x":1}',
        b" " * 999,
    ),
)


@st.composite
def mutated_lines(draw: st.DrawFn, text: bytes, *, first: int = 0) -> bytes:
    """Draw lines of JSON with values exchanged, lines lost, doubled or swapped, noise, an end cut; from `first` on."""
    for _ in range(draw(st.integers(1, 4))):
        head, lines = text.split(b"\n")[:first], text.split(b"\n")[first:]
        at = draw(st.integers(0, len(lines) - 1)) if lines else 0
        match draw(
            st.sampled_from(("value", "value", "value", "value", "lose", "double", "swap", "cut", "noise", "in"))
        ):
            case "value" if lines:
                lines[at] = draw(_mutated_record(lines[at]))
            case "lose" if lines:
                del lines[at]
            case "double" if lines:
                lines[at:at] = lines[at : at + 3] * draw(st.integers(1, 20))
            case "swap" if lines:
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "cut" if lines:
                tail = b"\n".join(lines)
                lines = [tail[: draw(st.integers(0, len(tail)))]]
            case "in" if lines:
                middle = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:middle] + draw(st.sampled_from(NOISE)) + lines[at][middle:]
            case _:
                lines.insert(at, draw(st.sampled_from(NOISE) | st.binary(max_size=40)))
        text = b"\n".join([*head, *lines])
    return text


@st.composite
def _mutated_record(draw: st.DrawFn, line: bytes) -> bytes:
    try:
        record = json.loads(line)
        places = list(_places(record))
    except (ValueError, RecursionError):
        return draw(st.sampled_from(NOISE))
    if not places:
        return line
    holder, key = draw(st.sampled_from(places))
    match draw(st.sampled_from(("value", "value", "value", "add", "lose"))):
        case "value":
            holder[key] = draw(st.sampled_from(_VALUES))
        case "lose":
            del holder[key]
        case _ if isinstance(holder, dict):
            holder[draw(st.sampled_from(_KEYS))] = draw(st.sampled_from(_VALUES))
        case _:
            holder.append(draw(st.sampled_from(_VALUES)))
    return json.dumps(record).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - whatever JSON holds
    if isinstance(tree, dict | list):
        for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
            yield tree, key
            yield from _places(value)


@contextmanager
def folder_in_memory(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder where an fsync costs nothing, if the machine has such a place."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield factory.mktemp("state")
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@contextmanager
def reading_once() -> Iterator[None]:
    """Have leases and notes read once: nobody is just writing them."""
    reads, lease_module._READS = lease_module._READS, 1
    try:
        yield
    finally:
        lease_module._READS = reads


# ------------------------------------------------------------------ a host with a journal
class Claimed:
    """A host that a dead agent has changed, set up anew for each journal, lease and note that is tried on it."""

    def __init__(self, folder: Path) -> None:
        self.root: FolderRoot = build_host(folder, thp_sizes_kib=(2048,), hugetlb_kib=(), cgroup_version=None)
        for unneeded in (THP + "/khugepaged", THP + "/hugepages-2048kB/stats", "proc/pressure"):
            shutil.rmtree(self.root.root / unneeded)
        state = self.root.state_dir
        state.mkdir(parents=True)
        header = Header(
            claim="c1",
            run="r1",
            owner="me",
            boot_id=BOOT_ID,
            claimed_at=AT,
            lease_seconds=60.0,
            agent=NOBODY,
            found=FOUND,
        )
        journal = Journal.create(state, header)
        change = {"before": "inherit", "after": "madvise", "reason": KnobReason.APPLY, "changed_at": AT, "error": None}
        journal.intend("thp/2048kB/enabled", "inherit", "madvise", KnobReason.APPLY)
        journal.record(KnobChange(knob="thp/2048kB/enabled", wanted="madvise", **change))  # type: ignore[arg-type]
        journal.guard(NOBODY)
        journal.unguard(NOBODY.pid)
        journal.leave()
        Lease.create(state, claim="c1", seconds=-1.0).close()
        GuardianNote.create(state, claim="c1").close()
        self.journal = (state / "journal.jsonl").read_bytes().rstrip(b"\0")
        self.lease, self.note = ((state / name).read_bytes() for name in ("lease", "guardian"))
        with HostLock(state):
            pass
        self.lock = (state / "state.lock").read_bytes()
        self._paths = {knob: find_knob(self.root, knob).path for knob in FOUND}
        self._before = self._files()

    def _files(self) -> dict[str, tuple[int, int]]:
        """Return when every file was written last, but for the state's and those of the knobs that the claim lists."""
        kept = {str(self.root.root / path) for path in self._paths.values()}
        return {
            entry.path: (entry.stat().st_mtime_ns, entry.stat().st_size)
            for folder, _, _ in os.walk(self.root.root)
            if not folder.startswith(str(self.root.state_dir))
            for entry in os.scandir(folder)
            if entry.is_file() and entry.path not in kept
        }

    @contextmanager
    def holding(self, *, journal: bytes, lease: bytes, note: bytes) -> Iterator[None]:
        """Put the host into the state that these files and a dead agent have left; no second is spent on retries."""
        state = self.root.state_dir
        shutil.rmtree(state)
        state.mkdir()
        (state / "closed").mkdir()
        for name, data in (("journal.jsonl", journal), ("lease", lease), ("guardian", note)):
            (state / name).write_bytes(data)
        for knob, text in LEFT.items():
            (self.root.root / self._paths[knob]).write_bytes(text)
        pause, knob_restore._FIRST_PAUSE_SECONDS = knob_restore._FIRST_PAUSE_SECONDS, 60.0
        try:
            with reading_once():
                yield
        finally:
            knob_restore._FIRST_PAUSE_SECONDS = pause

    @no_hang()
    def try_to_restore(self, *, journal: bytes, lease: bytes, note: bytes, whole_header: bool) -> str:
        """Look at the host, restore it, and look again: typed errors, and no file written but those of listed knobs."""
        with self.holding(journal=journal, lease=lease, note=note):
            said = "restored"
            for act in (self._look, self._restore, self._look):
                try:
                    act()
                except AgentError as error:
                    assert error.where
                    assert error.remedy
                    str(error).encode()
                    assert len(str(error)) < 5_000
                    said = "refused"
            assert self._files() == self._before
            outside = [path for path in self.root.root.parent.iterdir() if path != self.root.root]
            assert not outside
            if whole_header:
                now = {knob: read_knob(self.root, find_knob(self.root, knob)) for knob in FOUND}
                assert now == FOUND, f"what the header says was not put back: {now}"
                assert said == "restored"
        return said

    def _look(self) -> None:
        status = claim_status(self.root)
        if status is not None:
            assert math.isfinite(status.lease_remaining_seconds)
            f"{status.claim}{status.run}{status.owner}{status.guardian_detail}".encode()
        for journal in closed_journals(self.root):
            json.dumps(dict(journal.found)).encode()

    def _restore(self) -> None:
        for change in restore(self.root, force=True):
            assert change.ok or change.error


def record_file(content: bytes) -> bytes:
    """Return the bytes of a lease or note whose checksum is right, whatever it says."""
    return (b"%08x %b\n" % (zlib.crc32(content), content)).ljust(1024)


def notes(base: bytes) -> st.SearchStrategy[bytes]:
    """Draw what a lease, note or signature may say instead: with the right checksum, or as a file of any bytes."""
    content = base[9:].rstrip()
    signed = mutated_lines(content).map(record_file) | st.sampled_from(NOISE).map(record_file)
    return signed | mutated_lines(base) | st.binary(max_size=1200)


@no_hang()
def read_notes(state_dir: Path, data: bytes) -> None:
    """Read the bytes as lease, as note and as the signature of the lock: a state that can be, or a JournalError."""
    for name in ("lease", "guardian", "state.lock"):
        (state_dir / name).write_bytes(data)
    root = FolderRoot(state_dir)
    with reading_once():
        for opened in (Lease.open(state_dir), GuardianNote.open(state_dir)):
            assert opened is not None
            try:
                state: Any = opened.read()
            except JournalError as error:
                assert error.where
                assert error.remedy
            else:
                state.claim.encode()
                if isinstance(opened, Lease):
                    assert math.isfinite(state.remaining_seconds)
                    assert state.expired == (state.remaining_seconds == 0.0)
                else:
                    state.detail.encode()
                    _check_mark(state.process)
            finally:
                opened.close()
        assert read_lease(root, "c1") is None
        assert read_note(root, "c1") is None
    _check_mark(HostLock(state_dir).holder())


def _check_mark(mark: ProcessMark | None) -> None:
    if mark is not None:
        assert all(type(number) is int for number in (mark.pid, mark.started, mark.session))
        assert 0 < mark.pid < 2**31


# ------------------------------------------------------------------ the spool
SPOOL = "\n".join(
    [
        "0",
        encode(Sample(position=1, period_id=1, sequence=1, taken_at=AT, boottime_seconds=5.0, values={"pgfault": 1.0})),
        encode(Measurement(position=2, period_id=1, sequence=2, taken_at=AT, metric="latency", value=0.5)),
        encode(HostEvent(position=3, period_id=1, sequence=3, taken_at=AT, kind=HostEventKind.DRIFT, detail="x")),
        encode(
            Sample(position=4, period_id=2, sequence=1, taken_at=AT, boottime_seconds=6.0, values={"a": 1, "b": 2.5})
        ),
        "",
    ]
).encode()


@no_hang()
def open_spool(folder: Path, data: bytes) -> int:
    """Open a spool of these bytes, use it and open it again: every reading is one that a store takes. Returns how many.

    Readings that are spooled from now on are found by whoever opens it next.
    """
    path = folder / "s.jsonl"
    path.write_bytes(data)
    opened: list[Spool] = []
    try:
        spool = Spool(path)
        opened.append(spool)
        held, more = spool.pending(10_000)
        assert not more
        positions = [reading.position for reading in held]
        assert positions == sorted(set(positions))
        assert all(0 < position <= spool.last_position < 2**62 for position in positions)
        for reading in held:
            assert decode(encode(reading)) == reading
            assert reading.taken_at.tzinfo is not None
            encode(reading).encode("ascii")
            words = json.loads(encode(reading))
            json.dumps(words, allow_nan=False)
        spool.append(lambda at: Measurement(position=at, period_id=1, sequence=9, taken_at=AT, metric="m", value=1.0))
        spool.append(lambda at: Measurement(position=at, period_id=1, sequence=10, taken_at=AT, metric="m", value=2.0))
        opened.append(Spool(path))
        assert [one.sequence for one in opened[-1].pending(10_000)[0]][-2:] == [9, 10]
        assert opened[-1].last_position == spool.last_position
    finally:
        for one in opened:
            one.close()
        for left in folder.iterdir():
            left.unlink()
    return len(held)
