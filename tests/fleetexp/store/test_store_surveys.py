"""Surveys are stored each once, of hosts that no run knows too, and asked for by host, program and share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fleetexp.errors import StoreError
from fleetexp.store.store import Store, check, query
from tests.fleetexp.store.rows import NOW, make_plan, new_run
from tests.fleetexp.store.survey_rows import GIB, PMD_KIB, PUD_KIB, a_fleet, page_survey, process_figures, size_figures


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in query(url, sql, 1000)[1]]


@pytest.fixture
def surveyed(store: Store) -> Store:
    store.record_page_surveys(a_fleet(NOW))
    return store


def test_a_survey_that_is_stored_again_is_there_once(surveyed: Store, store_url: str) -> None:
    counts = "select (select count(*) from page_survey), (select count(*) from surveyed_size)"
    assert ask(store_url, counts) == [(3, 8)]
    surveyed.record_page_surveys(a_fleet(NOW))
    assert ask(store_url, counts) == [(3, 8)]
    assert check(store_url) == []


def test_hosts_are_those_of_runs_where_these_know_them(store: Store, store_url: str) -> None:
    new_run(store, make_plan(["db-01"]))
    store.record_page_surveys(a_fleet(NOW))
    assert ask(store_url, "select name from host order by name") == [("db-01",), ("gb-01",), ("web-a-01",)]


def test_the_ranking_is_by_what_would_be_backed_without_growth(surveyed: Store, store_url: str) -> None:
    rows = ask(
        store_url,
        "select host, extents, whole, whole_bytes, backed_bytes, growth_bytes, processes, processes_seen "
        "from survey_sizes where size_kib = 1048576 order by coalesce(whole_bytes, -1) desc",
    )
    assert rows == [
        ("db-01", 71, 56, 56 * GIB, 68 * GIB, 2 * GIB // 8 + 70 * GIB // 8, 2, 2),
        ("web-a-01", 12, 0, 0, 10 * GIB, 70 * GIB // 8, 1, 1),
        ("gb-01", 2, None, None, None, None, 1, 0),
    ]


def test_programs_are_added_up_over_hosts(surveyed: Store, store_url: str) -> None:
    rows = ask(
        store_url,
        "select command, hosts, processes, whole, forked_children from survey_programs where size_kib = 2048 "
        "order by command",
    )
    assert rows == [("database", 2, 2, 30_000, 0), ("web", 2, 2, 600, 16)]


def test_the_newest_survey_of_a_host_counts(surveyed: Store, store_url: str) -> None:
    now = [process_figures(99, "web", [size_figures(PMD_KIB, {9: 7})])]
    surveyed.record_page_surveys([page_survey("web-a-01", NOW + timedelta(days=1), now)])
    rows = ask(store_url, "select size_kib, whole from survey_sizes where host = 'web-a-01'")
    assert rows == [(PMD_KIB, 7)]
    assert ask(store_url, "select count(*) from page_survey") == [(4,)]


def test_growth_is_told_by_the_share_that_is_resident(surveyed: Store, store_url: str) -> None:
    rows = ask(
        store_url,
        "select share, extents, growth_bytes from survey_shares "
        "where host = 'web-a-01' and size_kib = 2048 order by share",
    )
    assert rows == [(0, 900, 0), (1, 4000, 4000 * 7 << 18), (2, 800, 800 * 6 << 18), (9, 300, 0)]


def test_what_was_not_seen_is_null_with_its_cause(surveyed: Store, store_url: str) -> None:
    sql = (
        "select p.sight, p.shared_bytes, s.splitting_sizes_kib, z.whole, z.whole_at_most from surveyed_process p "
        "join page_survey s on s.page_survey_id = p.page_survey_id join host h on h.host_id = s.host_id "
        "join surveyed_size z on z.page_survey_id = p.page_survey_id where h.name = 'gb-01' and z.size_kib = 1048576"
    )
    ((sight, shared, splitting, whole, at_most),) = ask(store_url, sql)
    assert (sight, shared, whole, at_most) == ("would_split", None, None, 2)
    assert str(splitting) == f"[{PUD_KIB}]"


def test_a_failed_survey_leaves_nothing(store: Store, store_url: str) -> None:
    twice = process_figures(42, "web", [size_figures(PMD_KIB, {9: 1})] * 2)
    broken = page_survey("db-01", NOW, [twice, process_figures(43, None, [])])  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        store.record_page_surveys([broken])
    assert ask(store_url, "select count(*) from page_survey") == [(0,)]
