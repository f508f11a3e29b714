"""The state of a host is its user's alone: modes, owners, links, and what an earlier fleetexp left."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from agents import state_files
from agents.claim import HostClaim, RestoreOutcome, claim_status, closed_journals, restore, take_claim
from agents.errors import AgentError, JournalError, StateRefused, WorkloadError
from agents.guardian import LOG_NAME
from agents.host_lock import HostLock
from agents.journal import Journal
from agents.knobs import find_knob, read_knob
from agents.lease import GuardianNote, Lease
from agents.messages import Arm
from agents.spool import Spool
from agents.state_files import StateFolder
from agents.sysroot import FolderRoot
from agents.workloads.kept_output import KeptOutput
from agents.workloads.process import _keep

HostTree = Callable[..., FolderRoot]
KNOB = "thp/2048kB/enabled"
STRANGER = 65534
LARGEST_BYTES = 1024 * 1024
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user needs root")


@pytest.fixture
def root(host_tree: HostTree) -> FolderRoot:
    return host_tree()


class Machine(FolderRoot):
    """Whose state is found as on the machine itself: an administrator's links are followed there, none in a tree."""

    __slots__ = ()

    @property
    def state_dir(self) -> Path:
        return self.root / "var/lib/fleetexp"


@pytest.fixture
def machine(root: FolderRoot) -> FolderRoot:
    return Machine(root.root)


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "LARGEST_BYTES", LARGEST_BYTES)


@pytest.fixture
def under_umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda mask: os.umask(mask) and None
    os.umask(before)


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of root's elsewhere, which must be as it was at the end."""
    path = tmp_path / "victim"
    path.write_text("precious")
    path.chmod(0o644)
    before = path.stat()
    yield path
    after = path.stat()
    assert path.read_text() == "precious"
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def claim_of(root: FolderRoot, *, guardian: bool = False) -> HostClaim:
    command = None if guardian else ()
    return take_claim(root, run="r1", owner="me", knobs=[KNOB], lease_seconds=60.0, guardian_command=command)


def left_behind(root: FolderRoot) -> None:
    """Leave the host as an agent that was killed, and whose guardian was too, would."""
    claim = claim_of(root)
    claim.apply(Arm(name="a", knobs={KNOB: "always"}))
    claim._lease.extend(claim._header.claim, 0.0)
    claim.leave()


def reads(root: FolderRoot) -> str:
    return read_knob(root, find_knob(root, KNOB))


def everything_in(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


# ------------------------------------------------------------------ modes
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.usefixtures("no_guardian_left")
def test_whatever_the_umask_no_other_user_can_read_or_write_anything(
    root: FolderRoot, under_umask: Callable[[int], None], wait_until: Callable[..., float], mask: int
) -> None:
    under_umask(mask)
    claim = claim_of(root, guardian=True)
    spool = Spool(root.state_dir / "spool" / "r1.jsonl")
    output = KeptOutput(root.state_dir / "work" / "command.stdout")
    wait_until((root.state_dir / LOG_NAME).exists)
    found = everything_in(root.state_dir)
    assert {path.name for path in found} >= {"journal.jsonl", "lease", "guardian", "state.lock", "closed"}
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    output.close()
    spool.close()
    claim.release()
    above = root.state_dir.parent
    while above != root.root:
        assert not above.stat().st_mode & 0o022, above
        above = above.parent


def test_what_an_earlier_fleetexp_left_readable_is_restored_and_closed_to_others(root: FolderRoot) -> None:
    left_behind(root)
    for path in everything_in(root.state_dir):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert claim_status(root) is not None
    assert root.state_dir.stat().st_mode & 0o777 == 0o755  # looking changes nothing
    assert all(change.ok for change in restore(root))
    assert reads(root) == "inherit"
    assert closed_journals(root)[0].outcome is RestoreOutcome.RESTORED
    claim_of(root).release()
    assert root.state_dir.stat().st_mode & 0o777 == 0o700
    assert (root.state_dir / "state.lock").stat().st_mode & 0o777 == 0o600


def test_a_disk_that_has_become_read_only_does_not_keep_a_host_from_being_put_back(
    root: FolderRoot, mounted: Callable[..., None]
) -> None:
    root.state_dir.mkdir(parents=True)
    mounted("-t", "tmpfs", "-o", "mode=0700", "own", str(root.state_dir))
    left_behind(root)
    mounted("-o", "remount,ro", str(root.state_dir))
    assert all(change.ok for change in restore(root))
    assert reads(root) == "inherit"
    with pytest.raises(JournalError, match="Read-only"):
        claim_of(root)
    mounted("-o", "remount,rw", str(root.state_dir))
    assert all(change.ok for change in restore(root))  # which closes what could not be closed
    assert closed_journals(root)[0].outcome is RestoreOutcome.RESTORED


def test_an_empty_folder_that_others_may_write_is_taken_and_closed(root: FolderRoot) -> None:
    root.state_dir.mkdir(parents=True)
    root.state_dir.chmod(0o1777)  # as a tmpfs is mounted
    claim_of(root).release()
    assert stat.S_IMODE(root.state_dir.stat().st_mode) == 0o700


@as_root
def test_a_device_and_the_folder_that_it_is_in_stay_as_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    os.mknod(tmp_path / "full", stat.S_IFCHR | 0o666, os.makedev(1, 7))
    for act in (
        lambda: KeptOutput(tmp_path / "full"),
        lambda: StateFolder(tmp_path).create("full"),
        lambda: StateFolder(tmp_path).open("full"),
        lambda: StateFolder(tmp_path).remove("full"),
    ):
        with pytest.raises(StateRefused, match="not a regular file"):
            act()
    Spool(tmp_path / "s.jsonl").close()
    assert stat.S_ISCHR((tmp_path / "full").stat().st_mode)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


# ------------------------------------------------------------------ refused, all of it
def refuse(root: FolderRoot, why: str) -> None:
    """Whatever looks at the state or would obey it says why not, and no knob is written."""
    before = reads(root)
    for act in (
        lambda: claim_status(root),
        lambda: restore(root, force=True),
        lambda: claim_of(root),
        lambda: Journal.open(root.state_dir),
        lambda: HostLock(root.state_dir).acquire(0.0),
    ):
        with pytest.raises(StateRefused, match=why) as refused:
            act()
        assert refused.value.where
        assert refused.value.remedy
    assert reads(root) == before


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o703, 0o1777])
def test_a_folder_that_others_could_have_written_is_refused(root: FolderRoot, mode: int) -> None:
    left_behind(root)
    root.state_dir.chmod(mode)
    refuse(root, "other users may write there")
    root.state_dir.chmod(0o700)
    assert all(change.ok for change in restore(root))


@as_root
@pytest.mark.parametrize("above", [False, True])
def test_a_folder_of_another_user_is_refused_and_one_in_his(root: FolderRoot, above: bool) -> None:
    left_behind(root)
    os.chown(root.state_dir.parent if above else root.state_dir, STRANGER, STRANGER)
    refuse(root, f"it belongs to user {STRANGER}")


def test_a_folder_that_others_could_have_put_there_is_refused(root: FolderRoot) -> None:
    left_behind(root)
    root.state_dir.parent.chmod(0o777)
    refuse(root, "other users may write there")
    root.state_dir.parent.chmod(0o1777)  # in a sticky folder they could not
    assert claim_status(root) is not None


def test_nothing_is_made_in_a_folder_that_others_may_write(root: FolderRoot) -> None:
    (root.root / "var").mkdir()
    (root.root / "var").chmod(0o777)
    assert claim_status(root) is None  # there is none, whoever could make it
    with pytest.raises(StateRefused, match="other users may write there"):
        claim_of(root)
    assert not (root.root / "var/lib").exists()


def test_a_folder_that_is_a_link_is_refused_and_one_behind_an_administrators_link_is_not(
    machine: FolderRoot, tmp_path: Path
) -> None:
    left_behind(machine)
    elsewhere = tmp_path / "elsewhere"
    machine.state_dir.rename(elsewhere)
    machine.state_dir.symlink_to(elsewhere)
    refuse(machine, "it is a symbolic link")
    machine.state_dir.unlink()
    machine.state_dir.symlink_to(tmp_path / "nowhere")
    refuse(machine, "it is a symbolic link")
    machine.state_dir.unlink()
    lib = machine.state_dir.parent
    elsewhere.rename(lib / "fleetexp")
    lib.rename(tmp_path / "srv")
    lib.symlink_to("../../srv")
    assert all(change.ok for change in restore(machine))


@as_root
def test_a_link_of_another_user_on_the_way_is_not_followed(machine: FolderRoot, tmp_path: Path) -> None:
    left_behind(machine)
    lib = machine.state_dir.parent
    lib.rename(tmp_path / "srv")
    lib.symlink_to(tmp_path / "srv")
    os.chown(lib, STRANGER, STRANGER, follow_symlinks=False)
    refuse(machine, f"it belongs to user {STRANGER}")


def test_links_in_a_circle_are_no_hang(machine: FolderRoot) -> None:
    (machine.root / "var").symlink_to("var")
    refuse(machine, "it is a symbolic link")


# ------------------------------------------------------------------ names that were planted
def _link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def _pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, _: Path) -> None:
    folder = os.open(path.parent, os.O_PATH)  # a socket's path has little room
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _folder(path: Path, _: Path) -> None:
    path.mkdir()


def _huge(path: Path, _: Path) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, LARGEST_BYTES + 4096)


def _of_a_stranger(path: Path, _: Path) -> None:
    path.write_bytes(b"")
    os.chown(path, STRANGER, STRANGER)


def _writable_by_all(path: Path, _: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0o666)


PLANTS = [
    _link,
    _hard_link,
    _pipe,
    _socket,
    _folder,
    _huge,
    pytest.param(_of_a_stranger, marks=as_root),
    _writable_by_all,
]
Plant = Callable[[Path, Path], None]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize(
    ("name", "open_it"),
    [
        ("journal.jsonl", Journal.open),
        ("journal.jsonl", lambda folder: Journal.open(folder, read_only=True)),
        ("lease", Lease.open),
        ("guardian", GuardianNote.open),
        ("state.lock", lambda folder: HostLock(folder).acquire(0.0)),
    ],
)
def test_what_is_planted_for_a_file_of_the_state_is_refused_at_once(
    tmp_path: Path, victim: Path, plant: Plant, name: str, open_it: Callable[[Path], object]
) -> None:
    StateFolder(tmp_path / "state").make()
    plant(tmp_path / "state" / name, victim)
    with pytest.raises(StateRefused, match=name):
        open_it(tmp_path / "state")


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        *product(("journal.jsonl.new", "lease.new", "guardian.new"), PLANTS[:6]),
        *product((LOG_NAME,), (_link, _hard_link, _pipe, _folder)),
    ],
)
@pytest.mark.usefixtures("no_guardian_left")
def test_what_is_planted_where_a_file_is_made_anew_gives_way(
    root: FolderRoot, victim: Path, name: str, plant: Plant
) -> None:
    StateFolder(root.state_dir).make()
    plant(root.state_dir / name, victim)
    if plant is not _folder:
        claim_of(root, guardian=name == LOG_NAME).release()
    elif name != LOG_NAME:
        with pytest.raises(StateRefused, match=name):
            claim_of(root)
    else:
        claim_of(root, guardian=True).release()  # without a log


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_as_a_spool_is_set_aside_and_as_kept_output_replaced(
    tmp_path: Path, victim: Path, plant: Plant
) -> None:
    StateFolder(tmp_path / "state").make()
    plant(tmp_path / "state" / "s.jsonl", victim)
    spool = Spool(tmp_path / "state" / "s.jsonl")
    assert spool.pending(10) == ((), False)
    assert not spool.disk_failed
    spool.close()
    assert (tmp_path / "state" / "s.unreadable").lstat()
    plant(tmp_path / "state" / "out", victim)
    if plant is _folder:
        with pytest.raises(WorkloadError, match="out"):
            _keep(tmp_path / "state", "out")
    else:
        _keep(tmp_path / "state", "out").close()


@pytest.mark.usefixtures("no_guardian_left")
def test_a_folder_opened_to_others_in_the_middle_of_a_run_does_not_keep_its_guardian_from_undoing(
    root: FolderRoot, wait_until: Callable[..., float]
) -> None:
    claim = take_claim(root, run="r1", owner="me", knobs=[KNOB], lease_seconds=60.0)
    claim.apply(Arm(name="a", knobs={KNOB: "always"}))
    root.state_dir.chmod(0o777)
    with pytest.raises(AgentError, match="other users may write there"):
        claim.apply(Arm(name="a", knobs={KNOB: "never"}))
    claim._lease.extend(claim._header.claim, 0.0)
    claim.leave()
    wait_until(lambda: reads(root) == "inherit", within_seconds=8.0)
    root.state_dir.chmod(0o700)  # for whoever sweeps up
