"""`fleetexp lab boot`, as a user calls it: a fleet from a kernel image, an experiment on it, and nothing left."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fleetexp.lab.console import BootFailure, failure_of
from fleetexp.lab.lab import check_memory
from fleetexp.lab.machine import Hardware, KernelImage, Share, qemu_command, with_our_init
from fleetexp.store.store import open_store
from tests.fleetexp.lab.test_boot_refusals import plan
from tests.lab.booted_lab import BootedLab, booting, fleetexp
from tests.ray_cluster import until

pytestmark = [pytest.mark.lab, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3600)]

GIB = 2**30
SPEC = """\
name: rehearsal-1g
hypothesis: on this kernel an arm with 1 GB pages gets them, and the arm without does not
design: parallel
population: {pools: [lab]}
control: small
arms:
  small: {thp/1048576kB/enabled: never, thp/2048kB/enabled: always}
  big: {thp/1048576kB/enabled: always, thp/2048kB/enabled: always}
assignment: {seed: 4}
stages: [{share: 100%, hold: 30s}]
periods: {baseline: 20s, washout: 1s, sample_every: 1s}
workload: {pointer_chase: {region: 1GiB, page_size: 1GiB, dereferences: 20000, pretouch: false}}
metrics: {primary: access_nanoseconds_per_dereference, secondary: [fault_seconds]}
safety: {lease: 120s, max_failed_hosts: 1}
"""


def interfaces() -> tuple[str, ...]:
    """This machine's own network, as it is changed by nothing here: its interfaces and routes."""
    return tuple(
        subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
        for words in (("-o", "-br", "link"), ("-o", "-br", "addr"), ("route",))
    )


def labs_networks() -> set[str]:
    """The namespaces of labs, by name."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^fleetexp-\w+", listed, re.MULTILINE))


def is_gone(folder: Path, seen: dict[str, Any]) -> bool:
    """Whether a lab that was described so has left nothing: no network, no process, none of Ray's files, no record."""
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return (
        seen["network"] not in labs_networks()
        and not any(str(folder).encode() in line for line in lines)
        and sorted(path.name for path in folder.iterdir()) == [one["host"] for one in seen["hosts"]]
    )


@pytest.fixture
def image(lab: Path) -> KernelImage:
    return KernelImage(image=lab / "bzImage-pud", initramfs=lab / "initramfs.cpio.gz")


def test_two_guests_run_a_parallel_experiment_to_its_report_and_ctrl_c_takes_them_away(
    image: KernelImage, tmp_path: Path
) -> None:
    check_memory(plan(tmp_path, hosts=2, memory=5 * GIB), Path("/proc/meminfo").read_text())
    folder, found, times = tmp_path / "lab", interfaces(), [time.monotonic()]
    with booting(tmp_path, image, "--hosts", "2", "--memory", "5GiB", "--timeout", "30m") as process:
        lab = BootedLab.joined(tmp_path, process)
        times.append(time.monotonic())
        told = json.loads(fleetexp("lab", "status", "--folder", str(folder), "--json", cwd=tmp_path).stdout)
        assert told == lab.seen
        assert [(one["host"], one["state"]) for one in told["hosts"]] == [("lab-1", "joined"), ("lab-2", "joined")]

        run = lab.run(SPEC, "sqlite:///lab.db")
        times.append(time.monotonic())
        assert (run["code"], run["out"]["state"]) == (0, "completed"), run
        counted = {}
        for guest in lab.record.guests:
            before, after = lab.noted(guest)
            assert after["knobs"] == before["knobs"]
            risen = {name: after["counters"][name] - before["counters"][name] for name in after["counters"]}
            assert risen["thp_split_pud"] == 0
            counted[guest.name] = risen["anon_fault_alloc"]

        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert is_gone(folder, lab.seen)
        assert interfaces() == found
        times.append(time.monotonic())
    names = ("until both had joined", "the experiment", "until all was gone")
    print({name: round(after - before) for name, before, after in zip(names, times, times[1:], strict=False)})

    assert list((tmp_path / "reports").glob("*.html"))
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'lab.db'}", create=False)) as store:
        arms = dict(map(tuple, store.select("SELECT DISTINCT host, arm FROM period_metrics WHERE kind = 'measure'")))
        backed = store.select(
            "SELECT host, max(maximum) FROM period_metrics WHERE metric = 'thp_1048576kB_backed_bytes'"
            " AND kind = 'measure' AND state = 'complete' GROUP BY host"
        )
        changed = store.select("SELECT count(*) FROM knob_audit WHERE restored = 'no'")[0][0]
    assert sorted(arms.values()) == ["big", "small"]
    assert dict(map(tuple, backed)) == {host: GIB if arm == "big" else 0 for host, arm in arms.items()}
    assert {host: rise > 0 for host, rise in counted.items()} == {host: arm == "big" for host, arm in arms.items()}
    assert changed == 0


def test_a_lab_whose_command_is_killed_is_taken_away_by_lab_stop(image: KernelImage, tmp_path: Path) -> None:
    folder, found = tmp_path / "lab", interfaces()
    with booting(tmp_path, image, "--hosts", "1", "--memory", "512MiB", "--emulate") as process:
        until((folder / "lab-1/console.log").exists, 400, "a guest boots")
        process.kill()
        process.wait()
        told = fleetexp("lab", "status", "--folder", str(folder), "--json", cwd=tmp_path)
        seen = json.loads(told.stdout)
        again = fleetexp("lab", "boot", str(image.image), str(image.initramfs), "--folder", str(folder), cwd=tmp_path)
        assert "there is a lab here already" in again.stderr
        assert not is_gone(folder, seen)

        assert fleetexp("lab", "stop", "--folder", str(folder), cwd=tmp_path).stdout == "the lab is gone\n"
        assert is_gone(folder, seen)
        assert interfaces() == found


def test_a_boot_that_fails_says_why_with_the_last_lines_of_the_console_and_leaves_nothing(
    image: KernelImage, tmp_path: Path
) -> None:
    empty, folder, found, networks = tmp_path / "empty", tmp_path / "lab", interfaces(), labs_networks()
    empty.touch()
    options = ["--hosts", "1", "--memory", "512MiB", "--emulate", "--folder", str(folder)]
    done = fleetexp("lab", "boot", str(image.image), str(empty), *options, cwd=tmp_path, within=600)
    assert done.returncode == 1
    error = done.stderr[done.stderr.index("error: ") :]
    assert re.match(r"error: guest lab-1: its initramfs has neither /bin/sh nor /bin/busybox", error)
    assert f"[{folder}/lab-1/console.log]" in error
    assert "Requested init" in error
    assert "Requested init" in (folder / "lab-1/console.log").read_text()
    assert not (folder / "lab.json").exists()
    assert interfaces() == found
    assert labs_networks() <= networks


@pytest.mark.parametrize("tags", [(), ("hostroot",)])
def test_a_guest_that_lacks_a_folder_says_so(tags: tuple[str, ...], image: KernelImage, tmp_path: Path) -> None:
    shares = [Share(tag=tag, folder=Path("/")) for tag in tags]
    words = qemu_command(with_our_init(image, tmp_path), Hardware(memory_bytes=2**29), shares)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=False)
    assert failure_of(done.stdout.decode(errors="replace")) is BootFailure.VIRTIO
