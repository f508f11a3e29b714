"""A user without rights beside root's fleetexp: all that he tries, for so many seconds, and what came of it.

Run as `unshare -mpnf --kill-child --mount-proc python -m tests.stranger SECONDS`: a world of its own, with its own
/tmp, /dev/shm, processes and network. Root takes hosts, runs periods, dies, restores and looks, again and again, on
three hosts that are folders: one as fleetexp makes it, one whose state folder was left open to all, one whose state
lies in a folder that all may write. A process of another user meanwhile tries ATTEMPTS on each. Prints a JSON object.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from agents.claim import claim_status, closed_journals, restore, take_claim
from agents.errors import JournalError, StateRefused, UnknownKnob
from agents.host_agent import HostAgent
from agents.knobs import find_knob, read_knob
from agents.messages import Apply, Arm, Begin, Claim, End, Poll, Preflight, Release, Revert, WorkloadSpec
from agents.process import mark_process
from agents.recovery import read_note
from agents.sysroot import FolderRoot
from fleetexp.fleets.simulated.hosts import HostPool, Simulation
from tests.host_tree import BOOT_ID, THP, build_host

STRANGER = 65533
WORLD = Path("/mnt")
CLOSED, OPEN, SWAPPED = WORLD / "closed", WORLD / "open", WORLD / "swapped"
HIS_TREE, HIS_FOLDER = Path("/tmp/tree"), Path("/tmp/work")
VICTIM, MARK = WORLD / "victim", WORLD / "he-ran-something-as-root"
KNOB, FILE = "thp/2048kB/enabled", f"{THP}/hugepages-2048kB/enabled"
STATE = "var/lib/fleetexp"
NAMES = (
    *("journal.jsonl", "journal.jsonl.new", "lease", "lease.new", "guardian", "guardian.new", "guardian.log"),
    *("state.lock", "closed/1.jsonl", "spool/1-aa.jsonl", "work/command.stdout", "work/command.stderr", "numba"),
)
SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1)

Attempt = Callable[[Path], bool]
ATTEMPTS: dict[str, Attempt] = {}


def attempt(name: str) -> Callable[[Attempt], Attempt]:
    """Enter a function of a host's folder into the table; it returns whether he was let."""

    def enter(act: Attempt) -> Attempt:
        ATTEMPTS[name] = act
        return act

    return enter


def any_of(acts: Iterator[Callable[[], object]]) -> bool:
    """Try all of them; whether any was let through."""
    let = False
    for act in acts:
        with suppress(OSError, ValueError):
            act()
            let = True
    return let


def planting(host: Path, plant: Callable[[Path], object]) -> bool:
    """Plant under every name that root opens, in the place of what is there."""

    def replace(path: Path) -> None:
        with suppress(OSError):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        plant(path)

    return any_of((lambda path=host / STATE / name: replace(path)) for name in NAMES)


# ------------------------------------------------------------------ the state folder
@attempt("plant a symbolic link to root's file under every name of the state")
def _(host: Path) -> bool:
    return planting(host, lambda path: path.symlink_to(VICTIM))


@attempt("plant a hard link to root's file under every name of the state")
def _(host: Path) -> bool:
    return planting(host, lambda path: path.hardlink_to(VICTIM))


@attempt("plant a pipe under every name of the state")
def _(host: Path) -> bool:
    return planting(host, os.mkfifo)


@attempt("plant a folder under every name of the state")
def _(host: Path) -> bool:
    return planting(host, Path.mkdir)


@attempt("plant an endless file under every name of the state")
def _(host: Path) -> bool:
    def endless(path: Path) -> None:
        path.touch()
        os.truncate(path, 1 << 40)

    return planting(host, endless)


def journal_of_his() -> str:
    """A journal that would have root write a knob and kill root's processes."""
    header = {
        "kind": "claim",
        "claim": "his",
        "run": "1-aa",
        "owner": "root",
        "boot_id": BOOT_ID,
        "claimed_at": "2026-01-01T00:00:00+00:00",
        "lease_seconds": 0.1,
        "agent": None,
        "found": {KNOB: "never"},
    }
    guarded = [
        {"kind": "guard", "pid": mark.pid, "started": mark.started, "session": mark.session}
        for mark in map(mark_process, roots_processes())
        if mark is not None
    ]
    return "".join(json.dumps(line) + "\n" for line in (header, *guarded))


@attempt("write a journal that names a knob to write and root's processes to kill")
def _(host: Path) -> bool:
    text = journal_of_his()
    return planting(host, lambda path: path.write_text(text))


@attempt("add to, cut and overwrite the files of the state")
def _(host: Path) -> bool:
    paths = [host / STATE / name for name in NAMES]
    return any_of(
        act
        for path in paths
        for act in (
            lambda path=path: path.open("ab").close(),
            lambda path=path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
            lambda path=path: path.chmod(0o666),
        )
    )


@attempt("read the files of the state")
def _(host: Path) -> bool:
    return any_of((lambda path=host / STATE / name: path.open("rb").close()) for name in NAMES)


@attempt("list the folders of the state")
def _(host: Path) -> bool:
    return any_of((lambda name=name: os.listdir(host / STATE / name)) for name in (".", "closed", "spool", "work"))


@attempt("hold the host's lock")
def _(host: Path) -> bool:
    fd = os.open(host / STATE / "state.lock", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    finally:
        os.close(fd)
    return True


@attempt("remove the files of the state")
def _(host: Path) -> bool:
    return any_of((lambda path=host / STATE / name: path.unlink()) for name in NAMES)


@attempt("put a folder of his own, or a link to one, in the place of the state folder")
def _(host: Path) -> bool:
    state = host / STATE
    aside = state.with_name("aside")

    def swap(make: Callable[[], object]) -> None:
        state.rename(aside)
        make()
        (HIS_FOLDER / "journal.jsonl").write_text(journal_of_his())
        with suppress(OSError):
            (state / "journal.jsonl").write_text(journal_of_his())
        time.sleep(0.002)
        state.unlink() if state.is_symlink() else shutil.rmtree(state, ignore_errors=True)
        aside.rename(state)

    HIS_FOLDER.mkdir(exist_ok=True)
    return any_of(iter((lambda: swap(state.mkdir), lambda: swap(lambda: state.symlink_to(HIS_FOLDER)))))


@attempt("rename, open and give away the folders above the state")
def _(host: Path) -> bool:
    above = [host / "var", host / "var/lib", host / STATE]
    return any_of(
        act
        for path in above
        for act in (
            lambda path=path: path.rename(path.with_name("moved")).rename(path),
            lambda path=path: path.chmod(0o777),
            lambda path=path: os.chown(path, STRANGER, STRANGER),
        )
    )


@attempt("write the knobs")
def _(host: Path) -> bool:
    return any_of(iter((lambda: (host / FILE).write_text("never"), lambda: (host / THP / "enabled").write_text("x"))))


# ------------------------------------------------------------------ root's processes
def roots_processes() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and Path("/proc", name).stat().st_uid == 0:
                found.append(int(name))
    return found


@attempt("signal every process of root's")
def _(_: Path) -> bool:
    return any_of(
        (lambda pid=pid, number=number: os.kill(pid, number)) for pid in roots_processes() for number in SIGNALS
    )


@attempt("look into every process of root's: environment, memory map, open files")
def _(_: Path) -> bool:
    def look(path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not os.read(fd, 1):  # a process that has died has nothing to show, and that to everybody
                raise OSError
        finally:
            os.close(fd)

    what = ("environ", "maps", "fd/0", "fd/3", "fd/4", "fd/5", "root/etc/shadow", "exe")
    return any_of(
        (lambda pid=pid, name=name: look(Path("/proc", str(pid), name))) for pid in roots_processes() for name in what
    )


@attempt("starve every process of root's: limits, niceness, first to be killed for memory")
def _(_: Path) -> bool:
    return any_of(
        act
        for pid in roots_processes()
        for act in (
            lambda pid=pid: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)),
            lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
            lambda pid=pid: Path("/proc", str(pid), "oom_score_adj").write_text("1000"),
        )
    )


# ------------------------------------------------------------------ sockets
def _listening() -> Iterator[tuple[socket.AddressFamily, object]]:
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7:
            yield socket.AF_UNIX, fields[7].replace("@", "\0", 1) if fields[7].startswith("@") else fields[7]
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                yield family, ("127.0.0.1" if table == "tcp" else "::1", int(fields[1].rpartition(":")[2], 16))


@attempt("connect to every socket that listens")
def _(_: Path) -> bool:
    def connect(family: socket.AddressFamily, address: object) -> None:
        with socket.socket(family) as made:
            made.settimeout(0.2)
            made.connect(address)

    return any_of((lambda where=where: connect(*where)) for where in _listening())


# ------------------------------------------------------------------ names in folders that are open to all
SHARED = (Path("/tmp"), Path("/dev/shm"), Path("/var/tmp"))


@attempt("take names in /tmp and /dev/shm before root does")
def _(_: Path) -> bool:
    for shared in SHARED:
        for name in (
            "ray",
            "fleetexp",
            "fleetexp-simulated-",
            "fleetexp.db",
            "matplotlib",
            "numba_cache",
            "ray_current_cluster",
        ):
            with suppress(OSError):
                (shared / name).symlink_to(VICTIM)
    return False  # he may: what counts is whether root follows them


@attempt("get into what root makes in /tmp and /dev/shm")
def _(_: Path) -> bool:
    let = False
    for shared in SHARED:
        for path in shared.iterdir():
            with suppress(OSError):
                if path.lstat().st_uid == 0:
                    let |= any_of(
                        iter(
                            (
                                lambda path=path: os.listdir(path),
                                lambda path=path: path.open("rb").close(),
                                lambda path=path: (path / "his").touch(),
                                lambda path=path: path.rename(path.with_name("his")),
                            )
                        )
                    )
    return let


@attempt("leave modules in the folder that root works in")
def _(_: Path) -> bool:
    HIS_FOLDER.mkdir(exist_ok=True)
    for name in ("agents", "fleetexp", "json", "sitecustomize", "usercustomize", "click"):
        with suppress(OSError):
            (HIS_FOLDER / f"{name}.py").write_text(f"open({str(MARK)!r}, 'w').close()\n")
    return False


@attempt("offer a tree of his own, with a journal, whose knobs are links to root's files")
def _(_: Path) -> bool:
    state, knob = HIS_TREE / STATE, HIS_TREE / FILE
    for folder in (state, knob.parent, HIS_TREE / "proc/sys/kernel/random"):
        folder.mkdir(parents=True, exist_ok=True)
    (HIS_TREE / "proc/sys/kernel/random/boot_id").write_text(BOOT_ID)
    with suppress(FileExistsError):
        knob.symlink_to(VICTIM)
    (state / "journal.jsonl").write_text(journal_of_his())
    return False


def attack(seconds: float) -> dict[str, dict[str, list[int]]]:
    """Become the stranger and try everything in turn; returns for each attempt and host: tries, times let through."""
    os.setgroups([])
    os.setgid(STRANGER)
    os.setuid(STRANGER)
    os.chdir("/")
    os.umask(0)
    tried: Counter[tuple[str, str]] = Counter()
    let: Counter[tuple[str, str]] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, act in ATTEMPTS.items():
            for host in (CLOSED, OPEN, SWAPPED):
                tried[name, host.name] += 1
                with suppress(OSError):
                    let[name, host.name] += act(host)
    return {
        name: {host.name: [tried[name, host.name], let[name, host.name]] for host in (CLOSED, OPEN, SWAPPED)}
        for name in ATTEMPTS
    }


# ------------------------------------------------------------------ root
class Root:
    """What root does meanwhile; `problems` is whatever went other than it should."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.did: Counter[str] = Counter()
        self.closed = FolderRoot(CLOSED)

    def command(self, *words: str) -> None:
        """Run a command of fleetexp in a folder of the stranger's."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fleetexp", *words],
            cwd=HIS_FOLDER if HIS_FOLDER.is_dir() else "/",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.did[words[0]] += 1
        self.expect(done.returncode == 0, f"{words}: {done.returncode} {done.stderr[-300:]}")

    def expect(self, true: bool, what: str) -> None:
        if not true:
            self.problems.append(what)

    def reads(self) -> str:
        return read_knob(self.closed, find_knob(self.closed, KNOB))

    def period(self, turn: int) -> None:
        """A run of one period, which ends as it should, or by its agent's death, or by that of its guardian too."""
        run = f"{turn}-aa"
        agent = HostAgent(root=self.closed, host="web", run=run)
        sleeper = WorkloadSpec(kind="command", options={"argv": ("/bin/sleep", "0.1")})
        arm = Arm(name="treated", knobs={KNOB: "always"})
        agent.handle(Preflight(arms=(arm,), workloads=(sleeper,)))
        lease = 60.0 if turn % 3 == 0 else 2.0
        agent.handle(Claim(run=run, owner="root", knobs=(KNOB,), lease_seconds=lease))
        agent.handle(Apply(arm=arm))
        agent.handle(Begin(period_id=1, sample_every_seconds=0.05, workload=sleeper, time_limit_seconds=5))
        time.sleep(0.2)
        agent.handle(Poll(acknowledged=0))
        ended = agent.handle(End(period_id=1))
        self.expect(self.reads() == "always", f"turn {turn}: the arm did not hold")
        self.expect(not getattr(ended, "invalid", ""), f"turn {turn}: {ended}")
        if turn % 3 == 0:
            agent.handle(Revert())
            agent.handle(Release())
        else:
            status = claim_status(self.closed)
            note = None if status is None else read_note(self.closed, status.claim)
            if turn % 3 == 2 and note is not None and note.process is not None:
                os.kill(note.process.pid, signal.SIGKILL)
            agent.abandon()
            if turn % 3 == 2:
                time.sleep(2.0)
                self.command("restore", "--root", str(CLOSED))
            end = time.monotonic() + 2.0 + 5.0
            while self.reads() != "inherit" and time.monotonic() < end:
                time.sleep(0.02)
        self.did[("released", "undone by the guardian", "undone by restore")[turn % 3]] += 1
        self.expect(self.reads() == "inherit", f"turn {turn}: the knob was not put back")

    def refused(self, host: Path) -> None:
        """Nothing of a host that others could have written is obeyed, whatever it is asked for."""
        root = FolderRoot(host)
        for act in (
            lambda: claim_status(root),
            lambda: restore(root, force=True),
            lambda: take_claim(root, run="1-aa", owner="root", knobs=[KNOB], lease_seconds=1.0, guardian_command=()),
        ):
            try:
                act()
            except JournalError as error:
                self.did["refused" if isinstance(error, StateRefused) else "not there at that moment"] += 1
            except (OSError, UnknownKnob):
                self.did["not there at that moment"] += 1
            else:
                self.did["nothing to restore"] += 1

    def simulate(self) -> None:
        pool = HostPool(Simulation.of(2), ["sim-0001", "sim-0002"], "1")
        pool.turn(0.0, [("sim-0001", Claim(run="1", owner="root", knobs=(KNOB,), lease_seconds=5.0))])
        time.sleep(0.05)
        pool.close()
        self.did["simulated"] += 1


def prepare() -> None:
    """Make the world: private folders that all may write, three hosts, the victim."""
    for folder, mode in (("/tmp", "1777"), ("/dev/shm", "1777"), ("/var/tmp", "1777"), (str(WORLD), "0755")):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode={mode}", "own", folder], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    os.umask(0o022)
    VICTIM.write_text("precious")
    for host in (CLOSED, OPEN, SWAPPED):
        build_host(host)
    for host in (OPEN, SWAPPED):
        claim = take_claim(
            FolderRoot(host), run="1-aa", owner="root", knobs=[KNOB], lease_seconds=0.1, guardian_command=()
        )
        claim.leave()
    (OPEN / STATE).chmod(0o777)
    (SWAPPED / STATE).parent.chmod(0o777)


def knobs_of(host: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for folder in ("sys", "proc")
        for path in (host / folder).rglob("*")
        if path.is_file()
    }


def main(seconds: float) -> int:
    prepare()
    victim, knobs = VICTIM.stat(), {host: knobs_of(host) for host in (OPEN, SWAPPED)}
    bystander = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        said = b""
        try:
            said = json.dumps(attack(seconds)).encode()
        except BaseException as error:
            said = json.dumps({"error": repr(error)}).encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    root, end, turn = Root(), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        root.period(turn)
        for host in (OPEN, SWAPPED, HIS_TREE):
            if host.exists():
                root.refused(host)
        root.simulate()
        root.command("doctor", "--short", "--root", str(CLOSED))
        turn += 1
    with os.fdopen(reading, "rb") as pipe:
        tried = json.loads(pipe.read())
    os.waitpid(child, 0)
    now = VICTIM.stat()
    kept = ("st_mode", "st_uid", "st_size", "st_mtime_ns")
    root.expect(VICTIM.read_text() == "precious", "root's file was written")
    root.expect(all(getattr(now, name) == getattr(victim, name) for name in kept), f"root's file was changed: {now}")
    root.expect(not MARK.exists(), "root ran what the stranger had left")
    root.expect(bystander.poll() is None, "a process of root's was killed")
    root.expect(len(closed_journals(root.closed)) == turn, "a claim has no closed journal")
    for host, before in knobs.items():
        root.expect(knobs_of(host) == before, f"{host}: a knob was written")
    for path in (CLOSED / STATE, *(CLOSED / STATE).rglob("*")):
        mode = path.lstat().st_mode
        root.expect(not mode & 0o077 and path.lstat().st_uid == 0, f"{path} is {stat.filemode(mode)}")
    bystander.kill()
    json.dump({"attempts": tried, "root": root.did, "problems": root.problems}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
