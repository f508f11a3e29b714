"""What the kernel's log and taint flags mean, and that they are heard as they come."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.collectors import kernel_log
from agents.collectors.kernel_log import KernelLog, message_of, taint_names
from agents.messages import HostEventKind
from agents.sysroot import FolderRoot

Tree = Callable[..., FolderRoot]
OOPS, BAD_PAGE = HostEventKind.KERNEL_OOPS, HostEventKind.BAD_PAGE


CORPUS = Path(__file__).parents[2] / "cases/kernel_log"


def corpus(name: str) -> list[tuple[str, str]]:
    """Return (answer, record) of each line of a file of the corpus."""
    lines = [line.split("\t") for line in (CORPUS / name).read_text("utf-8").splitlines() if line[0] != "#"]
    return [(answer, record) for answer, source, record in lines if source]


def heard(root: FolderRoot, records: list[str]) -> list[tuple[str, str]]:
    """Let a host's log grow by these records, one by one; return (kind, record) of what each of them is taken for."""
    log = KernelLog(root)
    answers = []
    with (root.root / "dev/kmsg").open("a") as file:
        for record in records:
            print(record, file=file, flush=True)
            answers.append((",".join(kind.value for kind, _ in log.events()) or "nothing", record))
    log.close()
    return answers


def test_no_harmless_line_halts_and_no_deadly_one_is_missed(host_tree: Tree) -> None:
    harmless, deadly = corpus("harmless.tsv"), corpus("deadly.tsv")
    assert len(harmless) >= 100
    assert len(deadly) >= 100
    root = host_tree()
    false_halts = [one for one in heard(root, [record for _, record in harmless]) if one not in harmless]
    misses = [one for one in heard(root, [record for _, record in deadly]) if one not in deadly]
    assert (len(false_halts), len(misses)) == (0, 0), f"false halts: {false_halts}, misses: {misses}"


@pytest.mark.parametrize("priority", [8, 12, 30, 46, 82, 191])
def test_what_others_than_the_kernel_write_is_nothing_whatever_it_says(host_tree: Tree, priority: int) -> None:
    records = [f"{priority},{record.partition(',')[2]}" for _, record in corpus("deadly.tsv")]
    assert {answer for answer, _ in heard(host_tree(), records)} == {"nothing"}


@pytest.mark.parametrize(
    "quoting", ["{0}: {1}", 'audit: type=1400 comm={0} name="{1}"', "i915 0000:00:02.0: [drm] {1}", "{0}[77]: {1}"]
)
def test_a_kernel_line_that_quotes_a_deadly_one_is_nothing(host_tree: Tree, quoting: str) -> None:
    records = [f"6,1,1,-;{quoting.format('php-fpm', record.partition(';')[2])}" for _, record in corpus("deadly.tsv")]
    assert {answer for answer, _ in heard(host_tree(), records)} == {"nothing"}


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


@needs_kmsg
def test_the_kernel_of_this_machine_is_heard_once_and_who_writes_to_its_log_is_not(real_knobs: object) -> None:
    token = uuid.uuid4().hex
    drop = Path("/proc/sys/vm/drop_caches")  # the kernel notes who wrote to it
    log = KernelLog(FolderRoot())
    for priority in (0, 6, 30):  # user space can't write as the kernel: facility 0 becomes 1
        Path("/dev/kmsg").write_text(f"<{priority}>BUG: Bad page state in process {token}\n")
    drop.write_text("1\n")
    messages = [message or "" for message in log.messages()]
    assert [message for message in messages if f"({os.getpid()}): drop_caches: 1" in message]
    assert not [message for message in messages if token in message]
    assert not [message for message in log.messages() if f"({os.getpid()}): drop_caches" in (message or "")]
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
    log = answering([b"4,1,1,-;Oops: 0000 [#%d] SMP\n" % number for number in range(5)])
    assert [len(log.events()) for _ in range(4)] == [2, 2, 1, 0]


def test_the_log_of_a_modelled_host_is_read_as_it_grows(host_tree: Tree) -> None:
    root = host_tree()
    log = KernelLog(root)
    assert log.events() == []
    with (root.root / "dev/kmsg").open("a") as file:
        file.write("4,2,5,-;BUG: Bad rss-counter state mm:1\n0,3,6,-;Oops: 0002 [")
    assert log.events() == [(BAD_PAGE, "BUG: Bad rss-counter state mm:1")]
    with (root.root / "dev/kmsg").open("a") as file:
        file.write("#1] SMP\n")
    assert log.events() == [(OOPS, "Oops: 0002 [#1] SMP")]
    assert log.events() == []
    log.close()


def test_a_host_without_a_log_says_why(host_tree: Tree) -> None:
    log = KernelLog(host_tree(files={"dev/kmsg": None}))
    assert log.unavailable == "/dev/kmsg: ENOENT: this kernel or host does not have it"
    assert log.events() == []
