"""Records of the kernel's log that nobody wrote, and what must hold whatever they say."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from agents.collectors.kernel_log import KernelLog
from agents.messages import HostEventKind
from agents.sysroot import FolderRoot
from tests.cpu_time import no_hang

_CORPUS = Path(__file__).parent / "cases/kernel_log"
_RECORDS = [
    line.split("\t")[-1].encode()
    for name in ("harmless.tsv", "deadly.tsv")
    for line in (_CORPUS / name).read_text("utf-8").splitlines()
    if not line.startswith("#")
]
_ODD = (
    *(
        b"9" * 5_000,
        "٣".encode(),
        b"\xb2",
        b"-1",
        b",",
        b";",
        b"\0",
        b"\xff\xfe",
        b"\x1b[2J",
        b"[" * 5_000,
        b"a" * 8_192,
    ),
    *(
        b"BUG: ",
        b"watchdog: ",
        b"INFO: ",
        b"[#1] ",
        b"Oops",
        b" ",
        b"x.c:1: bad pmd ",
        b": 0 [#",
        b"\r",
        b"\x0b",
        b"\x85",
    ),
)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Draw some records of the corpus with pieces exchanged, put in, doubled or cut off."""
    some = []
    for taken in draw(st.lists(st.sampled_from(_RECORDS) | st.binary(max_size=80), min_size=1, max_size=4)):
        record = taken
        for _ in range(draw(st.integers(0, 2))):
            at, until = sorted(draw(st.tuples(*[st.integers(0, len(record))] * 2)))
            piece = draw(st.sampled_from(_ODD)) * draw(st.sampled_from((1, 1, 1, 50)))
            record = draw(st.sampled_from((record[:at] + piece + record[until:], piece + record, record[:at])))
        some.append(record)
    return b"\n".join(some) + b"\n"


@no_hang()
def hear(root: FolderRoot, data: bytes) -> int:
    """Let a host's log grow by these bytes: events of few plain words, in time. Returns how many."""
    file = root.root / "dev/kmsg"
    before = file.read_bytes()
    log = KernelLog(root)
    try:
        file.write_bytes(before + data)
        events = log.events()
        assert not log.events()
    finally:
        log.close()
        file.write_bytes(before)
    for kind, detail in events:
        assert kind in {HostEventKind.KERNEL_OOPS, HostEventKind.BAD_PAGE}
        assert 0 < len(detail) <= 300
        detail.encode()
    return len(events)
