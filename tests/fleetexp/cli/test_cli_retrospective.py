"""`fleetexp import` of a rollout that nobody drew, then `fleetexp report`: a verdict in every form, no decision."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import fleetexp
from analysis.retrospective.verdicts import RetrospectiveFindings, RetrospectiveVerdict
from fleetexp.cli.main import cli
from tests.analysis.retrospective.panels import frame_of, world
from tests.fleetexp.web.live_server import live_server
from tests.fleetexp.web.raw import get

MAPPING = """\
name: pages-of-512m
read: {layout: long}
period: 1h
arms:
  control: [%s]
  big-pages: [%s]
changed: {%s}
metrics:
  primary: rate
  better: {rate: increase}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("rollout")
    panel = world(
        np.random.default_rng(1), changed=20, others=20, periods=12, starts=(6, 8), correlation=0.5, effect=4.0
    )
    frame = frame_of({"rate": panel}).sort_values(["host", "period"])
    began = pd.Timestamp("2026-11-01", tz="UTC") + pd.to_timedelta(frame["period"], unit="h")
    written = pd.DataFrame(
        {"host": frame["host"], "time": began + pd.Timedelta(minutes=5), "metric": "rate", "value": frame["value"]}
    )
    written.to_csv(folder / "panel.csv", index=False, date_format="%Y-%m-%dT%H:%M:%S+00:00")
    when = frame.drop_duplicates("host").set_index("host")["treated_from"]
    changes = [f"{host}: 2026-11-01T{int(hour):02}:00:00+00:00" for host, hour in when.dropna().items()]
    names = [", ".join(when.index[mask]) for mask in (when.isna(), when.notna())]
    (folder / "mapping.yaml").write_text(MAPPING % (*names, ", ".join(changes)))
    url = f"sqlite:///{folder / 'store.db'}"
    done = CliRunner().invoke(
        cli, ["import", str(folder / "panel.csv"), "--as", str(folder / "mapping.yaml"), "--store", url]
    )
    assert done.exit_code in {0, 6}, done.output
    return url


def shown(store: str, *more: str) -> str:
    done = CliRunner().invoke(cli, ["report", "--store", store, *more])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_terminal_shows_the_banner_and_the_verdict(store: str) -> None:
    text = shown(store)
    assert text.startswith("NOT RANDOMISED")
    assert "big-pages: CONSISTENT WITH A BENEFIT" in text
    assert not re.search(r"\bship\b", text)


def test_markdown_html_and_json_have_it_too(store: str, tmp_path: Path) -> None:
    assert "**Verdict: consistent with a benefit.**" in shown(store, "--markdown")
    assert f"report: {tmp_path / 'r.html'}" in shown(store, "--html", str(tmp_path / "r.html"))
    assert "NOT RANDOMISED" in (tmp_path / "r.html").read_text()
    told = json.loads(shown(store, "--json"))["retrospective"]
    assert (told["verdict"], told["ground"]) == ("consistent_with_benefit", "effect")
    assert told["metrics"][0]["headline"]["difference"] > 3


def test_python_and_the_live_pages_show_the_verdict_too(store: str) -> None:
    with contextlib.closing(fleetexp.open_store(store)) as opened:
        found = fleetexp.render_report(opened, 1)
    assert isinstance(found, RetrospectiveFindings)
    assert found.verdict is RetrospectiveVerdict.CONSISTENT_WITH_BENEFIT
    with live_server(store) as server:
        run, report = (get(server.address, f"/runs/1{page}") for page in ("", "/report"))
    assert '"/runs/1/report"' in run.body
    assert report.status == 200
    assert report.body.encode("latin-1").decode() == found.html
