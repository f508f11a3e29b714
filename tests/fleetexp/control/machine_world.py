"""What the state machine is tested in: plans, and a fleet that answers every instruction at once."""

from __future__ import annotations

from collections import Counter, deque

from agents.messages import Arm
from analysis.plan import Direction, GuardrailPlan
from fleetexp.control import messages as m
from fleetexp.control.host_registry import HostCounts
from fleetexp.control.run_machine import RunMachine
from fleetexp.domain import Approval, Design, DriftPolicy, PeriodKind, PeriodPlan, Plan, Safety, StagePlan, UnitPlan


def _plan(
    design: Design,
    units: list[UnitPlan],
    stages: tuple[StagePlan, ...],
    *,
    max_failed_hosts: int,
    on_drift: DriftPolicy = DriftPolicy.INVALIDATE,
    max_changing: int | None = None,
) -> Plan:
    return Plan(
        design=design,
        seed=1,
        arms=(Arm(name="control", knobs={}), Arm(name="treatment", knobs={"thp/enabled": "always"})),
        control="control",
        units=tuple(units),
        stages=stages,
        sample_every_seconds=1.0,
        safety=Safety(
            max_failed_hosts=max_failed_hosts, lease_seconds=15.0, on_drift=on_drift, max_changing=max_changing
        ),
    )


def make_plan(
    hosts: int = 1, blocks: int = 2, *, max_failed: int = 3, on_drift: DriftPolicy = DriftPolicy.INVALIDATE
) -> Plan:
    units = []
    for number in range(hosts):
        periods = []
        for block in range(blocks):
            for arm in ("control", "treatment"):
                for kind, seconds in ((PeriodKind.WASHOUT, 1.0), (PeriodKind.MEASURE, 5.0)):
                    index = len(periods)
                    periods.append(PeriodPlan(index=index, kind=kind, arm=arm, block=block, stage=0, seconds=seconds))
        units.append(UnitPlan(host=f"h{number}", stratum="", arm=None, stage=0, periods=tuple(periods)))
    stages = (StagePlan(index=0, hosts=hosts, hold_seconds=1e9),)
    return _plan(Design.SWITCHBACK, units, stages, max_failed_hosts=max_failed, on_drift=on_drift)


def assert_counted(machine: RunMachine) -> None:
    """Compare the roll's counts with what a look at every unit says."""
    units, registry = list(machine.units.values()), machine.registry
    assert registry.counts == HostCounts(*map(sum, zip(*(unit.counts for unit in units), strict=True)))
    assert +registry.states == Counter(unit.state for unit in units)
    assert +registry.awaited == Counter(unit.plan.stage for unit in units if unit.awaited)


def staged_plan(
    hosts: int = 4, *, approve: Approval = Approval.AUTO, max_failed: int = 3, max_changing: int | None = None
) -> Plan:
    """A parallel ramp: one host, two, all; half of them treated."""
    sizes = (1, 2, hosts)
    stages = tuple(StagePlan(index=k, hosts=n, hold_seconds=10.0 + 3.0, approve=approve) for k, n in enumerate(sizes))
    units = []
    for number in range(hosts):
        arm, stage = ("treatment", "control")[number % 2], next(k for k, n in enumerate(sizes) if number < n)
        seconds = sum(one.hold_seconds for one in stages[stage:]) - 3.0
        periods = (
            PeriodPlan(index=0, kind=PeriodKind.BASELINE, arm="control", block=-1, stage=0, seconds=2.0),
            PeriodPlan(index=1, kind=PeriodKind.WASHOUT, arm=arm, block=0, stage=stage, seconds=1.0),
            PeriodPlan(index=2, kind=PeriodKind.MEASURE, arm=arm, block=0, stage=stage, seconds=seconds),
        )
        units.append(UnitPlan(host=f"h{number}", stratum="", arm=arm, stage=stage, periods=periods))
    return _plan(Design.PARALLEL, units, stages, max_failed_hosts=max_failed, max_changing=max_changing)


def crossing(host: str) -> m.TripwireCrossed:
    rail = GuardrailPlan(metric="oom_kills", worse=Direction.INCREASE, tripwire=1.0)
    return m.TripwireCrossed(host=host, guardrail=rail, value=3.0)


ASKED = (m.CheckHost, m.Snapshot, m.ApplyArm, m.StartPeriod, m.Collect, m.RevertHost, m.Reconnect)  # of a host


class World:
    """Answers every instruction at once, the way a healthy fleet would; keeps what the machine asked for."""

    def __init__(self, machine: RunMachine) -> None:
        self.machine = machine
        self.now = 0.0
        self.wakes: list[float] = []
        self.seen: list[m.Instruction] = []
        self.changed: set[str] = set()  # hosts whose knobs may differ from what was found
        self.dead: set[str] = set()
        self.breaches: tuple[str, ...] = ()  # what the next test of the guardrails finds
        self.unread: tuple[str, ...] = ()
        self.silent: tuple[str, ...] = ()
        self.most_changing = 0
        self.todo: deque[m.Instruction] = deque(machine.start(0.0))

    def event(self, event: m.Event) -> None:
        self.todo.extend(self.machine.handle(event, self.now))
        assert_counted(self.machine)
        if self.machine.goal is None:
            self.most_changing = max(self.most_changing, self.machine.registry.counts.changing)

    def step(self) -> bool:
        """Carry out one instruction, or let time pass to the next wake; False when nothing is left."""
        if self.todo:
            instruction = self.todo.popleft()
            self.seen.append(instruction)
            self._answer(instruction)
            return True
        if not self.wakes:
            return False
        self.now = max(self.now, self.wakes.pop(self.wakes.index(min(self.wakes))))
        self.event(m.TimePassed())
        return True

    def run(self, until: type | None = None, limit: int = 2000) -> None:
        for _ in range(limit):
            if until is not None and self.todo and isinstance(self.todo[0], until):
                return
            if not self.step():
                return
        raise AssertionError("the machine does not come to an end")

    def _answer(self, instruction: m.Instruction) -> None:
        host = getattr(instruction, "host", "")
        if isinstance(instruction, m.WakeAt):
            self.wakes.append(instruction.at)
        elif isinstance(instruction, m.Analyse):
            self.event(m.Analysed())
        elif isinstance(instruction, m.TestGuardrails):
            tested = m.GuardrailsTested(
                stage=instruction.stage, breaches=self.breaches, unread=self.unread, silent=self.silent
            )
            self.event(tested)
        elif isinstance(instruction, m.ApplyArm) and host not in self.dead:
            self.changed.add(host)
            self.event(m.KnobsVerified(host=host, arm=instruction.arm))
        elif isinstance(instruction, ASKED):
            if host in self.dead:
                self.event(m.HostLost(host=host, detail="no answer"))
                return
            if isinstance(instruction, m.RevertHost):
                self.changed.discard(host)
            answers: dict[type, m.Event] = {
                m.CheckHost: m.PreflightDone(host=host),
                m.Snapshot: m.KnobsSnapshotted(host=host),
                m.StartPeriod: m.PeriodBegun(host=host),
                m.Collect: m.PeriodClosed(host=host, invalid=getattr(instruction, "invalid", "")),
                m.RevertHost: m.HostReverted(host=host),
                m.Reconnect: m.HostBack(host=host),
            }
            self.event(answers[type(instruction)])

    def lose(self, host: str) -> None:
        """No answer comes to what the host was asked; what goes into the store for it goes there all the same."""
        self.todo = deque(i for i in self.todo if not (isinstance(i, ASKED) and i.host == host))
        self.event(m.HostLost(host=host, detail="gone"))

    def count(self, kind: type) -> int:
        return sum(isinstance(i, kind) for i in self.seen)

    @property
    def reason(self) -> str:
        return [i for i in self.seen if isinstance(i, m.EnterState)][-1].reason
