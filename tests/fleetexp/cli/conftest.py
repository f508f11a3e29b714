"""Fixtures of the command line: facts of a host as a survey would give them, and runs of the real command."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from agents.messages import EventSupport, HostFacts, HugetlbPool, ThpSize
from fleetexp.cli.main import cli
from fleetexp.domain import RunState
from fleetexp.experiment import experiment_to_json, load_experiment
from fleetexp.experiment.schedule import host_info, make_plan
from fleetexp.store.store import Store, open_store
from tests.host_tree import build_host

MakeFacts = Callable[..., HostFacts]
Invoke = Callable[..., Result]
DEMO = Path(__file__).parents[3] / "configs" / "thp-2m-demo.yaml"
SIZES_KIB = (16, 32, 64, 128, 256, 512, 1024)


def thp(size_kib: int, enabled: str = "never", effective: str | None = None, writable: bool = True) -> ThpSize:
    return ThpSize(
        size_kib=size_kib, enabled=enabled, effective=effective or enabled, shmem_enabled="never", writable=writable
    )


@pytest.fixture
def make_facts() -> MakeFacts:
    """Build the facts of a plausible virtual machine; keywords replace fields."""

    def make(**changes: object) -> HostFacts:
        knobs = {
            "thp/enabled": "always",
            "thp/defrag": "madvise",
            "thp/2048kB/enabled": "inherit",
            "hugetlb/2048kB/nr_hugepages": "0",
            "hugetlb/1048576kB/nr_hugepages": "0",
        }
        fields: dict[str, object] = {
            "host": "web-17",
            "taken_at": datetime(2026, 11, 23, 20, 0, tzinfo=UTC),
            "boot_id": "6f1c9f0e-52d3-4a6e-8f41-0d2d3c6b7a10",
            "kernel": "6.18.0-fleet",
            "architecture": "x86_64",
            "cpu_model": "Intel(R) Xeon(R) Platinum 8321HC CPU @ 1.40GHz",
            "cpus": 2,
            "numa_nodes": 1,
            "numa_balancing": False,
            "memory_total_bytes": 24_000_000_000,
            "memory_available_bytes": 20_000_000_000,
            "swap_total_bytes": 0,
            "base_page_bytes": 4096,
            "uptime_seconds": 93784.0,
            "thp_sizes": (*(thp(size) for size in SIZES_KIB), thp(2048, "inherit", "always")),
            "thp_pmd_kib": 2048,
            "thp_top_level": "always",
            "thp_defrag": "madvise",
            "hugetlb_pools": tuple(
                HugetlbPool(size_kib=size, total_pages=0, free_pages=0, surplus_pages=0, writable=True)
                for size in (2048, 1048576)
            ),
            "knobs": knobs,
            "writable_knobs": tuple(knobs),
            "not_writable_because": "",
            "perf_events": (
                EventSupport(event="page_faults", available=True),
                EventSupport(event="context_switches", available=True),
                EventSupport(event="dtlb_load_misses", available=False, reason="ENOENT: the hypervisor hides it"),
                EventSupport(event="instructions", available=False, reason="ENOENT: the hypervisor hides it"),
            ),
            "cgroup_version": 2,
            "pressure_available": True,
            "virtualisation": "KVM",
            "kernel_taint": 0,
            "other_managers": (),
            "page_splitting_readers": (),
        }
        return HostFacts(**{**fields, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_thp() -> Callable[..., ThpSize]:
    return thp


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Call the command in this process, in an empty folder; stdout and stderr are kept apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEETEXP_STORE", raising=False)
    runner = CliRunner()

    def call(*arguments: str, stdin: str | None = None) -> Result:
        return runner.invoke(cli, list(arguments), input=stdin, prog_name="fleetexp")

    return call


@pytest.fixture
def host_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain host in a folder of its own."""
    return build_host(tmp_path_factory.mktemp("hosts") / "host").root


@pytest.fixture
def fleetexp(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command in a process of its own, in an empty folder."""

    def call(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fleetexp", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            check=False,
        )

    return call


def _module(name: str, path: Path) -> ModuleType:
    """Load a test module of another folder: tests are no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def report_samples() -> ModuleType:
    """The sample report of the report's own tests."""
    return _module("report_sample", Path(__file__).parents[2] / "analysis" / "report" / "sample.py")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with contextlib.closing(open_store(url)) as opened:
        yield opened


@pytest.fixture
def new_run(store: Store, make_facts: Callable[..., HostFacts]) -> Callable[[], int]:
    """Put a planned run of the demo into the store."""

    def make() -> int:
        experiment = load_experiment(DEMO)
        return store.create_run(
            experiment_name=experiment.name,
            hypothesis=experiment.hypothesis,
            spec_text=DEMO.read_text(),
            spec_json=experiment_to_json(experiment),
            plan=make_plan(experiment, [host_info(make_facts())]),
            launched_by="root@web-17 pid 9",
            versions={"python": "3.11"},
            fleet="inline",
        )

    return make


@pytest.fixture
def finished(store: Store, new_run: Callable[[], int], report_samples: ModuleType) -> int:
    """A run that ended and was analysed."""
    run_id = new_run()
    store.set_run_state(run_id, RunState.RUNNING)
    store.save_findings(run_id, report_samples.sample().findings)
    store.set_run_state(run_id, RunState.COMPLETED)
    return run_id
