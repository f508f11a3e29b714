"""Whole experiments over a real Ray cluster: found, planned, run to the report; and who is not let in."""

from __future__ import annotations

import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fleetexp.errors import WrongSchema
from fleetexp.reporting import report_content
from fleetexp.store.store import query
from tests.agents.survey.listed_processes import FILES

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
Fleet = Any  # conftest.py


def test_a_parallel_experiment_with_three_stages_runs_to_its_report(fleet: Fleet) -> None:
    code, answer = fleet.finish(fleet.launch())
    assert (code, answer["state"]) == (0, "completed"), fleet.story()
    store = fleet.opened()
    try:
        periods = store.periods(1)
        assert {p.host for p in periods} == {node.name for node in fleet.cluster.nodes}
        assert {p.state.value for p in periods} == {"complete"}
        assert [detail for _, detail in fleet.events("stage_opened")] == ["0", "1", "2"]
        findings = store.findings(1)
        primary = next(e for e in findings.estimates if e.metric == "latency" and e.headline)
        assert (primary.control_mean, primary.treatment_mean) == (3.0, 2.0)
        assert report_content(store, 1).findings == findings
        assert store.run(1).fleet == f"ray {fleet.cluster.address}"
        labels = {facts.host: facts.labels for facts in store.host_facts(1)}
        assert labels["web-1"] == {"pool": "web", "sku": "big"}
    finally:
        store.close()
    assert list((fleet.folder / "reports").glob("*.html"))


def test_a_driver_without_the_token_or_with_another_is_refused_in_one_line(fleet: Fleet) -> None:
    path = fleet.spec()
    for token in ("", "f" * 64):
        code, out, err = fleet.cluster.said(["run", str(path), *fleet.where, *fleet.database], token=token)
        assert (code, out) == (1, "")
        assert "token" in err
        assert "RAY_AUTH_TOKEN" in err
        assert len(err.strip().splitlines()) == 1, err
    with pytest.raises(WrongSchema):
        fleet.opened()  # not even a schema was made
    assert fleet.is_as_found()


def test_the_inventory_names_each_host_with_its_facts_and_leaves_the_head_out(fleet: Fleet) -> None:
    code, out, err = fleet.cluster.said(["hosts", *fleet.where, *fleet.database, "--json"])
    assert code == 0, err
    hosts = {one["host"]: one for one in json.loads(out)["hosts"]}
    assert sorted(hosts) == ["web-1", "web-2", "web-3", "web-4"]
    assert all(one["free"] and one["facts"]["kernel"] == "6.18.44" for one in hosts.values())
    code, out, _ = fleet.cluster.said(["hosts", *fleet.where, *fleet.database])
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = fleet.cluster.said(["hosts", *fleet.where, *fleet.database, "--pool", "db", "--json"])
    assert json.loads(out)["hosts"] == []


def test_a_pool_is_surveyed_at_once_kept_and_ranked(fleet: Fleet) -> None:
    for node in fleet.cluster.nodes:
        for path, text in FILES.items():
            (node.root.root / path).parent.mkdir(parents=True, exist_ok=True)
            (node.root.root / path).write_text(f"{text}\n")
    words = ["survey", *fleet.where, "--pool", "web", "--keep", *fleet.database]
    code, out, err = fleet.cluster.said([*words, "--json"])
    assert code == 0, err
    found = {one["host"]: one["processes"] for one in json.loads(out)["surveys"]}
    assert sorted(found) == ["web-1", "web-2", "web-3", "web-4"]
    assert all([one["sight"] for one in processes] == ["not_offered"] * 2 for processes in found.values())
    sql = "select host, processes, extents, whole from survey_sizes where size_kib = 2048 order by host"
    assert query(fleet.store, sql, 9)[1] == [(host, 2, 2 * 1536, None) for host in sorted(found)]
    code, out, _ = fleet.cluster.said(words)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert fleet.is_as_found()


def test_a_node_with_another_fleetexp_is_left_out_with_both_versions_named(fleet: Fleet, tmp_path: Path) -> None:
    other = tmp_path / "other" / "fleetexp-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: fleetexp\nVersion: 9.9.9\n")
    node = fleet.cluster.nodes[3]
    node.kill()
    node.environment = {"PYTHONPATH": f"{other.parent}{os.pathsep}{fleet.cluster.environment['PYTHONPATH']}"}
    try:
        node.start()
        code, out, err = fleet.cluster.said(["hosts", *fleet.where, *fleet.database, "--json"])
        assert code == 0, err
        said = {one["host"]: one["reason"] for one in json.loads(out)["hosts"]}
        assert "fleetexp 9.9.9" in said[node.name]
        assert f"fleetexp {version('fleetexp')}" in said[node.name]
        assert not any(reason for host, reason in said.items() if host != node.name)
        code, out, err = fleet.cluster.said(["plan", str(fleet.spec()), *fleet.where, "--json"])
        assert code == 0, err
        assert node.name not in {unit["host"] for unit in json.loads(out)["plan"]["units"]}
    finally:
        node.environment = {}
        node.kill()
        node.start()


def test_a_node_that_does_not_answer_is_listed_with_the_reason_and_holds_nobody_up(fleet: Fleet) -> None:
    node = fleet.cluster.nodes[0]
    node.cut()
    started = time.monotonic()
    code, out, err = fleet.cluster.said(["hosts", *fleet.where, *fleet.database, "--json"])
    assert time.monotonic() - started < 100
    assert code == 0, err
    hosts = {one["host"]: one for one in json.loads(out)["hosts"]}
    assert not hosts[node.name]["reachable"]
    assert hosts[node.name]["reason"]
    assert all(one["free"] for host, one in hosts.items() if host != node.name)
