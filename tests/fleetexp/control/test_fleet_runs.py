"""Runs over a fleet of hosts in folders: stages and the gates between them, approval, tripwires, what is out of reach.

Agents and guardians are real; the kernel is a thread that lets each host's memory follow its knob.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agents.claim import claim_status
from agents.messages import Survey
from agents.sysroot import FolderRoot
from analysis.results import Decision
from fleetexp.control import host_machine, late_restores
from fleetexp.control.launch import restore_run, resume
from fleetexp.control.progress import Progress, RunOutcome
from fleetexp.domain import RunRequest, RunState
from fleetexp.errors import RunError, StoreLocked
from fleetexp.exit_codes import ExitCode
from fleetexp.experiment import parse_experiment
from fleetexp.fleets.base import HostReply
from fleetexp.fleets.inline_fleet import InlineInventory
from fleetexp.store.store import Store, open_store, query
from tests.fleetexp.control.conftest import holds
from tests.fleetexp.control.requests_to_runs import request_stop
from tests.launching import launch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SPEC = """\
name: fleet-in-folders
design: parallel
arms:
  control: {{}}
  big: {{thp/2048kB/enabled: always}}
assignment: {{seed: {seed}}}
stages: {stages}
periods: {{baseline: 500ms, washout: 200ms, sample_every: 100ms}}
metrics:
  primary: memory_used_bytes
  guardrails: {guardrails}
safety: {{lease: 30s, max_failed_hosts: {max_failed}{more}}}
"""
MARGIN = "[{metric: memory_used_bytes, margin: 10%}]"
KIB = 1024
TOTAL_KIB = 24684092  # of tests/host_tree.py


class Kernel(threading.Thread):
    """Each host's memory in use follows its knob: `used_kib(number, treated)`."""

    def __init__(self, roots: dict[str, FolderRoot], used_kib: Callable[[int, bool], int]) -> None:
        super().__init__(daemon=True)
        self.roots = roots
        self.used_kib = used_kib
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            for number, root in enumerate(self.roots.values()):
                used = self.used_kib(number, holds(root) == "always")
                with (root.root / "proc/meminfo").open("r+b") as file:  # in place: agents keep it open
                    place = file.read().index(b"MemAvailable:") + len(b"MemAvailable:")
                    os.pwrite(file.fileno(), b"%16d" % (TOTAL_KIB - used), place)


def modest(number: int, _treated: bool) -> int:
    return 600_000 + 1_000 * number + random.randrange(20_000)


@dataclass
class Fleet:
    """Folder hosts and one database."""

    roots: dict[str, FolderRoot]
    folder: Path
    kernel: Kernel
    seen: list[Progress] = field(default_factory=list)
    when: Callable[[Progress], None] = lambda _: None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'fleet.db'}"

    def observe(self, progress: Progress) -> None:
        self.seen.append(progress)
        self.when(progress)

    def inventory(self) -> InlineInventory:
        racks = {host: {"rack": f"r{number % 3}"} for number, host in enumerate(self.roots)}
        return InlineInventory(dict(self.roots), racks)

    def run(
        self, *, stages: str, guardrails: str = "[]", seed: int = 6, max_failed: int = 1, more: str = ""
    ) -> RunOutcome:
        text = SPEC.format(stages=stages, guardrails=guardrails, seed=seed, max_failed=max_failed, more=more)
        return launch(
            parse_experiment(text), text, store_url=self.url, observer=self.observe, inventory=self.inventory()
        )

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        with contextlib.closing(open_store(self.url, create=False)) as store:
            yield store

    def events(self, kind: str) -> list[tuple[str, str]]:
        with self.store() as store:
            return [(event.host, event.detail) for event in store.events(1) if event.kind == kind]

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return query(self.url, sql, 1000)[1]

    def treated(self) -> list[str]:
        """The hosts that were ever written to under the treatment."""
        sql = "select distinct host from knob_audit where reason = 'apply' and after = 'always' order by host"
        return [str(host) for (host,) in self.rows(sql)]


Make = Callable[..., Fleet]


@pytest.fixture
def make(host_tree: Callable[..., FolderRoot], tmp_path: Path, no_guardian_left: None) -> Iterator[Make]:
    made: list[Fleet] = []

    def build(hosts: int, used_kib: Callable[[int, bool], int] = modest) -> Fleet:
        roots = {f"web-{number:02}": host_tree(f"web-{number:02}") for number in range(hosts)}
        kernel = Kernel(roots, used_kib)
        kernel.start()
        made.append(Fleet(roots=roots, folder=tmp_path, kernel=kernel))
        return made[-1]

    yield build
    for fleet in made:
        fleet.kernel.over.set()
        fleet.kernel.join()
        left = {host: holds(root) for host, root in fleet.roots.items() if holds(root) != "inherit"}
        assert not left, "hosts were left changed"


def hungry(number: int, treated: bool) -> int:
    return modest(number, treated) + 600_000 * treated


def test_stages_open_one_after_the_other_to_a_decision_and_only_a_third_treats_more_hosts(make: Make) -> None:
    fleet = make(12)
    stages = "[{hosts: 2, hold: 1s}, {hosts: 10, hold: 2s}, {hosts: 12, hold: 1s}]"
    outcome = fleet.run(stages=stages, guardrails=MARGIN)
    assert (outcome.state, outcome.exit_code) == (RunState.COMPLETED, ExitCode.DONE), outcome
    assert [detail for _, detail in fleet.events("stage_opened")] == ["0", "1", "2"]
    looks = fleet.rows("select distinct stage, look from guardrail_looks where host = '' order by stage is null, stage")
    assert looks == [(0, 0), (1, 1), (None, 2)]
    verdicts = fleet.rows("select stage, verdict from guardrail_looks where metric = 'memory_used_bytes'")
    assert dict(verdicts)[0] == "inconclusive"  # two hosts show nothing
    assert dict(verdicts)[None] == "pass"
    assert fleet.rows("select count(*) from guardrail_looks where checked_at is null") == [(0,)]


def test_a_guardrail_breach_at_stage_two_halts_and_every_host_reads_as_found(make: Make) -> None:
    fleet = make(12, hungry)
    outcome = fleet.run(
        stages="[{hosts: 2, hold: 1s}, {hosts: 11, hold: 3s}, {hosts: 12, hold: 600s}]", guardrails=MARGIN
    )
    assert (outcome.state, outcome.exit_code) == (RunState.HALTED, ExitCode.HALTED), outcome
    assert "guardrail memory_used_bytes: An increase of 10 % or more is shown" in outcome.reason
    assert [detail for _, detail in fleet.events("stage_opened")] == ["0", "1"]
    checks = fleet.rows(
        "select stage, look, verdict, checked_at is not null from guardrail_looks where margin_percent = 10"
    )
    assert (1, 1, "fail", 1) in checks
    assert all(claim_status(root) is None for root in fleet.roots.values())
    assert fleet.rows("select count(*) from knob_audit where restored = 'no'") == [(0,)]
    assert fleet.rows("select count(*) from period where state = 'running'") == [(0,)]


def test_a_store_that_is_away_delays_a_stage_and_never_skips_its_test(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make(3)
    tried: list[float] = []
    real = Store.save_guardrail_checks

    def refuse(self: Store, *words: object, **named: object) -> None:
        tried.append(time.monotonic())
        if len(tried) < 4:
            raise StoreLocked("the database is locked", where="db", remedy="wait")
        real(self, *words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "save_guardrail_checks", refuse)
    outcome = fleet.run(stages="[{hosts: 2, hold: 1s}, {hosts: 3, hold: 1s}]", guardrails=MARGIN)
    assert outcome.state is RunState.COMPLETED, outcome
    assert len(tried) == 4
    opened, tested = (
        fleet.rows("select at from host_timeline where what = 'stage_opened' and detail = '1'"),
        fleet.rows("select min(checked_at) from guardrail_looks where stage = 0"),
    )
    assert str(opened[0][0]) >= str(tested[0][0])


def test_a_stage_waits_for_approval_and_leases_are_renewed_meanwhile(make: Make) -> None:
    fleet = make(3)
    answers: list[RunOutcome] = []

    def approve() -> None:
        with fleet.store() as store:
            while not store.run(1).reason.startswith("awaiting approval"):
                time.sleep(0.05)
        time.sleep(1.0)
        answers.append(resume(1, store_url=fleet.url, observer=lambda _: None, inventory=fleet.inventory()))

    other = threading.Thread(target=approve)

    def when(progress: Progress) -> None:
        if not other.ident:
            other.start()

    fleet.when = when
    outcome = fleet.run(stages="[{hosts: 2, hold: 1s, approve: manual}, {hosts: 3, hold: 1s}]")
    other.join()
    assert outcome.state is RunState.COMPLETED, outcome
    assert "approved: stage 2 by" in answers[0].reason
    assert any("awaiting approval" in progress.current for progress in fleet.seen)
    kinds = [str(kind) for (kind,) in fleet.rows("select what from host_timeline order by at")]
    order = [kind for kind in kinds if kind in {"launched", "awaiting_approval", "approve_requested", "approved"}]
    assert order == ["launched", "awaiting_approval", "approve_requested", "approved"]
    assert fleet.events("host_lost") == []
    seconds = fleet.rows("select min(seconds), max(seconds) from period_metrics where kind = 'measure' and stage = 0")
    assert seconds[0][0] > 3.0  # the wait is measured too, and what was planned after it is not cut short


def test_a_pause_wins_over_a_wait_for_approval_and_the_run_can_be_resumed(make: Make) -> None:
    fleet = make(2)

    def when(progress: Progress) -> None:
        if "awaiting approval" in progress.current:
            request_stop(fleet.url, 1, RunRequest.PAUSE, "ann")
            fleet.when = lambda _: None

    fleet.when = when
    stages = "[{hosts: 1, hold: 1s, approve: manual}, {hosts: 2, hold: 1s}]"
    outcome = fleet.run(stages=stages)
    assert (outcome.state, outcome.exit_code) == (RunState.PAUSED, ExitCode.DONE), outcome
    assert all(holds(root) == "inherit" for root in fleet.roots.values())


def test_a_tripwire_takes_its_host_out_and_the_others_go_on(make: Make) -> None:
    fleet = make(6, lambda number, treated: 9_000_000 if treated and number == 1 else 600_000 + number)
    rail = f"[{{metric: memory_used_bytes, worse: increase, tripwire: {8_000_000 * KIB}}}]"
    outcome = fleet.run(stages="[{hosts: 6, hold: 3s}]", guardrails=rail)
    assert "web-01" in fleet.treated()
    assert outcome.state is RunState.COMPLETED, outcome
    assert [host for host, _ in fleet.events("tripwire")] == ["web-01"]
    assert fleet.rows("select host, treatment, verdict, stage from guardrail_looks where host <> ''") == [
        ("web-01", "big", "fail", 0)
    ]
    assert outcome.decision is Decision.DO_NOT_SHIP
    assert "crossed on web-01" in outcome.reason
    assert fleet.rows("select distinct state from period_metrics where host = 'web-01' and kind = 'measure'") in (
        [],
        [("invalid",)],
    )


def test_a_host_out_of_reach_is_named_and_collected_when_it_is_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_machine, "RECONNECT_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(late_restores, "WAIT_SECONDS", 0.05)
    fleet = make(2)
    cut: set[str] = set()
    monkeypatch.setattr(InlineInventory, "open", _with_a_link_that_can_be_cut(cut))

    def when(progress: Progress) -> None:
        if not cut and (treated := [host for host, root in fleet.roots.items() if holds(root) == "always"]):
            cut.update(treated)

    fleet.when = when
    outcome = fleet.run(stages="[{hosts: 2, hold: 20s}]", max_failed=0)
    assert (outcome.state, outcome.exit_code) == (RunState.RESTORE_INCOMPLETE, ExitCode.RESTORE_INCOMPLETE), outcome
    (lost,) = cut
    assert f"{lost} (unreachable" in outcome.reason
    assert [host for host, _ in fleet.events("not_restored")] == [lost]
    left = restore_run(1, store_url=fleet.url, inventory=fleet.inventory())
    assert list(left) == [lost]  # still away
    with fleet.store() as store:
        assert store.run(1).state is RunState.RESTORE_INCOMPLETE
    cut.clear()
    deadline = time.monotonic() + 60
    while claim_status(fleet.roots[lost]) is not None:  # its guardian has to undo it by itself
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert restore_run(1, store_url=fleet.url, inventory=fleet.inventory()) == {}
    with fleet.store() as store:
        record = store.run(1)
    assert (record.state, record.reason) == (RunState.HALTED, f"every host restored: {lost}")
    assert fleet.rows("select distinct host, restored from knob_audit where reason = 'guardian'") == [(lost, "yes")]
    with pytest.raises(RunError, match="left no host unrestored"):
        restore_run(1, store_url=fleet.url, inventory=fleet.inventory())


def _with_a_link_that_can_be_cut(cut: set[str]) -> Callable[..., object]:
    """Let nothing through to hosts in `cut`, nor from them: their agents hear nobody, and the guardians act."""
    real = InlineInventory.open

    def opened(self: InlineInventory, hosts: list[str], run: str) -> object:
        fleet = real(self, hosts, run)
        send, reconnect, away = fleet.send, fleet.reconnect, list[HostReply]()
        receive, close = fleet.receive, fleet.close

        def sent(host: str, request: object, seconds: float) -> None:
            if host in cut:
                away.append(HostReply(host=host, request=request, error=ConnectionError("link cut"), lost=True))  # type: ignore[arg-type]
            else:
                send(host, request, seconds)  # type: ignore[arg-type]

        def received(seconds: float) -> list[HostReply]:
            out, away[:] = list(away), []
            return out + [one for one in receive(0.0 if out else seconds) if one.host not in cut]

        def again(host: str, seconds: float) -> None:
            if host in cut:
                away.append(HostReply(host=host, request=Survey(), error=ConnectionError("link cut"), lost=True))
            else:
                reconnect(host, seconds)

        def closed() -> None:
            for host in cut & fleet._agents.keys():
                fleet._agents.pop(host).abandon()
            close()

        fleet.send, fleet.receive, fleet.reconnect, fleet.close = sent, received, again, closed  # type: ignore[method-assign]
        return fleet

    return opened
