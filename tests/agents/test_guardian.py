"""The guardian: whoever dies or stalls, the host is as it was found within lease + 5 s. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents import guardian as guardian_module
from agents.claim import HostClaim, Outcome, Standing, claim_status, closed_journals, restore, take_claim
from agents.errors import HostClaimed, JournalError, LeaseExpired
from agents.guardian import Guardian
from agents.host_lock import HostLock
from agents.knobs import find_knob, read_knob
from agents.lease import Phase
from agents.messages import Arm, KnobReason
from agents.process import ProcessMark, is_alive, is_stopped, mark_process, send_signal
from agents.recovery import read_note
from agents.sysroot import FolderRoot

pytestmark = pytest.mark.usefixtures("no_guardian_left")

HostTree = Callable[..., FolderRoot]
Wait = Callable[..., float]
THP_2M = "thp/2048kB/enabled"
PATH_2M = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
PROMISE_SECONDS = 5.0

AGENT = """
import os, sys
from agents.claim import take_claim
from agents.host_lock import HostLock
from agents.messages import Arm
from agents.sysroot import FolderRoot

os.set_inheritable(os.open("/dev/zero", os.O_RDONLY), True)
root, lease = FolderRoot(sys.argv[1]), float(sys.argv[2])
claim = take_claim(root, run="r1", owner="agent", knobs=["thp/2048kB/enabled"], lease_seconds=lease)
print("claimed", flush=True)
for line in sys.stdin:
    word, _, value = line.strip().partition(" ")
    try:
        match word:
            case "apply":
                claim.apply(Arm(name="a", knobs={"thp/2048kB/enabled": value}))
            case "renew":
                claim.renew()
            case "guard":
                claim.guard_process(int(value))
            case "hold":
                lock = HostLock(root.state_dir).__enter__()
            case "revert":
                claim.revert()
        print("ok", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


class Agent:
    """An agent in a process of its own that does what it is told, a line at a time."""

    def __init__(self, root: FolderRoot, lease_seconds: float) -> None:
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(root.root), str(lease_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )
        assert self._answer() == "claimed"
        status = claim_status(root)
        assert status is not None
        assert status.guardian_pid is not None
        mark = mark_process(status.guardian_pid)
        assert mark is not None
        self.guardian = mark

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._answer()

    def kill(self) -> None:
        """SIGKILL everything in the agent's session that is in its process group, as a raylet would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def agent_on(no_guardian_left: None) -> Iterator[Callable[..., Agent]]:
    """Start agents, and end them with the test."""
    agents: list[Agent] = []

    def start(root: FolderRoot, *, lease_seconds: float = 1.0) -> Agent:
        agents.append(Agent(root, lease_seconds))
        return agents[-1]

    yield start
    for agent in agents:
        agent.process.kill()
        agent.process.communicate()


def reads(root: FolderRoot) -> str:
    return read_knob(root, find_knob(root, THP_2M))


def only_closed(root: FolderRoot) -> tuple[Outcome, str]:
    (closed,) = closed_journals(root)
    return closed.outcome, closed.detail


# ------------------------------------------------------------------------------------------- the agent dies or stalls
def test_a_killed_agents_host_is_undone_when_its_lease_runs_out(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    agent.kill()
    assert reads(root) == "always"
    wait_until(lambda: claim_status(root) is None, within_seconds=1.0 + PROMISE_SECONDS)
    assert reads(root) == "inherit"
    assert only_closed(root) == (Outcome.LEASE_EXPIRED, "the lease of 1 s ran out; the agent is dead")
    (change,) = closed_journals(root)[0].changes[1:]
    assert (change.before, change.after, change.reason) == ("always", "inherit", KnobReason.GUARDIAN)
    wait_until(lambda: not is_alive(agent.guardian))


def test_the_promise_holds_on_a_machine_that_is_busy(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * (os.cpu_count() or 1))]
    try:
        assert agent.tell("apply always") == "ok"
        agent.kill()
        wait_until(lambda: reads(root) == "inherit", within_seconds=1.0 + PROMISE_SECONDS)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_renewed_lease_does_not_run_out(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root, lease_seconds=0.5)
    assert agent.tell("apply always") == "ok"
    deadline = 3 * 0.5
    started = os.times().elapsed
    wait_until(lambda: agent.tell("renew") == "ok" and os.times().elapsed - started > deadline)
    assert reads(root) == "always"
    agent.kill()
    wait_until(lambda: reads(root) == "inherit", within_seconds=0.5 + PROMISE_SECONDS)


def test_a_stopped_agent_that_wakes_up_writes_nothing(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    agent.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: claim_status(root) is None, within_seconds=1.0 + PROMISE_SECONDS)
    assert only_closed(root)[1].endswith("the agent is still alive")
    agent.process.send_signal(signal.SIGCONT)
    for order in ("renew", "apply never", "revert"):
        assert agent.tell(order) == "LeaseExpired"
    assert reads(root) == "inherit"


def test_an_agent_stalled_in_the_middle_of_a_write_is_killed_before_its_host_is_undone(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    assert agent.tell("hold") == "ok"
    agent.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: reads(root) == "inherit", within_seconds=1.0 + PROMISE_SECONDS)
    assert agent.process.wait(timeout=10) == -signal.SIGKILL


def test_workloads_die_before_their_pages_are_asked_back(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    workload = subprocess.Popen(["sleep", "60"], start_new_session=True)
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert agent.tell(f"guard {workload.pid}") == "ok"
        assert agent.tell("apply always") == "ok"
        agent.kill()
        wait_until(lambda: reads(root) == "inherit", within_seconds=1.0 + PROMISE_SECONDS)
        assert workload.wait(timeout=1) == -signal.SIGKILL
        assert bystander.poll() is None
    finally:
        for process in (workload, bystander):
            process.kill()
            process.wait()


def test_a_full_disk_does_not_keep_the_guardian_from_undoing(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait, mounted: Callable[..., None]
) -> None:
    root = host_tree()
    root.state_dir.mkdir(parents=True)
    mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root.state_dir))
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    with pytest.raises(OSError, match="No space left"), (root.state_dir / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    assert agent.tell("renew") == "ok"
    agent.kill()
    wait_until(lambda: claim_status(root) is None, within_seconds=1.0 + PROMISE_SECONDS)
    assert reads(root) == "inherit"
    assert only_closed(root)[0] is Outcome.LEASE_EXPIRED
    wait_until(lambda: not is_alive(agent.guardian))


def test_a_state_folder_that_was_removed_does_not_either(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    for path in (*root.state_dir.glob("*/*"), *root.state_dir.iterdir(), root.state_dir):
        path.rmdir() if path.is_dir() else path.unlink()
    assert agent.tell("apply never") == "LeaseExpired" or reads(root) == "always"
    wait_until(lambda: reads(root) == "inherit", within_seconds=1.0 + PROMISE_SECONDS)
    wait_until(lambda: not is_alive(agent.guardian))


# ------------------------------------------------------------------------------------------- the guardian's own life
def test_a_guardian_belongs_to_nobody(host_tree: HostTree, agent_on: Callable[..., Agent]) -> None:
    agent = agent_on(host_tree(), lease_seconds=60)
    proc = Path(f"/proc/{agent.guardian.pid}")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    parent, session = int(fields[1]), int(fields[3])
    assert parent not in (agent.process.pid, os.getpid())
    assert session not in (os.getsid(agent.process.pid), os.getsid(0))
    opened = {str((proc / "fd" / number).readlink()) for number in os.listdir(proc / "fd")}
    assert "/dev/zero" not in opened
    names = {item.partition("=")[0] for item in (proc / "environ").read_text().split("\0") if item}
    assert names <= {"PATH", "LD_LIBRARY_PATH"}
    assert (proc / "comm").read_text().strip() == "fleetexp-guard"
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    capabilities = int(status["CapEff"], 16)
    may_lock, may_spare = capabilities >> 14 & 1, capabilities >> 24 & 1  # CAP_IPC_LOCK, CAP_SYS_RESOURCE
    assert (proc / "oom_score_adj").read_text().strip() == ("-1000" if may_spare else "0")
    assert not may_lock or int(status["VmLck"].split()[0]) > 0


def test_a_released_host_has_no_guardian_left(host_tree: HostTree) -> None:
    root = host_tree()
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    status = claim_status(root)
    assert status is not None
    assert status.guardian_alive
    assert claim.guardian_alive()
    assert not claim.ensure_guardian()
    claim.release()
    assert status.guardian_pid is not None
    assert mark_process(status.guardian_pid) is None
    assert not claim.guardian_alive()
    assert "is over" in (root.state_dir / "guardian.log").read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_guardian_that_died_or_hangs_is_replaced(host_tree: HostTree, wait_until: Wait, how: signal.Signals) -> None:
    root = host_tree()
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=1.0)
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    first = guardian_of(root)
    assert send_signal(first, how)
    wait_until(lambda: not is_alive(first) or is_stopped(first))
    claim.renew()
    assert not claim.guardian_alive()
    assert claim.ensure_guardian()
    second = guardian_of(root)
    assert second != first
    assert not is_alive(first)
    wait_until(lambda: claim_status(root) is None, within_seconds=1.0 + PROMISE_SECONDS)
    assert reads(root) == "inherit"
    wait_until(lambda: not is_alive(second))
    with pytest.raises(LeaseExpired):
        claim.ensure_guardian()
    claim.release()


def guardian_of(root: FolderRoot) -> ProcessMark:
    status = claim_status(root)
    assert status is not None
    note = read_note(root, status.claim)
    assert note is not None
    assert note.process is not None
    return note.process


def test_a_guardian_told_to_terminate_undoes_at_once_and_only_then_leaves(
    host_tree: HostTree, wait_until: Wait
) -> None:
    root = host_tree()
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    guardian = guardian_of(root)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        send_signal(guardian, ignored)
    claim.renew()
    assert claim.guardian_alive()
    send_signal(guardian, signal.SIGTERM)
    wait_until(lambda: not is_alive(guardian))
    assert reads(root) == "inherit"
    assert only_closed(root)[0] is Outcome.GUARDIAN_STOPPED
    with pytest.raises(LeaseExpired, match="ended by its guardian"):
        claim.renew()
    with pytest.raises(LeaseExpired):
        claim.apply(Arm(name="a", knobs={THP_2M: "never"}))
    claim.release()


def test_restore_with_force_sends_the_guardian_away(host_tree: HostTree, wait_until: Wait) -> None:
    root = host_tree()
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    guardian = guardian_of(root)
    with pytest.raises(HostClaimed):
        restore(root)
    assert restore(root, force=True)[0].ok
    wait_until(lambda: not is_alive(guardian))
    assert reads(root) == "inherit"
    claim.release()


# ------------------------------------------------------------------------------------------- both have died
def both_killed(agent: Agent, wait_until: Wait) -> None:
    assert agent.tell("apply always") == "ok"
    send_signal(agent.guardian, signal.SIGKILL)
    agent.kill()
    wait_until(lambda: not is_alive(agent.guardian))


def test_with_agent_and_guardian_dead_the_next_claim_undoes_it(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    both_killed(agent_on(root), wait_until)
    assert reads(root) == "always"
    taken: list[HostClaim] = []

    def claimed() -> bool:
        try:
            taken.append(take_claim(root, run="r2", owner="o", knobs=[THP_2M], lease_seconds=60))
        except HostClaimed as error:
            assert "run r1 of agent" in str(error)
        return bool(taken)

    wait_until(claimed)
    assert [(change.before, change.after) for change in taken[0].leftovers] == [("always", "inherit")]
    assert taken[0].found == {THP_2M: "inherit"}
    taken[0].release()


def test_with_agent_and_guardian_dead_a_person_can_undo_it(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    both_killed(agent_on(root, lease_seconds=0.5), wait_until)
    wait_until(lambda: standing(root) is Standing.DEAD)
    assert restore(root)[0].ok
    assert reads(root) == "inherit"
    assert only_closed(root) == (Outcome.RESTORED, "restored by hand; the claim was dead")


def standing(root: FolderRoot) -> Standing | None:
    status = claim_status(root)
    return None if status is None else status.standing


def test_a_run_that_comes_back_need_not_wait_for_the_lease_of_its_dead_agent(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root, lease_seconds=60)
    assert agent.tell("apply always") == "ok"
    agent.kill()
    with pytest.raises(HostClaimed):
        take_claim(root, run="r2", owner="o", knobs=[THP_2M], lease_seconds=60)
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    assert [(change.before, change.after) for change in claim.leftovers] == [("always", "inherit")]
    assert only_closed(root)[0] is Outcome.TAKEN_OVER
    wait_until(lambda: not is_alive(agent.guardian))
    assert guardian_of(root) != agent.guardian
    claim.release()


def test_a_claim_waits_for_a_guardian_that_is_about_to_finish(
    host_tree: HostTree, agent_on: Callable[..., Agent]
) -> None:
    root = host_tree()
    agent = agent_on(root, lease_seconds=0.5)
    assert agent.tell("apply always") == "ok"
    agent.kill()
    taken = None
    while taken is None:
        try:
            taken = take_claim(root, run="r2", owner="o", knobs=[THP_2M], lease_seconds=60)
        except HostClaimed as error:
            assert "its lease lasts another" in str(error)  # never 'still putting back'
    assert (taken.leftovers, taken.found) == ((), {THP_2M: "inherit"})
    assert only_closed(root)[0] is Outcome.LEASE_EXPIRED
    taken.release()


# ------------------------------------------------------------------------------------------- what won't come back
def test_a_knob_that_will_not_come_back_is_tried_for_until_it_does(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root, lease_seconds=0.5)
    assert agent.tell("apply always") == "ok"
    agent.kill()
    (root.root / PATH_2M).unlink()  # as a kernel would that refuses
    wait_until(lambda: phase(root) is Phase.STUCK)
    status = claim_status(root)
    assert status is not None
    assert (status.standing, status.guardian_alive) == (Standing.UNDOING, True)
    assert "has no knob" in status.guardian_detail
    (root.root / PATH_2M).write_text("always\n")
    wait_until(lambda: claim_status(root) is None)
    assert reads(root) == "inherit"


def phase(root: FolderRoot) -> Phase | None:
    status = claim_status(root)
    note = None if status is None else read_note(root, status.claim)
    return None if note is None else note.phase


def test_while_the_guardian_is_stuck_nobody_gets_the_host_but_a_person(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = host_tree()
    agent = agent_on(root, lease_seconds=0.5)
    assert agent.tell("apply always") == "ok"
    agent.process.send_signal(signal.SIGSTOP)
    (root.root / PATH_2M).unlink()
    wait_until(lambda: phase(root) is Phase.STUCK)
    monkeypatch.setattr("agents.claim._GUARDIAN_PATIENCE_SECONDS", 0.0)
    with pytest.raises(HostClaimed, match="its guardian is still putting the host back") as caught:
        take_claim(root, run="r2", owner="o", knobs=["thp/enabled"], lease_seconds=60)
    assert "has no knob" in caught.value.where
    agent.process.send_signal(signal.SIGCONT)
    assert agent.tell("renew") == "LeaseExpired"
    assert not restore(root)[0].ok
    (root.root / PATH_2M).write_text("always\n")
    wait_until(lambda: reads(root) == "inherit")
    wait_until(lambda: not is_alive(agent.guardian), within_seconds=20)


# ------------------------------------------------------------------------------------------- in this process
@pytest.fixture
def here(host_tree: HostTree) -> Iterator[Callable[..., tuple[FolderRoot, HostClaim, Guardian]]]:
    """Return a host, a claim with no process to guard it, and the guardian to be run in this one."""
    made: list[HostClaim] = []

    def make(*, root: FolderRoot | None = None, lease_seconds: float = 0.2) -> tuple[FolderRoot, HostClaim, Guardian]:
        root = root or host_tree()
        claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=lease_seconds, guardian_command=())
        made.append(claim)
        return root, claim, Guardian.of(root, claim._header.claim)

    yield make
    for claim in made:
        claim.leave()


def test_the_guardian_undoes_what_has_expired(here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]]) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    guardian.watch()
    assert reads(root) == "inherit"
    assert only_closed(root)[0] is Outcome.LEASE_EXPIRED


def test_the_guardian_leaves_a_claim_that_somebody_else_has_ended(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]],
) -> None:
    root, claim, guardian = here(lease_seconds=60)
    claim._lease.finish(claim._header.claim)
    claim._journal.close(Outcome.RELEASED)
    guardian.watch()
    assert only_closed(root)[0] is Outcome.RELEASED
    root, claim, guardian = here(root=root)
    claim._journal.close(Outcome.RELEASED)  # and died before it could say so in the lease
    (root.root / PATH_2M).write_text("always\n")
    guardian.watch()
    assert reads(root) == "always"


def test_a_guardian_is_for_the_claim_that_holds_the_host(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]],
) -> None:
    root, _, _ = here(lease_seconds=60)
    with pytest.raises(JournalError, match="does not hold this host"):
        Guardian.of(root, "another")


def test_a_lease_renewed_at_the_last_moment_counts(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    take_lock = guardian._take_lock

    def renewed_first() -> None:
        monkeypatch.undo()
        claim._lease.extend(claim._header.claim, guardian._state().expires_at_boot_seconds + 0.3)
        assert reads(root) == "always"
        take_lock()

    monkeypatch.setattr(guardian, "_take_lock", renewed_first)
    guardian.watch()
    assert only_closed(root)[0] is Outcome.LEASE_EXPIRED
    assert reads(root) == "inherit"


def test_a_damaged_lease_runs_out_as_it_was_last_read(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]],
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    (root.state_dir / "lease").write_bytes(b"garbage")
    guardian.watch()
    assert reads(root) == "inherit"


def test_what_cannot_be_put_back_is_said_and_tried_again(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], host_tree: HostTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(FolderRoot):
        refusals = 0

        def write(self, path: str, value: bytes) -> None:
            if value == b"inherit" and self.refusals > 0:
                type(self).refusals -= 1
                raise OSError(16, "Device or resource busy")
            super().write(path, value)

    root, claim, guardian = here(root=Late(host_tree().root))
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    monkeypatch.setattr("agents.undo._FIRST_PAUSE_SECONDS", 60.0)
    Late.refusals = 2
    said: list[tuple[Phase, str]] = []
    say = guardian._say
    monkeypatch.setattr(guardian, "_say", lambda phase, detail="": (said.append((phase, detail)), say(phase, detail)))
    guardian.watch()
    assert [phase for phase, _ in said] == [Phase.UNDOING, Phase.STUCK, Phase.STUCK, Phase.DONE]
    assert "busy" in said[1][1]
    assert reads(root) == "inherit"
    errors = [change.error for change in closed_journals(root)[0].changes if change.reason is KnobReason.GUARDIAN]
    assert len(errors) == 2  # the first refusal and the success; what repeats fills no journal
    assert errors[1] is None


def test_somebody_else_may_put_the_host_back_while_the_guardian_is_stuck(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    (root.root / PATH_2M).unlink()
    monkeypatch.setattr("agents.undo._FIRST_PAUSE_SECONDS", 60.0)

    def person(_: float) -> None:
        (root.root / PATH_2M).write_text("always\n")
        claim.revert()
        claim._journal.close(Outcome.RESTORED)

    wait = guardian_module._wait
    monkeypatch.setattr(
        guardian_module, "_wait", lambda seconds: person(seconds) if phase(root) is Phase.STUCK else wait(seconds)
    )
    guardian.watch()
    assert reads(root) == "inherit"
    assert only_closed(root)[0] is Outcome.RESTORED


def test_a_note_that_cannot_be_written_stops_nothing(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]],
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    guardian._note.close()
    guardian.watch()
    assert reads(root) == "inherit"


def test_whoever_holds_the_lock_past_the_end_of_the_lease_is_killed(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    monkeypatch.setattr(guardian_module, "LOCK_PATIENCE_SECONDS", 0.3)
    program = (
        "import pathlib, sys, time; from agents.host_lock import HostLock\n"
        "with HostLock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    stalled = subprocess.Popen(
        [sys.executable, "-c", program, str(root.state_dir)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    with stalled:
        assert stalled.stdout is not None
        assert stalled.stdout.readline() == b"held\n"
        guardian.watch()
    assert stalled.returncode == -signal.SIGKILL
    assert reads(root) == "inherit"


def test_a_guardian_told_to_terminate_waits_for_a_write_under_way(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here(lease_seconds=60)
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    monkeypatch.setattr(guardian_module, "LOCK_PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(guardian_module, "_wait", lambda _: signal.SIGTERM)
    lock = HostLock(root.state_dir)
    assert lock.acquire(1)
    release = threading.Timer(0.2, lock.release)
    release.start()
    guardian.watch()
    release.join()
    assert reads(root) == "inherit"
    assert only_closed(root) == (Outcome.GUARDIAN_STOPPED, "the guardian was told to terminate")


def test_a_lock_that_nobody_lets_go_of_is_passed_by(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    monkeypatch.setattr(guardian_module, "LOCK_PATIENCE_SECONDS", 0.1)
    with HostLock(root.state_dir):  # held by this very process, which is not killed for it
        guardian.watch()
    assert reads(root) == "inherit"
