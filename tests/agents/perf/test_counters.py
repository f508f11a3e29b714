"""Events counted by this machine's kernel: software events, which a virtual machine has too."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.catalogue.table import COUNTED_ALWAYS
from agents.event_text import TYPE_SOFTWARE
from agents.perf import PerfCounters
from agents.perf.counters import ONLINE
from agents.perf.events import find_events
from agents.perf.group import EventGroup
from agents.perf.syscall import PerfEvent, open_event
from agents.sysroot import FolderRoot, Reader
from tests.touched_pages import on_cpu, touch_pages

CGROUP_MOUNTS = (Path("/sys/fs/cgroup/perf_event"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
PERF_EVENT_IOC_DISABLE = 0x2401
TOUCH = (
    "import mmap; m = mmap.mmap(-1, {n} * 4096, flags=34); m.madvise(15); "
    "[m.__setitem__(i, 1) for i in range(0, {n} * 4096, 4096)]"
)
needs_perf_events = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/sys/kernel/perf_event_paranoid").exists(),
    reason="system-wide perf events need root and a kernel that has them",
)


class OtherOnline(FolderRoot):
    """This machine, with a list of online CPUs that the test writes: taking a real CPU away would stop others here."""

    def __init__(self, online: Path) -> None:
        super().__init__("/")
        self._folder = FolderRoot(online.parent)
        self._name = online.name

    def reader(self, path: str) -> Reader:
        return self._folder.reader(self._name) if path == ONLINE else super().reader(path)


def take(counters: PerfCounters) -> dict[str, float]:
    out: dict[str, float] = {}
    counters.collect(out)
    return out


@pytest.fixture
def counters() -> Iterator[PerfCounters]:
    made = PerfCounters(FolderRoot())
    yield made
    made.close()


@needs_perf_events
def test_page_faults_of_this_process_are_all_counted(counters: PerfCounters) -> None:
    before = take(counters)["page_faults"]
    touch_pages(3000)
    assert take(counters)["page_faults"] - before >= 3000


@needs_perf_events
def test_times_say_that_software_events_are_never_multiplexed(counters: PerfCounters) -> None:
    touch_pages(10)
    out = take(counters)
    assert out["page_faults_time_enabled_seconds"] > 0
    assert out["page_faults_time_enabled_seconds"] == out["page_faults_time_running_seconds"]


@needs_perf_events
def test_what_is_not_offered_is_absent_with_a_reason_never_zero(counters: PerfCounters) -> None:
    out = take(counters)
    for metric, reason in counters.unavailable.items():
        assert metric not in out
        assert f"{metric}_time_enabled_seconds" not in out
        assert reason
    assert {"page_faults", "context_switches", "cpu_migrations"} <= set(out)


class PerfStat:
    """`perf stat -a`, switched on and off over pipes, so that its window is ours to within the length of a message."""

    def __init__(self, perf: str, events: str) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        control = ["--control", f"fd:{orders},{answers}", "--delay", "-1"]
        command = [perf, "stat", "-a", "-x,", "-e", events, *control]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=(orders, answers))
        os.close(orders)
        os.close(answers)

    def order(self, word: str) -> None:
        os.write(self._orders, f"{word}\n".encode())
        assert os.read(self._answers, 100).startswith(b"ack")

    def counts(self) -> dict[str, float]:
        self._process.send_signal(signal.SIGINT)
        _, text = self._process.communicate(timeout=20)
        os.close(self._orders)
        os.close(self._answers)
        return {name: float(count) for count, name in re.findall(r"^(\d+),,([a-z-]+),", text, re.MULTILINE)}


def switch_tasks(times: int) -> None:
    """Pass a byte to and fro between two processes: at least one context switch for each way."""
    there, back = os.pipe(), os.pipe()
    code = f"import os\nfor _ in range({times}): os.write({back[1]}, os.read({there[0]}, 1))"
    with subprocess.Popen([sys.executable, "-S", "-c", code], pass_fds=(there[0], back[1])):
        for _ in range(times):
            os.write(there[1], b".")
            os.read(back[0], 1)
    for fd in (*there, *back):
        os.close(fd)


@needs_perf_events
def test_counts_agree_with_perf_stat_over_the_same_window(counters: PerfCounters) -> None:
    perf = shutil.which("perf")
    if perf is None:
        pytest.skip("no perf on this machine to compare with")
    stat = PerfStat(perf, "page-faults,context-switches")
    stat.order("enable")
    before = take(counters)
    touch_pages(20_000)
    switch_tasks(10_000)
    after = take(counters)
    stat.order("disable")
    theirs = stat.counts()
    for metric, name in (("page_faults", "page-faults"), ("context_switches", "context-switches")):
        ours = after[metric] - before[metric]
        assert theirs[name] > 10_000
        assert ours == pytest.approx(theirs[name], rel=0.05), metric


@needs_perf_events
def test_closing_gives_every_descriptor_back() -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = held()
    made = PerfCounters(FolderRoot())
    assert held() > before
    made.close()
    made.close()
    assert held() == before
    assert take(made) == {}


@contextlib.contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Leave this process exactly so many descriptors to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 32, hard))
    fill: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                fill.append(os.dup(0))
        for _ in range(count):
            os.close(fill.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fill:
            os.close(fd)


@needs_perf_events
@pytest.mark.parametrize("free", range(4))
def test_too_few_descriptors_is_a_reason_and_leaks_none(free: int) -> None:
    used = len(os.listdir("/proc/self/fd"))
    with free_descriptors(free):
        made = PerfCounters(FolderRoot())
        reasons = dict(made.unavailable)
        made.close()
    told = {metric for metric, reason in reasons.items() if "too many open files; raise the limit" in reason}
    assert {"page_faults", "context_switches", "cpu_migrations"} & told
    assert free > 1 or "dtlb_walk_cycles" in told, "a list that could not be read names no reason of its own"
    assert len(os.listdir("/proc/self/fd")) == used


@needs_perf_events
def test_a_cpu_that_goes_offline_and_comes_back_is_followed(tmp_path: Path) -> None:
    online = Path(f"/{ONLINE}").read_text()
    if online.strip() == "0":
        pytest.skip("one CPU only")
    listed = tmp_path / "online"
    listed.write_text(online)
    lost: list[str] = []
    made = PerfCounters(OtherOnline(listed), lost=lost.append)
    whole = len(made.descriptors)
    before = take(made)["page_faults"]
    listed.write_text("0\n")
    touch_pages(10)
    fewer = take(made)
    assert len(made.descriptors) < whole
    assert any("CPU 1: it went offline" in sentence for sentence in lost)
    assert fewer["page_faults"] >= before, "what was counted stays counted"
    listed.write_text(online)
    take(made)
    assert len(made.descriptors) == whole
    middle = take(made)["page_faults"]
    touch_pages(2000)
    assert take(made)["page_faults"] - middle >= 2000
    made.close()


@needs_perf_events
def test_an_event_that_died_unseen_is_opened_anew() -> None:
    lost: list[str] = []
    made = PerfCounters(FolderRoot(), lost=lost.append)
    take(made)
    for fd in made.descriptors:  # as if its CPU had been away between two samples
        fcntl.ioctl(fd, PERF_EVENT_IOC_DISABLE, 0)
    take(made)
    take(made)
    assert any("stood still" in sentence for sentence in lost)
    before = take(made)["page_faults"]
    touch_pages(2000)
    assert take(made)["page_faults"] - before >= 2000
    made.close()


@needs_perf_events
def test_an_event_that_no_longer_reads_is_given_up_and_opened_at_the_next_sample() -> None:
    lost: list[str] = []
    made = PerfCounters(FolderRoot(), lost=lost.append)
    whole = len(made.descriptors)
    before = take(made)["page_faults"]
    with Path(os.devnull).open("rb") as empty:
        os.dup2(empty.fileno(), made.descriptors[0])  # only a CPU that goes away takes a group apart
    assert take(made)["page_faults"] >= before, "what was counted stays counted"
    assert any("on CPU 0: the kernel gave up" in sentence for sentence in lost)
    take(made)
    assert len(made.descriptors) == whole
    with on_cpu(0):
        middle = take(made)["page_faults"]
        touch_pages(2000)
        assert take(made)["page_faults"] - middle >= 2000
    made.close()


@needs_perf_events
def test_software_events_of_a_cpu_are_read_in_one_call(counters: PerfCounters) -> None:
    software = [(event, cpu) for event, cpu in counters.counted if event.kind == TYPE_SOFTWARE]
    cpus = {cpu for _, cpu in software}
    assert len(software) == 3 * len(cpus)
    assert len(counters.descriptors) == len(counters.counted) - 2 * len(cpus)


@needs_perf_events
def test_a_group_counts_what_each_event_alone_counts() -> None:
    """The group and three events on their own, read around the same work."""
    events = [event for event in find_events(FolderRoot())[0] if event.kind == TYPE_SOFTWARE]
    together = EventGroup(events)
    alone = [EventGroup([event]) for event in events]
    for group in (together, *alone):
        assert group.open_on(os.sched_getaffinity(0)) == {}
    begun = [totals_of(group) for group in (together, *alone)]
    touch_pages(3000)
    switch_tasks(1000)
    ended = [totals_of(group) for group in (together, *alone)]
    (ours, *theirs) = [
        [after - before for after, before in zip(*totals, strict=True)] for totals in zip(ended, begun, strict=True)
    ]
    assert ours == pytest.approx([one for (one,) in theirs], rel=0.05, abs=50)
    assert ours[0] >= 3000
    assert ours[1] >= 1000
    for group in (together, *alone):
        group.close()


def totals_of(group: EventGroup) -> list[float]:
    group.counts.add({cpu: reading for cpu in group.fds if (reading := group.read(cpu)) is not None})
    return list(group.counts.totals)


@needs_perf_events
def test_an_event_that_is_refused_is_left_out_and_the_others_go_on() -> None:
    faults, unknown, switches = (software_event(config) for config in (2, 9999, 3))
    group = EventGroup([faults, unknown, switches])
    refused = group.open_on([0])
    assert list(refused) == ["software_9999"]
    assert group.events == (faults, switches)
    reading = group.read(0)
    assert reading is not None
    assert len(reading) == 4
    held = group.fds[0]
    group.close()
    for fd in held:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@needs_perf_events
def test_an_event_that_is_refused_on_a_new_cpu_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    faults, switches = software_event(2), software_event(3)
    group = EventGroup([faults, switches])
    group.open_on([0])
    with on_cpu(0):
        touch_pages(2000)

    def refuse(event: PerfEvent, *, cpu: int, cgroup_fd: int = -1, leader: int = -1) -> int:
        if event == switches and cpu == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_event(event, cpu=0, cgroup_fd=cgroup_fd, leader=leader)

    monkeypatch.setattr("agents.perf.group.open_event", refuse)
    assert list(group.open_on([1])) == ["software_3"]
    assert group.counts.metrics == ("software_2",)
    assert group.counts.totals[0] >= 2000, "counted before the group was opened anew"
    assert set(group.fds) == {0, 1}
    group.close()


def software_event(config: int) -> PerfEvent:
    return PerfEvent(name=f"software_{config}", kind=TYPE_SOFTWARE, config=config)


def test_an_event_that_does_not_exist_is_refused_by_the_kernel() -> None:
    with pytest.raises(OSError, match=r"(No such file|Invalid argument|not permitted|Permission|not supported)"):
        open_event(software_event(9999), cpu=0)


def test_an_architecture_without_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*real[:4], "pdp11")))
    with pytest.raises(OSError, match=r"pdp11|not implemented"):
        open_event(software_event(2), cpu=0)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A fresh cgroup in a hierarchy with perf events."""
    if os.geteuid() != 0:
        pytest.skip("making a cgroup needs root")
    mount = next((mount for mount in CGROUP_MOUNTS if (mount / "cgroup.procs").exists()), None)
    if mount is None:
        pytest.skip("no cgroup hierarchy with perf events")
    made = mount / f"fleetexp-test-{os.getpid()}"
    made.mkdir()
    yield made
    if made.exists():
        made.rmdir()


def run_in(cgroup: Path, code: str) -> None:
    enter = f"open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0')\n"
    subprocess.run([sys.executable, "-S", "-c", enter + code], check=True)


@needs_perf_events
def test_a_cgroups_events_are_its_tasks_alone(cgroup: Path) -> None:
    made = PerfCounters(FolderRoot(), cgroup=cgroup, prefix="cgroup_")
    assert take(made)["cgroup_page_faults"] == 0
    touch_pages(2000)  # ours: not in the cgroup
    assert take(made)["cgroup_page_faults"] == 0
    run_in(cgroup, TOUCH.format(n=5000))
    faults = take(made)["cgroup_page_faults"]
    assert 5000 <= faults < 15_000
    made.close()


@needs_perf_events
def test_an_event_of_the_users_own_is_counted_in_the_cgroup_alone(cgroup: Path) -> None:
    made = PerfCounters(FolderRoot(), (), own={"mine": "page-faults:u"}, cgroup=cgroup, prefix="cgroup_")
    touch_pages(2000)  # ours: not in the cgroup
    assert take(made)["mine"] == 0
    run_in(cgroup, TOUCH.format(n=5000))
    assert 5000 <= take(made)["mine"] < 15_000
    made.close()


@needs_perf_events
def test_a_cgroup_made_anew_is_counted_again_not_as_zero(cgroup: Path) -> None:
    lost: list[str] = []
    made = PerfCounters(FolderRoot(), cgroup=cgroup, prefix="cgroup_", lost=lost.append)
    take(made)
    cgroup.rmdir()
    cgroup.mkdir()
    before = take(made)["cgroup_page_faults"]
    assert any("made anew" in sentence for sentence in lost)
    run_in(cgroup, TOUCH.format(n=3000))
    assert take(made)["cgroup_page_faults"] - before >= 3000
    made.close()


@needs_perf_events
def test_a_removed_cgroup_is_absent_with_the_reason(cgroup: Path) -> None:
    lost: list[str] = []
    made = PerfCounters(FolderRoot(), cgroup=cgroup, prefix="cgroup_", lost=lost.append)
    take(made)
    cgroup.rmdir()
    assert take(made) == {}
    assert made.unavailable["cgroup_page_faults"] == "the cgroup was removed"
    assert lost
    made.close()


def test_a_cgroup_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    made = PerfCounters(FolderRoot(), cgroup=tmp_path / "none", prefix="cgroup_")
    assert "No such file" in made.unavailable["cgroup_page_faults"]
    made.close()


@needs_perf_events
def test_a_cgroup_whose_events_the_kernel_does_not_count_is_the_reason_and_not_the_cpu(tmp_path: Path) -> None:
    # A folder that is none, and cgroups in hierarchies without perf events, where this machine has such.
    others = (tmp_path, Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/systemd"))
    for folder in others:
        if folder.exists():
            made = PerfCounters(FolderRoot(), ["cycles", "page_faults"], cgroup=folder, prefix="cgroup_")
            for metric in ("cgroup_cycles", "cgroup_page_faults"):
                assert "the kernel counts no perf events for this cgroup" in made.unavailable[metric]
                assert made.unavailable[metric].endswith(str(folder))
            assert take(made) == {}
            made.close()


@pytest.mark.parametrize("said", ["9" * 10_000, "-1", "0-", "\N{ARABIC-INDIC DIGIT ONE}", "0-99999999", "1-0"])
def test_a_list_of_cpus_that_no_kernel_gives_is_a_reason_and_no_error(tmp_path: Path, said: str) -> None:
    listed = tmp_path / "online"
    listed.write_text(said)
    refused = PerfCounters(OtherOnline(listed))
    assert set(refused.unavailable) >= set(COUNTED_ALWAYS)
    assert all("no list of CPUs" in reason and len(reason) < 120 for reason in refused.unavailable.values())
    listed.write_text(Path(f"/{ONLINE}").read_text())
    counters = PerfCounters(OtherOnline(listed))
    out: dict[str, float] = {}
    counters.collect(out)
    listed.write_text(said)
    counters.collect(out)
    assert not counters.descriptors
    counters.close()
