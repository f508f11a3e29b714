"""A period reads on the tick, keeps everything in order, and knows what makes it unusable."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.errors import LeaseExpired
from agents.messages import HostEvent, HostEventKind, Measurement, Reading, Sample, WorkloadState
from agents.period import FOREIGN_NAMES_TOLD, PeriodHost, PeriodReads, SampledPeriod
from agents.spool import Spool


@dataclass
class Beats:
    """A source that counts its readings, and can be told to fail or to take its time."""

    samples: int = 0
    boundaries: int = 0
    happened: list[tuple[HostEventKind, str]] = field(default_factory=list)
    fail: Exception | None = None
    slow_seconds: float = 0.0

    def sample(self) -> dict[str, float]:
        if self.fail is not None:
            raise self.fail
        time.sleep(self.slow_seconds)
        self.samples += 1
        return {"pgfault": float(self.samples)}

    def boundary(self) -> dict[str, float]:
        self.boundaries += 1
        return {"pgfault": float(self.samples), "thp_64kB_split": 0.0}

    def events(self) -> list[tuple[HostEventKind, str]]:
        happened, self.happened = self.happened, []
        return happened


@dataclass
class Drifted:
    knob: str
    wanted: str
    actual: str


@dataclass
class Lease:
    """A claim whose lease and knobs the test sets."""

    lease_remaining_seconds: float = 10.0
    drifted: tuple[Drifted, ...] = ()
    guardian_was_gone: bool = False
    expired: bool = False

    def drift(self) -> tuple[Drifted, ...]:
        if self.expired:
            raise LeaseExpired("gone")
        return self.drifted

    def ensure_guardian(self) -> bool:
        gone, self.guardian_was_gone = self.guardian_was_gone, False
        return gone


@dataclass
class Work:
    """A workload that says what the test tells it to say."""

    state: tuple[WorkloadState, str] = (WorkloadState.RUNNING, "")
    said: list[tuple[datetime, str, float]] = field(default_factory=list)
    last_words: list[tuple[datetime, str, float]] = field(default_factory=list)
    stopped: int = 0
    gone: bool = False

    def poll(self) -> tuple[WorkloadState, str]:
        return self.state

    def go(self) -> None:
        self.gone = True

    def measurements(self) -> list[tuple[datetime, str, float]]:
        said, self.said = self.said, []
        return said

    def stop(self, timeout_seconds: float = 10.0) -> bool:
        self.stopped += 1
        self.said, self.last_words = [*self.said, *self.last_words], []
        return True


@dataclass
class Stage:
    """Everything around one period under test."""

    spool: Spool
    source: Beats = field(default_factory=Beats)
    claim: Lease = field(default_factory=Lease)
    work: Work | None = None
    boot: str = "boot-1"
    every: float = 0.01

    def period(self) -> SampledPeriod:
        return SampledPeriod(
            period_id=5,
            every_seconds=self.every,
            reads=PeriodReads(files=self.source, workload=self.work, workload_kind="command"),
            claim=self.claim,
            spool=self.spool,
            host=PeriodHost(boot_id=lambda: self.boot),
        )

    def readings(self) -> list[Reading]:
        return list(self.spool.pending(10_000)[0])

    def events(self) -> list[tuple[HostEventKind, str]]:
        return [(r.kind, r.detail) for r in self.readings() if isinstance(r, HostEvent)]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(spool=Spool(tmp_path / "spool.jsonl"))
    yield made
    made.spool.close()


def until(true: Callable[[], bool], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def test_a_period_starts_and_ends_with_a_boundary_sample_and_numbers_everything(stage: Stage) -> None:
    period = stage.period()
    period.start()
    until(lambda: stage.source.samples >= 5)
    period.stop()
    samples = [r for r in stage.readings() if isinstance(r, Sample)]
    assert "thp_64kB_split" in samples[0].values
    assert "thp_64kB_split" in samples[-1].values
    assert all("thp_64kB_split" not in s.values for s in samples[1:-1])
    assert [s.sequence for s in samples] == list(range(1, len(samples) + 1))
    assert all(a.boottime_seconds < b.boottime_seconds for a, b in itertools.pairwise(samples))
    assert period.invalid == ""


def test_stop_may_be_called_twice_and_from_two_threads(stage: Stage) -> None:
    stage.work = Work()
    period = stage.period()
    period.start()
    threads = [threading.Thread(target=period.stop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stage.source.boundaries == 2
    assert stage.work.stopped == 1


def test_what_the_workload_says_last_is_kept(stage: Stage) -> None:
    stage.work = Work(last_words=[(datetime.now(UTC), "throughput", 7.0)])
    stage.work.said = [(datetime.now(UTC), "throughput", 6.0)]
    period = stage.period()
    period.start()
    period.stop()
    assert [r.value for r in stage.readings() if isinstance(r, Measurement)] == [6.0, 7.0]


@pytest.mark.parametrize("when", ["at once", "at the end"])
@pytest.mark.parametrize(
    ("metric", "owner"),
    [
        ("pgfault", "pgfault belongs to the host's kernel"),
        ("memory_used_bytes", "memory_used_bytes belongs to fleetexp, which derives it"),
        ("thp_2048kB_backed_bytes", "thp_2048kB_backed_bytes belongs to fleetexp, which derives it"),
        ("thp_2048kb_backed_bytes", "thp_2048kB_backed_bytes belongs to fleetexp, which derives it"),
        ("agent_cpu_seconds", "agent_cpu_seconds belongs to fleetexp itself"),
        ("access_seconds", "access_seconds belongs to the workload pointer_chase"),
        ("oom_kills ", "oom_kills belongs to the host's kernel"),
    ],
)
def test_a_value_under_the_name_of_another_is_an_event_and_no_value(
    stage: Stage, metric: str, owner: str, when: str
) -> None:
    now = datetime.now(UTC)
    said = [(now, metric, 1.0), (now, "latency", 2.0), (now, metric, 3.0)]
    stage.work = Work(said=said) if when == "at once" else Work(last_words=said)
    period = stage.period()
    period.start()
    period.stop()
    assert [r.metric for r in stage.readings() if isinstance(r, Measurement)] == ["latency"]
    assert period.invalid == f"the workload reports {metric}: {owner}"
    assert stage.events() == [(HostEventKind.FOREIGN_METRIC, period.invalid)]  # once, not for each value


def test_names_of_others_without_end_are_told_of_a_few_times(stage: Stage) -> None:
    now = datetime.now(UTC)
    stage.work = Work(said=[(now, f"pageblocks_{'a' * n}", 1.0) for n in range(1, 99)])
    period = stage.period()
    period.start()
    period.stop()
    assert [kind for kind, _ in stage.events()] == [HostEventKind.FOREIGN_METRIC] * FOREIGN_NAMES_TOLD
    assert not [r for r in stage.readings() if isinstance(r, Measurement)]


def test_a_slow_source_drops_beats_and_does_not_burst(stage: Stage) -> None:
    stage.source.slow_seconds = 0.05
    period = stage.period()
    period.start()
    until(lambda: stage.source.samples >= 4)
    period.stop()
    at = [r.boottime_seconds for r in stage.readings() if isinstance(r, Sample)][1:-1]
    assert min(b - a for a, b in itertools.pairwise(at)) >= 0.045


def test_drift_is_told_once_and_makes_the_period_invalid(stage: Stage) -> None:
    period = stage.period()
    period.start()
    stage.claim.drifted = (Drifted("thp/enabled", "always", "never"),)
    until(lambda: period.drift != {})
    seen = stage.source.samples
    until(lambda: stage.source.samples > seen + 3)
    period.stop()
    assert stage.events() == [(HostEventKind.DRIFT, "thp/enabled: wanted 'always', reads 'never'")]
    assert "drift: thp/enabled" in period.invalid


@pytest.mark.parametrize("how", ["by the clock", "by the claim"])
def test_a_lease_that_ran_out_makes_the_period_invalid(stage: Stage, how: str) -> None:
    stage.work = Work()
    period = stage.period()
    period.start()
    if how == "by the clock":
        stage.claim.lease_remaining_seconds = 0.0
    else:
        stage.claim.expired = True
    until(lambda: period.invalid != "")
    if how == "by the clock":
        until(lambda: stage.work is not None and stage.work.stopped > 0)
    period.stop()
    assert period.invalid == "the lease ran out"


def test_a_guardian_that_was_started_again_is_an_event(stage: Stage) -> None:
    stage.claim.guardian_was_gone = True
    period = stage.period()
    period.start()
    period.stop()
    assert [kind for kind, _ in stage.events()] == [HostEventKind.GUARDIAN_RESTARTED]
    assert period.invalid == ""


def test_a_workload_that_fails_is_told_once_and_makes_the_period_invalid(stage: Stage) -> None:
    stage.work = Work(state=(WorkloadState.FAILED, "exit status 3"))
    period = stage.period()
    period.start()
    until(lambda: stage.source.samples >= 3)
    period.stop()
    assert stage.events() == [(HostEventKind.WORKLOAD_FAILED, "exit status 3")]
    assert period.invalid == "workload failed: exit status 3"
    assert period.workload == (WorkloadState.FAILED, "exit status 3")


def test_events_of_the_kernel_are_kept_in_order(stage: Stage) -> None:
    stage.source.happened = [(HostEventKind.BAD_PAGE, "bad pud"), (HostEventKind.TAINT, "B")]
    period = stage.period()
    period.start()
    period.stop()
    assert stage.events() == [(HostEventKind.BAD_PAGE, "bad pud"), (HostEventKind.TAINT, "B")]


def test_a_reboot_in_the_period_makes_it_invalid(stage: Stage) -> None:
    period = stage.period()
    period.start()
    stage.boot = "boot-2"
    period.stop()
    assert "rebooted" in period.invalid
    assert stage.events()[-1][0] is HostEventKind.REBOOT


def test_a_reading_that_fails_makes_the_period_invalid_and_the_beat_goes_on(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.source.fail = OSError(5, "Input/output error")
    period = stage.period()
    period.start()
    until(lambda: period.invalid != "")
    stage.source.fail = None
    until(lambda: stage.source.samples >= 2)
    period.stop()
    assert "Input/output error" in period.invalid
    assert "a reading failed" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_that_ends_the_beat_makes_the_period_invalid_and_is_an_event(stage: Stage) -> None:
    stage.source.fail = KeyError("a defect")
    period = stage.period()
    period.start()
    until(lambda: period.invalid != "")
    period.stop()
    assert "KeyError('a defect')" in period.invalid
    assert (HostEventKind.SOURCE_LOST, period.invalid) in stage.events()


def test_the_first_reason_stays(stage: Stage) -> None:
    period = stage.period()
    period.void("one")
    period.void("two")
    assert period.invalid == "one"
