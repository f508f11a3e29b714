"""What the kernel's log and taint flags mean, and that they are heard as they come."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.collectors import kernel_log
from agents.collectors.kernel_log import KernelLog, classify, message_of, taint_names
from agents.messages import HostEventKind
from agents.sysroot import FolderRoot

Tree = Callable[..., FolderRoot]
OOPS, BAD_PAGE = HostEventKind.KERNEL_OOPS, HostEventKind.BAD_PAGE


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("BUG: kernel NULL pointer dereference, address: 0000000000000008", OOPS),
        ("BUG: unable to handle page fault for address: ffffc90000a3f000", OOPS),
        ("Oops: Oops: 0002 [#1] SMP NOPTI", OOPS),
        ("Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]", OOPS),
        ("general protection fault: 0000 [#1] PREEMPT SMP", OOPS),
        ("kernel BUG at mm/huge_memory.c:2972!", OOPS),
        ("Internal error: Oops: 0000000096000004 [#1] SMP", OOPS),
        ("Unable to handle kernel paging request at virtual address dfff800000000001", OOPS),
        ("Kernel panic - not syncing: Fatal exception", OOPS),
        ("watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [chase:4242]", OOPS),
        ("rcu: INFO: rcu_preempt self-detected stall on CPU", OOPS),
        ("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", OOPS),
        ("INFO: task kworker/0:1:42 blocked for more than 120 seconds.", OOPS),
        ("BUG: KASAN: use-after-free in split_huge_pud_locked+0x1f0/0x400", OOPS),
        ("list_del corruption. prev->next should be ffffea0004000008, but was dead000000000100", OOPS),
        ("BUG: Bad page state in process chase  pfn:140000", BAD_PAGE),
        ("BUG: Bad page map in process chase  pte:8000000140000867 pmd:10a2f3067", BAD_PAGE),
        ("BUG: Bad rss-counter state mm:ffff88810a2f3000 type:MM_ANONPAGES val:262144", BAD_PAGE),
        ("BUG: non-zero pgtables_bytes on freeing mm: 4096", BAD_PAGE),
        ("mm/pgtable-generic.c:29: bad pud ffff88810a2f3008(80000001400008e7)", BAD_PAGE),
        ("mm/pgtable-generic.c:51: bad pmd 00000000a2f3c0de(800000014000008e)", BAD_PAGE),
        ("mm/pgtable-generic.c:23: bad p4d 00000000a2f3c0de", BAD_PAGE),
        ("get_swap_device: Bad swap file entry 3ffffffffffff", BAD_PAGE),
        ("EXT4-fs (vda): mounted filesystem r/w with ordered data mode", None),
        ("process_api (1): drop_caches: 3", None),
        ("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)", None),  # counted by oom_kill, not told twice
        ("DEBUG: all is well", None),
        ("usb 1-1: bad pudding", None),
    ],
)
def test_lines_of_real_kernels_are_told_apart(line: str, kind: HostEventKind | None) -> None:
    assert classify(line) is kind


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"4,1234,5678901,-;BUG: Bad page state\n SUBSYSTEM=mm\n DEVICE=+x\n", "BUG: Bad page state"),
        (b"6,1,0,-,caller=T1;plain; with a semicolon\n", "plain; with a semicolon"),
        (b"no header at all\n", "no header at all"),
        (b"4,1,1,-;\xff\xfe odd bytes\n", "\ufffd\ufffd odd bytes"),
        (b"4,1,1,-;" + b"x" * 5000 + b"\n", "x" * 300),
    ],
)
def test_the_message_is_cut_out_of_a_record(record: bytes, message: str) -> None:
    assert message_of(record) == message


def test_taint_flags_are_named_and_unknown_ones_numbered() -> None:
    assert taint_names(0) == ()
    assert taint_names(1 << 7 | 1 << 5) == (
        "bad page referenced or unexpected page flags",
        "kernel died recently (oops or BUG)",
    )
    assert taint_names(1 << 40) == ("flag 40",)


needs_kmsg = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/kmsg", os.W_OK), reason="writing to the kernel log needs root"
)


def say(message: str) -> None:
    with Path("/dev/kmsg").open("w") as log:
        log.write(f"<6>{message}\n")


@needs_kmsg
def test_a_line_in_this_machines_log_is_heard_once(real_knobs: object) -> None:
    # Runs on this machine would hear it too, and halt: they hold the same lock.
    token = uuid.uuid4().hex
    say(f"fleetexp test: BUG: Bad page state {token} before the log was opened")
    log = KernelLog(FolderRoot())
    say(f"fleetexp test: BUG: Bad page state {token}")
    say(f"fleetexp test: nothing of note {token}")
    heard = [(kind, detail) for kind, detail in log.events() if token in detail]
    assert heard == [(BAD_PAGE, f"fleetexp test: BUG: Bad page state {token}")]
    assert not [detail for _, detail in log.events() if token in detail]
    log.close()
    log.close()
    assert log.events() == []


@needs_kmsg
def test_no_call_waits_for_the_log() -> None:
    log = KernelLog(FolderRoot())
    for _ in range(3):
        log.events()
    log.close()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., KernelLog]]:
    """Make a log whose reads answer what the test says: the real one can't be made to overrun and keep its content."""
    made: list[KernelLog] = []
    real_open, real_read = os.open, os.read
    descriptors: list[int] = []

    def make(answers: list[bytes | int]) -> KernelLog:
        def open_and_note(path: str, flags: int) -> int:
            fd = real_open(path, flags)
            descriptors.append(fd)
            return fd

        def read(fd: int, size: int) -> bytes:
            if fd not in descriptors:
                return real_read(fd, size)
            answer = answers.pop(0) if answers else errno.EAGAIN
            if isinstance(answer, bytes):
                return answer
            raise OSError(answer, os.strerror(answer))

        with monkeypatch.context() as during:
            during.setattr(os, "open", open_and_note)
            made.append(KernelLog(FolderRoot()))
        monkeypatch.setattr(os, "read", read)
        return made[-1]

    yield make
    monkeypatch.undo()
    for log in made:
        log.close()


@needs_kmsg
def test_an_overrun_is_told_and_reading_goes_on(answering: Callable[..., KernelLog]) -> None:
    assert answering([errno.EPIPE, b"4,9,9,-;kernel BUG at mm/rmap.c:1!\n"]).events() == [
        (HostEventKind.SOURCE_LOST, "kernel log: records were overwritten before they were read"),
        (OOPS, "kernel BUG at mm/rmap.c:1!"),
    ]


@needs_kmsg
def test_a_log_that_can_not_be_read_any_more_is_given_up_with_the_reason(answering: Callable[..., KernelLog]) -> None:
    log = answering([errno.EINVAL, b"4,9,9,-;kernel BUG at mm/rmap.c:1!\n"])
    assert log.events() == []
    assert "EINVAL" in log.unavailable
    assert log.events() == []


@needs_kmsg
def test_a_flood_is_worked_off_over_several_calls(
    answering: Callable[..., KernelLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_log, "_AT_MOST", 2)
    log = answering([b"4,1,1,-;Oops: %d\n" % number for number in range(5)])
    assert [len(log.events()) for _ in range(4)] == [2, 2, 1, 0]


def test_the_log_of_a_modelled_host_is_read_as_it_grows(host_tree: Tree) -> None:
    root = host_tree()
    log = KernelLog(root)
    assert log.events() == []
    with (root.root / "dev/kmsg").open("a") as file:
        file.write("4,2,5,-;BUG: Bad rss-counter state mm:1\n0,3,6,-;half a li")
    assert log.events() == [(BAD_PAGE, "BUG: Bad rss-counter state mm:1")]
    with (root.root / "dev/kmsg").open("a") as file:
        file.write("ne Oops: 0\n")
    assert log.events() == [(OOPS, "half a line Oops: 0")]
    assert log.events() == []
    log.close()


def test_a_host_without_a_log_says_why(host_tree: Tree) -> None:
    log = KernelLog(host_tree(files={"dev/kmsg": None}))
    assert log.unavailable == "/dev/kmsg: ENOENT: this kernel or host does not have it"
    assert log.events() == []
