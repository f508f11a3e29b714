"""On a real arm64 kernel whose huge page is 512 MiB: a switchback from the command line to its report."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from analysis.report.effects import EffectOutcome, effect_rows
from analysis.results import TradeSide, Verdict
from fleetexp.domain import BrokenBy, PeriodKind, PeriodState
from fleetexp.reporting import report_content
from fleetexp.store.store import Store, open_store
from tests.lab.arm_guest import arm_boot
from tests.lab.bound_to_test import ends_with_us
from tests.lab.conftest import HERE
from tests.lab.guest_512m_switchback import SIZE_KIB
from tests.lab.sparse_touch import PAGES

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1000)]

ROOT = HERE.parents[1]
SCRIPTS = ("guest_512m_switchback.py", "sparse_touch.py")
GUEST_PYTHON = "3.13"
UNUSED = {"ray", "numba"}  # by an agent in this process, and a workload that is a command
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64")
LIMIT_SECONDS = 900  # 4 minutes on a quiet machine
MIB = 1 << 20
# Modules are compiled once, beside their sources: the second boot with the same folder is faster.
START = f"""\
mkdir -p /mnt/packages /mnt/share
mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000 packages /mnt/packages
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share /mnt/share
unset PYTHONDONTWRITEBYTECODE
export PYTHONPATH=/app:/mnt/packages
exec python3 /app/{SCRIPTS[0]}
"""


@pytest.fixture(scope="module")
def packages(pytestconfig: pytest.Config) -> Path:
    """A folder with what fleetexp needs on arm64, unpacked; filled once and kept."""
    assert pytestconfig.cache is not None
    cache = pytestconfig.cache.mkdir("lab-arm64-packages")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [one for one in wanted if re.split(r"[\[>=]", one)[0] not in UNUSED]
    constraints = (ROOT / "constraints.txt").read_text()
    made_of, folder = cache / "made-of.json", cache / "packages"
    told = json.dumps([wanted, constraints, GUEST_PYTHON])
    if made_of.exists() and made_of.read_text() == told:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--dest", str(cache / "wheels"),
            *(word for platform in PLATFORMS for word in ("--platform", platform)), "--python-version", GUEST_PYTHON,
            "--implementation", "cp", "--only-binary", ":all:", "--constraint", str(ROOT / "constraints.txt"), *wanted,
        ],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"pip can't fetch packages for arm64: {done.stderr.strip()[-500:]}")
    for wheel in (cache / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    shutil.rmtree(cache / "wheels")
    made_of.write_text(told)
    return folder


@dataclass(frozen=True)
class Seen:
    """What the guest left."""

    folder: Path
    result: dict[str, Any]
    console: str

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        with contextlib.closing(open_store(f"sqlite:///{self.folder / 'fleetexp.db'}", create=False)) as store:
            yield store


@pytest.fixture(scope="module")
def seen(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    boot = arm_boot()
    app, share = tmp_path_factory.mktemp("app"), tmp_path_factory.mktemp("share")
    for name in ("agents", "analysis", "fleetexp", "migrations"):
        shutil.copytree(ROOT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SCRIPTS:
        shutil.copyfile(HERE / name, app / name)
    start = tmp_path_factory.mktemp("start") / "start.sh"
    start.write_text(START)
    shares = " ".join(
        f"-fsdev local,id={name},path={folder},security_model=none,multidevs=remap"
        f" -device virtio-9p-pci,fsdev={name},mount_tag={name}"
        for name, folder in (("packages", packages), ("share", share))
    )
    command = ends_with_us(["env", "MEM=6G", f"T={LIMIT_SECONDS}", f"QEMU={shares}", boot, str(app), str(start)])
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert (share / "result.json").exists(), done.stdout[-4000:] + done.stderr[-2000:]
    return Seen(folder=share, result=json.loads((share / "result.json").read_text()), console=done.stdout)


def test_it_runs_to_its_report_and_leaves_the_setting_as_found(seen: Seen) -> None:
    assert seen.result["run"] == 0, seen.console[-4000:]
    assert "arm-512m" in (seen.folder / "run-1.html").read_text()
    assert seen.result["after"]["enabled"] == seen.result["before"]["enabled"] == "always [inherit] madvise never"
    with seen.store() as store:
        assert {restored for (restored,) in store.select("SELECT restored FROM knob_audit")} == {"yes"}
        measured = [one for one in store.periods(1) if one.plan.kind is PeriodKind.MEASURE]
    assert [(one.state, one.broken_by) for one in measured] == [(PeriodState.COMPLETE, BrokenBy.NOTHING)] * 12


def test_what_is_stored_of_512_mib_pages_is_what_the_kernel_counted(seen: Seen) -> None:
    given = int(seen.result["after"]["anon_fault_alloc"]) - int(seen.result["before"]["anon_fault_alloc"])
    periods = "SELECT p.arm, max(s.thp_524288kb_nr_anon), max(s.thp_524288kb_anon_fault_alloc)"
    with seen.store() as store:
        rows = store.select(
            f"{periods} FROM sample s JOIN period p ON p.period_id = s.period_id WHERE p.kind = 'measure'"
            " GROUP BY p.period_id ORDER BY p.period_id"
        )
        backed = store.select(
            "SELECT p.arm, max(o.maximum) FROM observation o JOIN period p ON p.period_id = o.period_id"
            " WHERE o.metric = 'thp_524288kB_backed_bytes' AND p.kind = 'measure' GROUP BY p.arm ORDER BY p.arm"
        )
    assert [pages for arm, pages, _ in rows if arm == "big"] == [PAGES] * 6
    assert [pages for arm, pages, _ in rows if arm == "small"] == [0] * 6
    assert max(count for _, _, count in rows) == int(seen.result["after"]["anon_fault_alloc"])
    assert given >= 6 * PAGES
    assert given % PAGES == 0
    assert backed == [("big", PAGES * SIZE_KIB * 1024), ("small", 0)]


def test_the_memory_guardrail_and_the_trade_tell_what_the_pages_cost(seen: Seen) -> None:
    with seen.store() as store:
        content = report_content(store, 1)
        means = store.select(
            "SELECT p.arm, o.metric, avg(o.mean) FROM observation o JOIN period p ON p.period_id = o.period_id"
            " WHERE p.kind = 'measure' GROUP BY p.arm, o.metric"
        )

    def more(metric: str) -> float:
        found = {arm: mean for arm, name, mean in means if name == metric}
        return float(found["big"] - found["small"])

    (rail,) = [one for one in content.findings.guardrails if one.plan.metric == "memory_used_bytes"]
    assert rail.verdict is Verdict.FAIL
    assert rail.estimate is not None
    assert rail.estimate.unit == "bytes"
    # The pages, and what the kernel keeps back of free memory: with 512 MiB pages turned on, half a GiB more here.
    pages, kept_back = more("anon_bytes"), more("memory_free_bytes") - more("memory_available_bytes")
    assert pages / MIB == pytest.approx(PAGES * 512, abs=300)  # not there yet at the start of a period
    assert kept_back / MIB == pytest.approx(545, abs=100)
    assert rail.estimate.difference / MIB == pytest.approx((pages + kept_back) / MIB, abs=100)
    (row,) = [one for one in effect_rows(content.findings) if one.metric == "memory_used_bytes"]
    assert (row.outcome, row.treatment[-3:]) == (EffectOutcome.CHANGED, "GiB")
    (trade,) = content.findings.trades
    assert trade.side is not TradeSide.SAVES
    assert f"memory +{rail.estimate.lift:.1%}" in trade.detail


def test_success_is_set_against_free_memory_in_blocks_of_512_mib(seen: Seen) -> None:
    with seen.store() as store:
        rows = report_content(store, 1).successes
    blocks = [row for row in rows if row.circumstance == "free memory in blocks that hold a huge page"]
    assert blocks
    assert all(row.page_size_kib == SIZE_KIB and row.given == row.asked for row in blocks)
    # the mean of two readings, at both ends of a period
    assert all(row.least % (SIZE_KIB * 512) == 0 for row in blocks)


def test_misses_of_the_dtlb_are_not_available_there_and_it_says_why(seen: Seen) -> None:
    with seen.store() as store:
        content = report_content(store, 1)
    (absent,) = [one for one in content.unavailable if one.metric == "dtlb_load_misses"]
    assert absent.reason
    assert f"unavailable: {absent.reason}" in [one.change for one in effect_rows(content.findings, content.unavailable)]
