"""A run of the real command line on this machine's kernel, to be killed in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

KNOB = Path("/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled")
LEASE_SECONDS = 5.0

SPEC = """\
name: killed-in-the-middle
design: switchback
control: 4k
arms:
  4k: {{thp/2048kB/enabled: never}}
  2m: {{thp/2048kB/enabled: always}}
assignment: {{seed: 1}}
periods: {{washout: 1s, measure: {measure}, blocks: {blocks}, sample_every: 500ms}}
workload: {{pointer_chase: {{region: 64MiB, dereferences: 200000, page_size: 2MiB, pretouch: false}}}}
metrics: {{primary: access_nanoseconds_per_dereference}}
safety: {{lease: 5s, max_failed_hosts: 3}}
"""


@dataclass
class Launched:
    """One `fleetexp` command under way, and the database that it writes."""

    folder: Path
    process: subprocess.Popen[str]

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder / 'fleetexp.db'}"

    @staticmethod
    def knob() -> str:
        """The value that the knob of the spec holds now: the word in brackets."""
        text = KNOB.read_text()
        return text[text.index("[") + 1 : text.index("]")]

    @staticmethod
    def until(true: Callable[[], bool], within: float, what: str) -> float:
        """Wait for something to be so, looking often; returns the seconds it took."""
        start = time.monotonic()
        while not true():
            assert time.monotonic() - start < within, f"not within {within} s: {what}"
            time.sleep(0.02)
        return time.monotonic() - start

    def ray_processes(self, *names: str) -> list[int]:
        """Processes of the command's session that belong to Ray; only those whose command line has one of the names."""
        driver, found = self.process.pid, []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == driver:
                continue
            with contextlib.suppress(OSError, ValueError):
                stat = (entry / "stat").read_text()
                session = int(stat[stat.rindex(")") + 2 :].split()[3])
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if session == driver and "ray" in line and (not names or any(name in line for name in names)):
                    found.append(int(entry.name))
        return found

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(f"file:{self.folder / 'fleetexp.db'}?mode=ro", uri=True)) as database,
        ):
            return list(database.execute(sql))
        return []

    def broken_periods(self) -> list[tuple[object, ...]]:
        """Kind, arm and reason of every period that was struck out."""
        return self.rows("SELECT kind, arm, reason FROM period WHERE state = 'invalid' ORDER BY period_id")

    def complete_periods_by_block(self) -> list[tuple[object, ...]]:
        """Block and number of measured periods that count."""
        return self.rows(
            "SELECT block, count(*) FROM period WHERE state = 'complete' AND kind = 'measure'"
            " GROUP BY block ORDER BY block"
        )

    def in_treated_period(self) -> bool:
        """A measured period of the treated arm is running, and the knob shows it."""
        assert self.process.poll() is None, self.process.communicate()
        running = self.rows("SELECT arm FROM period WHERE state = 'running' AND kind = 'measure'")
        return running == [("2m",)] and self.knob() == "always"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "fleetexp", *words, "--store", self.store, "--json"]

    def finish(self, within: float = 120.0) -> tuple[int, dict[str, object]]:
        """Wait for the command to end; returns its exit code and the object it printed."""
        out, err = self.process.communicate(timeout=within)
        assert out.strip(), err[-2000:]
        return self.process.returncode, json.loads(out)

    def resume(self) -> tuple[int, dict[str, object]]:
        done = subprocess.run(
            self.command("resume", "1"), cwd=self.folder, capture_output=True, text=True, timeout=150, check=False
        )
        assert done.stdout.strip(), done.stderr[-2000:]
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def launch(tmp_path: Path, real_knobs: object) -> Iterator[Callable[..., Launched]]:
    """Start `fleetexp run`; whatever is left of it at the end is killed, and its Ray with it."""
    started: list[Launched] = []

    def make(*, fleet: str = "local", blocks: int = 2, measure: str = "3s") -> Launched:
        (tmp_path / "spec.yaml").write_text(SPEC.format(blocks=blocks, measure=measure))
        run = Launched(tmp_path, None)  # type: ignore[arg-type]
        run.process = subprocess.Popen(
            run.command("run", "spec.yaml", "--fleet", fleet),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(run)
        return run

    yield make
    for run in started:
        for pid in [run.process.pid, *run.ray_processes()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ValueError):
            run.process.communicate(timeout=20)
