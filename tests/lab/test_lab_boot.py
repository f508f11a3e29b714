"""`fleetexp lab boot`, as a user calls it: a fleet from a kernel image, an experiment on it, and nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetexp.lab.console import BootFailure, failure_of
from fleetexp.lab.guest import Guest
from fleetexp.lab.lab import check_memory
from fleetexp.lab.machine import Hardware, KernelImage, Share, qemu_command, with_our_init
from fleetexp.lab.record import read_record
from fleetexp.store.store import open_store
from tests.fleetexp.lab.test_boot_refusals import plan
from tests.ray_cluster import PROJECT, until

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
# What the kernel has counted and how its knob reads: as the guest joins, and once more when it is asked for.
COUNTED = """\
big=/sys/kernel/mm/transparent_hugepage/hugepages-1048576kB
seen() {
    grep thp_split_pud /proc/vmstat
    for name in anon_fault_alloc anon_fault_fallback split; do echo "$name $(cat $big/stats/$name)"; done
    echo "knob $(cat $big/enabled)"
}
seen >/mnt/share/before
(until [ -e /mnt/share/count ]; do sleep 1; done; seen >/mnt/share/new; mv /mnt/share/new /mnt/share/after) &
"""


def noted(guest: Guest, name: str) -> dict[str, Any]:
    """What the guest has left on its share: its counters and its knob, before or after."""
    lines = dict(line.split(" ", 1) for line in (guest.share / name).read_text().splitlines())
    return {"knob": lines.pop("knob"), "counters": {key: int(value) for key, value in lines.items()}}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "fleetexp", *words]


def fleetexp(*words: str, cwd: Path, within: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        command(*words), env=environment, cwd=cwd, capture_output=True, text=True, timeout=within, check=False
    )


@contextlib.contextmanager
def booting(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Start `fleetexp lab boot`, in the foreground; whatever it leaves is ended afterwards."""
    try:
        with (
            (folder / "boot.log").open("w") as log,
            subprocess.Popen(
                # A test that is killed ends the command in order, which takes the guests away.
                [
                    "setpriv",
                    "--pdeathsig",
                    "TERM",
                    *command("lab", "boot", *words),
                    "--folder",
                    str(folder / "lab"),
                    "--json",
                ],
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()
    finally:
        if (folder / "lab/lab.json").exists():
            fleetexp("lab", "stop", "--folder", str(folder / "lab"), cwd=folder)


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
    prepare = tmp_path / "prepare.sh"
    prepare.write_text(COUNTED)
    options = ["--hosts", "2", "--memory", "5GiB", "--prepare", str(prepare), "--timeout", "30m"]
    with booting(tmp_path, str(image.image), str(image.initramfs), *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (tmp_path / "boot.log").read_text()
        times.append(time.monotonic())
        seen = json.loads(line)
        record = read_record(folder)
        told = json.loads(fleetexp("lab", "status", "--folder", str(folder), "--json", cwd=tmp_path).stdout)
        assert told == seen
        assert [(one["host"], one["state"]) for one in seen["hosts"]] == [("lab-1", "joined"), ("lab-2", "joined")]

        (tmp_path / "spec.yaml").write_text(SPEC)
        words = ["run", "spec.yaml", "--fleet", "ray", "--store", "sqlite:///lab.db", "--reports", "reports", "--json"]
        done = fleetexp("lab", "enter", "--folder", str(folder), *command(*words), cwd=tmp_path, within=1800)
        times.append(time.monotonic())
        assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-4000:])
        assert json.loads(done.stdout)["state"] == "completed"
        counted = {}
        for guest in record.guests:
            (guest.share / "count").touch()
            until((guest.share / "after").exists, 60, "the guest has counted")
            before, after = noted(guest, "before"), noted(guest, "after")
            assert after["knob"] == before["knob"]
            risen = {name: after["counters"][name] - before["counters"][name] for name in after["counters"]}
            assert risen["thp_split_pud"] == 0
            counted[guest.name] = risen["anon_fault_alloc"]

        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert is_gone(folder, seen)
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
    options = ["--hosts", "1", "--memory", "512MiB", "--emulate"]
    with booting(tmp_path, str(image.image), str(image.initramfs), *options) as process:
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
