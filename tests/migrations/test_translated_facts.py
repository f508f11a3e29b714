"""Schema 0009: what earlier releases told in sentences only is translated into columns, on both databases."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

import migrations
from agents.messages import HostEventKind
from fleetexp.domain import EventKind, RunCause, RunState
from fleetexp.store.engine import open_engine, parse_url, writing
from fleetexp.store.store import open_store, query, schema_version, upgrade
from fleetexp.store.tables import SCHEMA_VERSION

AT = "2026-11-26T10:00:00.000000Z"
RUNS = [
    ("running", "", None),
    ("running", "awaiting approval: stage 1 of 3 has held", "approval"),
    ("paused", "paused by ann@head pid 1", "request"),
    ("paused", "2 hosts failed or were lost, 1 allowed", "hosts"),
    ("halted", "aborted by ann@head pid 1", "request"),
    ("halted", "aborted by fleetexp: the store refuses writes: disk full", "store"),
    ("halted", "guardrail oom_kills: 3 reached the tripwire 1", "guardrail"),
    ("halted", "h1: a knob was changed from outside: thp/enabled", "drift"),
    ("halted", "every host restored: h1", "restore"),
    ("halting", "paused by ann@head pid 1", "request"),
    ("failed", "all 2 hosts failed: no", "hosts"),
    ("restore_incomplete", "not restored: h1 (unreachable: no answer)", "restore"),
]
EVENTS = [
    ("halting_to", "paused: paused by ann", (RunState.PAUSED, RunCause.REQUEST, None, "", "paused by ann")),
    (
        "halting_to",
        "halted: guardrail kernel_oops: BUG: bad",
        (RunState.HALTED, RunCause.GUARDRAIL, None, "", "guardrail kernel_oops: BUG: bad"),
    ),
    ("state", "running", (RunState.RUNNING, RunCause.NONE, None, "", "running")),
    ("state", "paused: 2 hosts failed", (RunState.PAUSED, RunCause.HOSTS, None, "", "paused: 2 hosts failed")),
    ("stage_opened", "2", (None, RunCause.NONE, 2, "", "2")),
    ("source_lost", "rps: http://h/: refused", (None, RunCause.NONE, None, "rps", "rps: http://h/: refused")),
    ("source_lost", "kernel log: overwritten", (None, RunCause.NONE, None, "", "kernel log: overwritten")),
    ("host_lost", "h1: no answer", (None, RunCause.NONE, None, "", "h1: no answer")),
]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def upgraded(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of schema 0008 with RUNS, and EVENTS of the first, brought up to date."""
    sqlite = f"sqlite:///{tmp_path / 'old.db'}"
    url: str = sqlite if request.param == "sqlite" else request.getfixturevalue("postgresql").new_database()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = open_engine(parse_url(url))
    with writing(engine, url) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        connection.execute(
            text(
                "INSERT INTO experiment (name, hypothesis, spec_hash, spec_text, spec, created_at) "
                "VALUES ('e', '', '', '', '{}', :at)"
            ),
            {"at": AT},
        )
        for state, reason, _ in RUNS:
            connection.execute(
                text(
                    "INSERT INTO run (experiment_id, state, reason, design, control_arm, seed, plan, launched_by, "
                    "fleet, versions, created_at) "
                    "VALUES (1, :state, :reason, 'parallel', 'a', 1, '{}', '', 'inline', '{}', :at)"
                ),
                {"state": state, "reason": reason, "at": AT},
            )
        for kind, detail, _ in EVENTS:
            connection.execute(
                text("INSERT INTO event (run_id, at, kind, detail) VALUES (1, :at, :kind, :detail)"),
                {"at": AT, "kind": kind, "detail": detail},
            )
    engine.dispose()
    upgrade(url)
    assert schema_version(url) == SCHEMA_VERSION
    return url


def test_what_a_state_is_owed_to_is_read_from_the_old_reason_once(upgraded: str) -> None:
    rows = query(upgraded, "select state, reason, cause from run order by run_id", 99)[1]
    assert [tuple(row) for row in rows] == RUNS


def test_old_events_have_the_facts_that_code_acts_on(upgraded: str) -> None:
    with contextlib.closing(open_store(upgraded)) as store:
        events = store.events(1)
    kinds = {kind.value: kind for kind in (*HostEventKind, *EventKind)}
    assert [(one.kind, (one.state, one.cause, one.stage, one.metric, one.detail)) for one in events] == [
        (kinds[kind], typed) for kind, _, typed in EVENTS
    ]
