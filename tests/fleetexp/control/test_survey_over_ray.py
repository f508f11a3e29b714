"""An agent that is a Ray actor surveys its host, and the answer comes back whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents.survey.listed_processes import FILES
from tests.host_tree import build_host

PROJECT = Path(__file__).parents[3]
LOOK = """
import json, sys
from agents.survey.figures import SurveyPages
from fleetexp.fleets.local_fleet import LocalFleet

fleet = LocalFleet("h", run="survey", root=sys.argv[1])
fleet.send("h", SurveyPages(), 200)
answers = []
while not answers:
    answers = fleet.receive(1)
found = answers[0].reply
print(json.dumps({"host": found.host, "processes": [[one.pid, one.sight] for one in found.processes],
    "extents": {one.size_kib: one.extents for one in found.totals}}))
fleet.close()
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(280)
def test_an_agent_behind_ray_surveys_its_host(tmp_path: Path) -> None:
    root = build_host(tmp_path / "host", files=dict(FILES)).root
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOK, str(root)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["host"] == "h"
    assert found["processes"] == [[42, "not_offered"], [43, "not_offered"]]
    assert found["extents"]["2048"] == 2 * 1536
