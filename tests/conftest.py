"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

# A process of tests for each core already: more threads of NumPy's would only wait for one another.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

from agents.lease import GuardianNote
from agents.process import send_signal
from agents.sysroot import FolderRoot
from tests.host_tree import build_host
from tests.postgresql_server import Server, programs
from tests.power_stays_on import install as wait_for_no_disk
from tests.schema_template import install as take_schemas_from_a_template
from tests.strict_machine import install as hold_machines_to_their_table

THP = Path("/sys/kernel/mm/transparent_hugepage")
LOCK = Path("/run/lock/fleetexp-tests.lock")

# No deadline: a machine that is busy with other things is not a defect.
settings.register_profile("fleetexp", deadline=None, max_examples=60)
settings.load_profile("fleetexp")
hold_machines_to_their_table()
os.umask(0o022)  # trees that others may write are refused, with what is in them


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what stays anyway, modules and tests, and look less often at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _current(text: str) -> str:
    """The chosen value of a knob: the word in brackets, or the whole text."""
    return text[text.index("[") + 1 : text.index("]")] if "[" in text else text.strip()


def _knob_files() -> list[Path]:
    found = [THP / name for name in ("enabled", "defrag", "shmem_enabled", "shrink_underused")]
    for pattern in ("hugepages-*/enabled", "hugepages-*/shmem_enabled", "khugepaged/*"):
        found += sorted(THP.glob(pattern))
    found += sorted(Path("/sys/kernel/mm/hugepages").glob("*/nr_hugepages"))
    return [path for path in found if path.exists() and path.stat().st_mode & 0o200]


def snapshot_real_knobs() -> dict[Path, str]:
    """Read every knob that the tests may touch on this machine."""
    return {path: _current(path.read_text()) for path in _knob_files()}


@pytest.fixture
def real_knobs() -> Iterator[dict[Path, str]]:
    """Hold this machine's knobs for one test: lock, save, hand out, put back, and fail if anything was left changed."""
    if os.geteuid() != 0 or not os.access(THP / "enabled", os.W_OK):
        pytest.skip("this machine's kernel settings can't be written (not root, or read-only sysfs)")
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = snapshot_real_knobs()
        yield before
        left = {path: value for path, value in snapshot_real_knobs().items() if value != before[path]}
        for path in left:
            path.write_text(before[path])
        assert not left, f"the test left the host changed: {left}"


@pytest.fixture(scope="session", autouse=True)
def new_stores_from_a_template() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        take_schemas_from_a_template(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def power_stays_on() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        wait_for_no_disk(patch)
        yield


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """Run a PostgreSQL server of our own for the session; skips where the package is not installed."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = Server(folder)
    server.start()
    yield server
    server.stop("immediate")
    server.remove()


@pytest.fixture
def host_tree(tmp_path: Path) -> Callable[..., FolderRoot]:
    """Return a builder of hosts in folders: `host_tree(name="b", gigantic=True)`; see `tests.host_tree.build_host`."""
    return lambda name="host", **what: build_host(tmp_path / name, **what)


@pytest.fixture
def no_guardian_left(tmp_path: Path) -> Iterator[None]:
    """End the guardians that a test leaves behind, below its own folder only."""
    yield
    for state_dir in tmp_path.glob("*/var/lib/fleetexp"):
        note = GuardianNote.open(state_dir, read_only=True)
        process = note.read().process if note is not None else None
        if note is not None:
            note.close()
        if process is not None and process.pid != os.getpid():
            send_signal(process, signal.SIGKILL)
