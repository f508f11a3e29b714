"""Runs of a small experiment over a host in a folder: agent, guardian, workload and store are real."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agents.sysroot import FolderRoot
from fleetexp.control.launch import resume
from fleetexp.control.progress import Progress, RunOutcome
from fleetexp.domain import BrokenBy
from fleetexp.experiment import parse_experiment
from fleetexp.store.store import Store, open_store
from tests.launching import launch

KNOB = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"

SPEC = """\
name: in-a-folder
design: switchback
control: small
arms:
  small: {{thp/2048kB/enabled: never}}
  big: {{thp/2048kB/enabled: always}}
assignment: {{seed: 3}}
periods: {{washout: 100ms, measure: {measure}, blocks: {blocks}, sample_every: 100ms}}
workload: {{command: {{argv: {argv}}}}}
metrics:
  primary: latency
  better: {{latency: decrease}}
  guardrails: {guardrails}
safety: {{lease: {lease}, on_drift: {on_drift}, max_failed_hosts: 1}}
"""
# Reads the knob of its own host: so a treatment has an effect, as on a real kernel.
WORK = "print('latency', 2.0 if 'always' in open({knob!r}).read().replace('[', '').split()[:1] else 3.0)"


def holds(root: FolderRoot) -> str:
    """The value that the knob holds now."""
    text = root.read(KNOB).decode().strip()
    return text[text.index("[") + 1 : text.index("]")] if "[" in text else text


@dataclass
class Bench:
    """One folder host and one database; `run` launches on them."""

    root: Any
    folder: Path
    seen: list[Progress] = field(default_factory=list)
    when: Callable[[Progress], None] = lambda _: None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'fleetexp.db'}"

    def observe(self, progress: Progress) -> None:
        self.seen.append(progress)
        self.when(progress)

    def spec(self, *, argv: Sequence[str] | None = None, script: str = "", **changes: object) -> str:
        words = {"measure": "5s", "blocks": 2, "lease": "5s", "on_drift": "invalidate", "guardrails": "[]", **changes}
        program = script or WORK.format(knob=str(self.root.root / KNOB))
        return SPEC.format(argv=list(argv or [sys.executable, "-c", program]), **words)

    def run(self, **what: Any) -> RunOutcome:  # noqa: ANN401 - as `spec` takes them
        return self.launch(self.spec(**what))

    def launch(self, text: str) -> RunOutcome:
        return launch(
            parse_experiment(text), text, store_url=self.url, observer=self.observe, fleet="inline", root=self.root
        )

    def resume(self, run_id: int = 1) -> RunOutcome:
        return resume(run_id, store_url=self.url, observer=self.observe, root=self.root)

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        with contextlib.closing(open_store(self.url, create=False)) as store:
            yield store

    def reasons(self) -> list[str]:
        """Why periods were struck out."""
        with self.store() as store:
            return [p.reason for p in store.periods(1) if p.state.value == "invalid"]

    def broken_by(self) -> set[BrokenBy]:
        """What broke the periods that were struck out."""
        with self.store() as store:
            return {p.broken_by for p in store.periods(1) if p.state.value == "invalid"}

    def events(self, kind: str) -> list[str]:
        with self.store() as store:
            return [event.detail for event in store.events(1) if event.kind == kind]


@pytest.fixture
def bench(host_tree: Callable[..., FolderRoot], tmp_path: Path, no_guardian_left: None) -> Iterator[Bench]:
    made = Bench(root=host_tree(), folder=tmp_path)
    found = holds(made.root)
    yield made
    assert threading.active_count() < 50
    assert holds(made.root) == found, "the host was left changed"
