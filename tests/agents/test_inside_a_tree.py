"""What is done to a tree stays in it: links lead nowhere else, its journal names nobody, no pipe is opened."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.claim import claim_status, restore, take_claim
from agents.errors import JournalError
from agents.guardian import Guardian
from agents.host_lock import HostLock
from agents.journal import Journal
from agents.lease import GuardianNote, GuardianState, Phase
from agents.messages import Arm
from agents.path_in_root import LARGEST_BYTES, find_inside, open_inside
from agents.process import ProcessMark, mark_process
from agents.sysroot import FolderRoot
from fleetexp.cli.main import cli
from tests.host_tree import THP

HostTree = Callable[..., FolderRoot]
KNOB = "thp/2048kB/enabled"
PATH = f"{THP}/hugepages-2048kB/enabled"
VICTIM = "outside: keep\n"


@pytest.fixture(autouse=True)
def no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what can't be put back said at once: a tree finds no free pages later."""
    monkeypatch.setattr("agents.knob_restore._FIRST_PAUSE_SECONDS", 60.0)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process of this machine that nobody has a reason to end."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a file outside every tree, in folders named as a tree's are."""
    file = tmp_path / "outside" / PATH
    file.parent.mkdir(parents=True)
    file.write_text(VICTIM)
    return file


def left_behind(root: FolderRoot, *guarded: ProcessMark) -> None:
    """Leave a claim whose lease has run out, with its knob changed and processes that are to die first."""
    claim = take_claim(root, run="r1", owner="o", knobs=[KNOB], lease_seconds=60.0, guardian_command=())
    claim.apply(Arm(name="a", knobs={KNOB: "always"}))
    for mark in guarded:
        claim.guard_process(mark.pid)
    claim._lease.extend(claim._header.claim, 0.0)
    claim.leave()


def marked(process: subprocess.Popen[bytes]) -> ProcessMark:
    mark = mark_process(process.pid)
    assert mark is not None
    return mark


def put_in_place_of(path: Path, target: str) -> None:
    path.rename(path.with_name(f"{path.name}.away"))
    path.symlink_to(target)


ROUTES: dict[str, Callable[[Path, Path], None]] = {
    "knob, absolute": lambda tree, victim: put_in_place_of(tree / PATH, str(victim)),
    "knob, relative": lambda tree, victim: put_in_place_of(tree / PATH, os.path.relpath(victim, (tree / PATH).parent)),
    "knob, chain": lambda tree, victim: (
        (tree / "a").symlink_to("b"),
        (tree / "b").symlink_to(str(victim)),
        put_in_place_of(tree / PATH, os.path.relpath(tree / "a", (tree / PATH).parent)),
    )[-1],
    "folder, absolute": lambda tree, victim: put_in_place_of((tree / PATH).parent, str(victim.parent)),
    "folder, relative": lambda tree, victim: put_in_place_of(tree / "sys", os.path.relpath(victim.parents[4], tree)),
    "magic link": lambda tree, victim: put_in_place_of(tree / PATH, f"/proc/self/root{victim}"),
    "magic link by cwd": lambda tree, victim: put_in_place_of(
        tree / "sys", f"/proc/self/cwd/{os.path.relpath(victim.parents[4])}"
    ),
}


@pytest.mark.parametrize("route", ROUTES)
def test_a_link_in_a_tree_leads_nowhere_outside(host_tree: HostTree, victim: Path, route: str) -> None:
    root = host_tree()
    left_behind(root)
    ROUTES[route](root.root, victim)
    result = CliRunner().invoke(cli, ["restore", "--force", "--root", str(root.root)])
    assert result.exit_code != 0
    assert VICTIM.strip() not in result.output
    assert victim.read_text() == VICTIM
    assert not root.writable(PATH)
    assert not root.exists(PATH)
    for read in (root.read, root.reader):
        with pytest.raises(OSError):
            read(PATH)
    with suppress(OSError):
        assert root.names(str(Path(PATH).parent)) in ([], sorted(os.listdir((root.root / PATH).parent)))


def test_a_link_that_stays_in_the_tree_is_followed_there(host_tree: HostTree) -> None:
    root = host_tree()
    left_behind(root)
    put_in_place_of(root.root / PATH, f"/{PATH}.away")  # as in an image: absolute, and meant below its own root
    assert restore(root, force=True)[0].ok
    assert root.read(PATH) == b"inherit"


def test_a_mount_in_a_tree_is_part_of_it(host_tree: HostTree, mounted: Callable[..., None], tmp_path: Path) -> None:
    root = host_tree()
    left_behind(root)
    other = tmp_path / "knob"
    other.write_text("always\n")
    mounted("--bind", str(other), str(root.root / PATH))  # whoever mounts is root, and has chosen it
    assert restore(root, force=True)[0].ok
    assert other.read_text() == "inherit"


def test_a_hard_link_to_a_file_outside_is_not_written(host_tree: HostTree, victim: Path) -> None:
    root = host_tree()
    left_behind(root)
    (root.root / PATH).unlink()
    (root.root / PATH).hardlink_to(victim)
    assert not restore(root, force=True)[0].ok
    assert victim.read_text() == VICTIM


@pytest.mark.parametrize("step", ["var", "var/lib", "var/lib/fleetexp"])
@pytest.mark.parametrize("command", ["restore --force", "doctor"])
def test_a_state_folder_behind_a_link_is_not_taken_for_the_trees(
    host_tree: HostTree, tmp_path: Path, step: str, command: str
) -> None:
    root, other = host_tree(), host_tree(name="other")
    left_behind(other)
    (root.root / step).parent.mkdir(parents=True, exist_ok=True)
    (root.root / step).symlink_to(other.root / step)
    result = CliRunner().invoke(cli, [*command.split(), "--root", str(root.root)])
    assert result.exit_code != 0
    with pytest.raises(JournalError, match="lies behind a link"):
        take_claim(root, run="r2", owner="o", knobs=[KNOB], lease_seconds=60, guardian_command=())
    assert claim_status(other) is not None
    assert other.read(PATH) == b"always"


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse", "socket folder"])
def test_what_is_no_plain_small_file_is_not_even_opened(host_tree: HostTree, kind: str) -> None:
    root = host_tree()
    left_behind(root)
    knob = root.root / PATH
    knob.unlink()
    match kind:
        case "pipe":
            os.mkfifo(knob)
        case "device":
            with suppress(PermissionError):  # not root: there is none then, which is refused as well
                os.mknod(knob, 0o20666, os.makedev(1, 5))  # /dev/zero
        case "sparse":
            knob.touch()
            os.truncate(knob, LARGEST_BYTES + 1)
        case _:
            knob.mkdir()
    (change,) = restore(root, force=True)
    assert not change.ok
    with pytest.raises(OSError):
        root.read(PATH)
    with pytest.raises(OSError):
        root.reader(PATH)


@pytest.mark.parametrize("command", ["restore", "restore --force", "doctor", "hosts --fleet inline"])
def test_a_journal_of_a_tree_ends_no_process_of_this_machine(
    host_tree: HostTree, sleeper: subprocess.Popen[bytes], command: str, wait_until: Callable[..., float]
) -> None:
    root = host_tree()
    left_behind(root, marked(sleeper))
    note = GuardianNote.open(root.state_dir)
    journal = Journal.open(root.state_dir, read_only=True)
    assert note is not None
    assert journal is not None
    note.write(GuardianState(claim=journal.header.claim, phase=Phase.STUCK, process=marked(sleeper)))
    note.close()
    journal.leave()
    wait_until(lambda: (status := claim_status(root)) is not None and status.lease_remaining_seconds == 0)
    result = CliRunner().invoke(cli, [*command.split(), "--root", str(root.root)])
    assert not isinstance(result.exception, Exception)
    assert sleeper.poll() is None
    status = claim_status(root)
    assert status is None or not (status.agent_alive or status.guardian_alive or status.guardian_pid)


@pytest.mark.parametrize("named", ["workload", "lock holder"])
def test_a_guardian_of_a_tree_ends_no_process_of_this_machine(
    host_tree: HostTree, sleeper: subprocess.Popen[bytes], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.guardian.LOCK_WAIT_SECONDS", 0.1)
    root = host_tree()
    left_behind(root, marked(sleeper))
    journal = Journal.open(root.state_dir, read_only=True)
    assert journal is not None
    journal.leave()
    guardian = Guardian.of(root, journal.header.claim)
    with HostLock(root.state_dir):
        mark = marked(sleeper)
        record = {"pid": mark.pid, "started": mark.started, "session": mark.session}
        (root.state_dir / "state.lock").write_text(json.dumps(record))
        if named == "lock holder":
            guardian.watch()
    if named == "workload":
        guardian.watch()
    assert root.read(PATH) == b"inherit"
    assert sleeper.poll() is None


def test_the_next_claim_of_a_tree_ends_no_process_of_this_machine(
    host_tree: HostTree, sleeper: subprocess.Popen[bytes], wait_until: Callable[..., float]
) -> None:
    root = host_tree()
    left_behind(root, marked(sleeper))
    wait_until(lambda: (status := claim_status(root)) is not None and status.lease_remaining_seconds == 0)
    claim = take_claim(root, run="r2", owner="o", knobs=[KNOB], lease_seconds=60, guardian_command=())
    assert [change.after for change in claim.leftovers] == ["inherit"]
    claim.release()
    assert sleeper.poll() is None


def test_whoever_swaps_a_folder_for_a_link_meanwhile_gains_nothing(host_tree: HostTree, victim: Path) -> None:
    root = host_tree()
    folder = (root.root / PATH).parent
    away, link = folder.with_name("away"), folder.with_name("link")
    link.symlink_to(victim.parent)
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            folder.rename(away)
            link.rename(folder)
            folder.rename(link)
            away.rename(folder)
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    written = 0
    try:
        while swaps < 300 or written < 20:
            with suppress(OSError):
                assert root.read(PATH) != VICTIM.encode()
            with suppress(OSError):
                root.write(PATH, b"inherit")
                written += 1
    finally:
        stop.set()
        thread.join()
    assert victim.read_text() == VICTIM


@pytest.mark.parametrize("spelling", ["/", "//", "/.", "/usr/..", "/proc/self/root", "/proc/thread-self/root"])
def test_every_spelling_of_this_machines_root_is_this_machine(spelling: str) -> None:
    root = FolderRoot(spelling)
    assert root.real
    assert root.root == Path("/")


def test_the_root_of_a_container_is_not_this_machines_though_its_link_reads_the_same() -> None:
    """/proc/PID/root of a process in another mount namespace reads '/', and leads into the container."""
    if os.geteuid() != 0:
        pytest.skip("a mount namespace needs root")
    hold = "import sys; print('there', flush=True); sys.stdin.read()"
    inside = subprocess.Popen(
        ["unshare", "--mount", sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with inside:
        assert inside.stdout is not None
        if inside.stdout.readline() != b"there\n":
            pytest.skip("no mount namespace can be made here")
        of_container = f"/proc/{inside.pid}/root"
        assert Path(of_container).readlink() == Path("/")
        root = FolderRoot(of_container)
        assert not root.real
        assert str(root.root) == of_container
        inside.communicate()


# ------------------------------------------------------------------ the walk against openat2(2)
NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=5)
TARGETS = st.tuples(st.sampled_from(["", "/"]), STEPS).map(lambda both: both[0] + "/".join(both[1])).filter(bool)
PLACES = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


class HowToOpen(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(folder: Path, path: str) -> tuple[int, int] | int:
    """Return (device, inode) of what RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS finds, or the error."""
    libc = ctypes.CDLL(None, use_errno=True)
    top = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    how = HowToOpen(os.O_PATH | os.O_CLOEXEC, 0, 0x10 | 0x02)
    try:
        fd = libc.syscall(437, top, path.encode(), ctypes.byref(how), ctypes.sizeof(how))
    finally:
        os.close(top)
    if fd < 0:
        return ctypes.get_errno()
    try:
        return os.fstat(fd).st_dev, os.fstat(fd).st_ino
    finally:
        os.close(fd)


def walked(folder: Path, path: str) -> tuple[int, int] | int:
    try:
        fd = find_inside(folder, path)
    except OSError as error:
        return error.errno or 0
    try:
        return os.fstat(fd).st_dev, os.fstat(fd).st_ino
    finally:
        os.close(fd)


@settings(max_examples=100)
@given(
    made=st.lists(st.tuples(PLACES, st.sampled_from(["folder", "file", "link"]), TARGETS), max_size=10),
    asked=STEPS.map("/".join).filter(bool),
)
def test_the_walk_finds_what_openat2_would(
    made: list[tuple[str, str, str]], asked: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("walk")
    for place, kind, target in made:
        at = folder / place
        with suppress(OSError, RuntimeError):  # a parent that is a file, a loop, or leads out: then there is one less
            if not at.parent.resolve().is_relative_to(folder):
                continue
            at.parent.mkdir(parents=True, exist_ok=True)
            at.mkdir() if kind == "folder" else at.symlink_to(target) if kind == "link" else at.touch(exist_ok=False)
    wanted = openat2(folder, asked)
    if wanted in (errno.ENOSYS, errno.EPERM):
        pytest.skip("this kernel has no openat2")
    assert walked(folder, asked) == wanted


def test_nothing_stays_open(host_tree: HostTree) -> None:
    root = host_tree()
    (root.root / "loop").symlink_to("loop")
    before = len(os.listdir("/proc/self/fd"))
    for path in (PATH, "loop", "no/such", f"{PATH}/x"):
        for act in (root.read, root.exists, root.writable, root.names):
            with suppress(OSError):
                act(path)
    with pytest.raises(OSError, match="Too many levels"):
        os.close(open_inside(root.root, "loop", os.O_RDONLY))
    assert len(os.listdir("/proc/self/fd")) == before
