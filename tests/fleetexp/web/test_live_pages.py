"""The live pages show what the store says, to those who may read it, and can change nothing."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from fleetexp.domain import EventKind, RunRequest
from fleetexp.errors import RunError, StoreError
from fleetexp.store.store import open_store
from fleetexp.web.server import LiveServer
from tests.browser import accessibility_faults, browse, colour_scheme, find_chromium
from tests.fleetexp.reporting.fleet_run import HOSTILE

Served = Any  # conftest.py


def get(address: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - our own loopback server
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def test_the_first_page_lists_the_runs(served: Served) -> None:
    status, text, headers = get(served.address)
    assert status == 200
    assert "thp-1g-web" in text
    assert 'href="/runs/1"' in text
    assert "script" not in headers["Content-Security-Policy"]


def test_a_run_shows_stages_hosts_by_state_guardrails_and_what_comes_in(served: Served) -> None:
    _, text, _ = get(f"{served.address}runs/2")
    for said in (
        "Stages",
        "Hosts by state",
        "measuring",
        "waiting",
        "Guardrails",
        "readings per second",
        "What happened",
    ):
        assert said in text, said
    assert "lost" in text  # one host of the unfinished run is


@pytest.mark.slow
def test_a_run_that_has_ended_links_to_its_report(served: Served) -> None:
    _, text, _ = get(f"{served.address}runs/1")
    assert 'href="/runs/1/report"' in text
    status, report, _ = get(f"{served.address}runs/1/report")
    assert status == 200
    assert "What reviewers ask" in report


def test_a_host_whose_name_is_markup_and_sql_is_found_and_shown_as_text(served: Served) -> None:
    status, text, _ = get(f"{served.address}runs/1/hosts/{quote(HOSTILE, safe='')}")
    assert status == 200
    assert "<b>" not in text
    assert "web-&lt;b&gt;" in text
    assert "\x1b" not in text
    assert get(f"{served.address}")[0] == 200  # the table is still there


@pytest.mark.parametrize("path", ["runs/99", "runs/1/hosts/nobody", "nothing", "runs/1/../../etc/passwd", "runs/x"])
def test_what_is_not_there_is_said_to_be_not_there(served: Served, path: str) -> None:
    status, text, _ = get(f"{served.address}{path}")
    assert status == 404
    assert "Not there" in text


@pytest.mark.parametrize(
    "name",
    [
        "\\' AND 1=CAST((SELECT version()) AS int)--",
        "' OR 1=1--",
        "set_config",
        "query_to_xml",
        'u&"x',
        "0",
        "a\0b",
    ],
)
def test_a_name_in_an_address_is_never_part_of_a_question(
    live_store: str, serving: Callable[..., LiveServer], name: str
) -> None:
    if live_store.startswith("postgresql"):
        with psycopg.connect(live_store, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET standard_conforming_strings = off")
    status, text, _ = get(f"{serving(live_store).address}runs/1/hosts/{quote(name, safe='')}")
    assert status == 404
    assert "integer" not in text


def test_following_is_asked_for_and_never_forced(served: Served) -> None:
    assert "Refresh" not in get(f"{served.address}runs/2")[2]
    assert get(f"{served.address}runs/2?follow=1")[2]["Refresh"] == "5"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_sent(served: Served, method: str) -> None:
    where = urlsplit(served.address)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=10)
    connection.request(method, "/runs/1", body="state=x")
    answer = connection.getresponse()
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    connection.close()


def test_a_page_elsewhere_can_not_read_under_a_name_of_its_own(served: Served) -> None:
    assert get(served.address, Host="evil.example")[0] == 421


# ---------------------------------------------------------------------------- read-only, by the database
def test_the_database_itself_refuses_what_the_pages_would_write(live_store: str) -> None:
    store = open_store(live_store, create=False, read_only=True)
    try:
        before = store.run(1).state
        with pytest.raises(StoreError, match=r"(?i)read.?only|can't be written"):
            store.request(1, RunRequest.ABORT, "nobody")
        with pytest.raises(StoreError, match=r"(?i)read.?only|can't be written"):
            store.record_event(1, EventKind.DRIFT, "y")
        assert store.run(1).state is before
    finally:
        store.close()


# ---------------------------------------------------------------------------- who may read
def test_off_localhost_a_token_is_needed(live_store: str) -> None:
    with pytest.raises(RunError, match="other machines could read"):
        LiveServer(live_store, host="0.0.0.0", port=0)  # noqa: S104


def test_a_store_that_goes_away_is_said_on_the_page_and_its_address_in_the_log_only(
    tmp_path: Path, serving: Callable[..., LiveServer], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gone.db"
    open_store(f"sqlite:///{path}").close()
    address = serving(f"sqlite:///{path}").address
    assert get(address)[0] == 200
    for file in tmp_path.glob("gone.db*"):
        file.unlink()
    status, text, _ = get(address)
    assert status == 503
    assert "does not answer" in text
    assert "gone" not in text
    assert "sqlite" not in text
    assert "gone.db" in caplog.text


# ---------------------------------------------------------------------------- as people see it
@pytest.mark.slow
@pytest.mark.parametrize("page", ["", "runs/2", "runs/1/hosts/web-0001"])
def test_axe_finds_no_serious_fault_in_light_or_dark(served: Served, tmp_path: Path, page: str) -> None:
    chromium = find_chromium()
    document = get(f"{served.address}{page}")[1]
    assert [accessibility_faults(chromium, tmp_path, document, dark=dark) for dark in (False, True)] == [[], []]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "dark"), [("light", 1000, False), ("dark", 1000, True), ("narrow", 500, False)]
)
def test_screenshots_can_be_taken_of_the_served_page(
    served: Served, tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    picture = tmp_path / f"{name}.png"
    browse(
        find_chromium(), tmp_path, colour_scheme(dark=dark), f"--window-size={width},1600",
        f"--screenshot={picture}", f"{served.address}runs/2",
    )  # fmt: skip
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
