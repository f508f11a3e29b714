"""Trials of a page size come out of both databases as they went in, also those that never ended."""

from __future__ import annotations

from datetime import UTC, datetime

from agents.conformance.verdict import (
    Outcome,
    PageCheck,
    PageVerdict,
    ScenarioResult,
    Subject,
    Trial,
    VerdictCause,
)
from fleetexp.store.records import PageSizeRecord
from fleetexp.store.store import Store, query

AT = datetime(2026, 11, 27, 3, 4, 5, tzinfo=UTC)
TRIAL = Trial(host="web-1", kernel="6.19.0-pud", architecture="x86_64", boot_id="b", size_kib=1048576, begun_at=AT)
CHECK = PageCheck(
    subject=Subject.COUNTER, what="split", wanted="+1", seen="+0", outcome=Outcome.BROKEN, counter="split"
)


def result(name: str, verdict: PageVerdict, cause: VerdictCause) -> ScenarioResult:
    return ScenarioResult(
        name=name, verdict=verdict, cause=cause, detail="d\0", seconds=1.5, attempts=2, checks=(CHECK,), before={"a": 1}
    )


def test_a_trial_is_there_from_its_beginning_and_each_verdict_once(store: Store, store_url: str) -> None:
    number = store.begin_conformance(TRIAL, "root@web-1 pid 7")
    open_one = PageSizeRecord(host="web-1", kernel="6.19.0-pud", open_trial=True, given_up="", verdicts={})
    assert store.conformance(["web-1", "web-2"], 1048576) == [open_one]
    for _ in range(2):
        store.record_conformance(number, result("swap", PageVerdict.FAIL, VerdictCause.EXPECTATION))
    store.record_conformance(number, result("mremap", PageVerdict.FAIL, VerdictCause.KERNEL))
    store.end_conformance(number, AT, "bad pud")
    (found,) = store.conformance(["web-1"], 1048576)
    assert (found.open_trial, found.given_up) == (False, "bad pud")
    assert found.verdicts == {"swap": PageVerdict.FAIL, "mremap": PageVerdict.FAIL}
    assert store.conformance(["web-1"], 2048) == []
    sql = (
        "SELECT c.host, c.begun_by, r.scenario, r.cause, r.seconds, r.attempts, r.found ->> 'before'"
        " FROM conformance c JOIN conformance_result r ON r.conformance_id = c.conformance_id ORDER BY r.scenario"
    )
    rows = query(store_url, sql, 9)[1]
    assert [row[:6] for row in rows] == [
        ("web-1", "root@web-1 pid 7", "mremap", "kernel", 1.5, 2),
        ("web-1", "root@web-1 pid 7", "swap", "expectation", 1.5, 2),
    ]
    assert str(rows[0][6]).replace(" ", "") == '{"a":1}'


def test_trials_of_several_kernels_are_told_apart(store: Store) -> None:
    for kernel in ("6.19.0-pud", "6.20.0-pud"):
        trial = Trial(host="web-1", kernel=kernel, architecture="x86_64", boot_id="b", size_kib=2048, begun_at=AT)
        number = store.begin_conformance(trial, "me")
        verdict = PageVerdict.PASS if kernel.startswith("6.20") else PageVerdict.FAIL
        store.record_conformance(number, result("swap", verdict, VerdictCause.NONE))
        store.end_conformance(number, AT, "")
    found = {one.kernel: one.verdicts["swap"] for one in store.conformance(["web-1"], 2048)}
    assert found == {"6.19.0-pud": PageVerdict.FAIL, "6.20.0-pud": PageVerdict.PASS}
