"""`requires: {conformance: SIZE}`: a run starts only where every host has shown that the size behaves on its kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.conformance.registry import SCENARIOS
from agents.conformance.verdict import PageVerdict, ScenarioResult, Trial, VerdictCause
from agents.facts import survey
from agents.messages import HostFacts
from agents.sysroot import FolderRoot
from fleetexp.control.conformance_gate import nonconforming
from fleetexp.control.prepare import prepare
from fleetexp.errors import RunError
from fleetexp.experiment import parse_experiment
from fleetexp.fleets.inline_fleet import InlineInventory
from fleetexp.store.store import open_store

SPEC = """
name: x
design: switchback
arms: {control: {}, treatment: {thp/2048kB/enabled: always}}
requires: {conformance: 2048kB}
metrics: {primary: memory_used_bytes}
"""
AT = datetime(2026, 11, 27, tzinfo=UTC)
ALL_PASS = {scenario.name: PageVerdict.PASS for scenario in SCENARIOS}


@pytest.fixture
def facts(host_tree: Callable[..., FolderRoot]) -> HostFacts:
    return survey(host_tree(), host="web-1")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/gate.db"


def tried(
    url: str,
    facts: HostFacts,
    verdicts: Mapping[str, PageVerdict],
    *,
    given_up: str = "",
    ended: bool = True,
    size_kib: int = 2048,
) -> None:
    trial = Trial(
        host=facts.host,
        kernel=facts.kernel,
        architecture=facts.architecture,
        boot_id=facts.boot_id,
        size_kib=size_kib,
        begun_at=AT,
    )
    with contextlib.closing(open_store(url)) as store:
        number = store.begin_conformance(trial, "test")
        for name, verdict in verdicts.items():
            cause = VerdictCause.NONE if verdict is PageVerdict.PASS else VerdictCause.EXPECTATION
            result = ScenarioResult(name=name, verdict=verdict, cause=cause, detail="", seconds=1.0, attempts=1)
            store.record_conformance(number, result)
        if ended:
            store.end_conformance(number, AT, given_up)


def refusals(url: str, facts: Iterable[HostFacts]) -> list[RunError]:
    return [*nonconforming(parse_experiment(SPEC), tuple(facts), url)]


def test_a_host_that_passed_or_skipped_everything_under_its_kernel_may_run(url: str, facts: HostFacts) -> None:
    tried(url, facts, ALL_PASS | {"swap": PageVerdict.SKIP})
    assert refusals(url, [facts]) == []


def test_a_spec_without_the_key_asks_for_nothing(url: str, facts: HostFacts) -> None:
    spec = parse_experiment(SPEC.replace("requires: {conformance: 2048kB}", ""))
    assert [*nonconforming(spec, [facts], url)] == []


def test_what_was_not_shown_is_refused_with_the_host_and_the_remedy(url: str, facts: HostFacts) -> None:
    (refusal,) = refusals(url, [facts])
    assert "1 of 1 hosts" in refusal.what
    assert f"web-1: never tried under {facts.kernel}" in refusal.what
    assert "fleetexp conform --size 2048kB" in refusal.remedy
    tried(url, facts, ALL_PASS, size_kib=64)  # another size
    tried(url, replace(facts, kernel="6.1.0"), ALL_PASS)  # another kernel
    tried(url, replace(facts, host="web-2"), ALL_PASS)  # another host
    (refusal,) = refusals(url, [facts, replace(facts, host="web-2")])
    assert "1 of 2 hosts" in refusal.what
    assert "never tried" in refusal.what


@pytest.mark.parametrize(
    ("verdicts", "how", "says"),
    [
        (ALL_PASS | {"mremap": PageVerdict.FAIL}, {}, "failed: mremap"),
        (ALL_PASS, {"given_up": "bad pud"}, "given up in mid-trial: bad pud"),
        ({"allocation": PageVerdict.PASS}, {"ended": False}, "has not ended"),
        ({}, {"ended": False}, "has not ended"),
        ({"allocation": PageVerdict.PASS}, {}, "not tried yet: stride, fork-write"),
        (ALL_PASS | {"allocation": PageVerdict.SKIP}, {}, "allocation was skipped"),
    ],
)
def test_a_trial_that_shows_less_is_refused_by_what_it_lacks(
    url: str, facts: HostFacts, verdicts: dict[str, PageVerdict], how: dict[str, object], says: str
) -> None:
    tried(url, facts, verdicts, **how)  # type: ignore[arg-type]
    (refusal,) = refusals(url, [facts])
    assert says in refusal.what


def test_the_newest_verdict_on_each_scenario_counts(url: str, facts: HostFacts) -> None:
    tried(url, facts, ALL_PASS | {"swap": PageVerdict.FAIL})
    assert refusals(url, [facts])
    tried(url, facts, {"swap": PageVerdict.PASS})
    assert refusals(url, [facts]) == []
    tried(url, facts, {"pageout": PageVerdict.FAIL})
    (refusal,) = refusals(url, [facts])
    assert "failed: pageout" in refusal.what


def test_a_run_is_prepared_with_the_refusal_and_one_on_models_without(
    url: str, host_tree: Callable[..., FolderRoot]
) -> None:
    root = host_tree()
    here = InlineInventory({"": root})
    found = prepare(parse_experiment(SPEC), SPEC, here, url)
    assert [one.where for one in found.refusals] == ["requires.conformance"]
    with pytest.raises(RunError, match="have not shown that pages of 2048 kB behave"):
        found.require()
    tried(url, survey(root), ALL_PASS)
    assert prepare(parse_experiment(SPEC), SPEC, here, url).refusals == ()
