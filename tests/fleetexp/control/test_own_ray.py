"""Ray's processes, started in a folder that is anybody's: they run nothing that lies there and let nobody in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host_tree import build_host

PROJECT = Path(__file__).parents[3]
LOOK = """
import json, os, sys
from agents.messages import Survey
from fleetexp.errors import RunError
from fleetexp.fleets.by_name import FleetChoice, open_inventory
from fleetexp.fleets.local_fleet import LocalFleet

try:
    open_inventory(FleetChoice.parse("ray 127.0.0.1:1")).survey()
except RunError as error:
    print(error, file=sys.stderr)
fleet = LocalFleet("h", run="1", root=sys.argv[1])
fleet.send("h", Survey(), 60)
answers = []
while not answers:
    answers = fleet.receive(1)
import ray
node = ray._private.worker._global_node
paths = [node.get_session_dir_path(), node.plasma_store_socket_name, node.raylet_socket_name]
print(json.dumps({"facts": answers[0].reply is not None, "paths": paths, "modes": [
    os.stat("/".join(path.split("/")[:3])).st_mode & 0o777 for path in paths]}))
fleet.close()
"""


@pytest.mark.ray
@pytest.mark.slow
def test_modules_that_lie_in_the_current_folder_are_not_run_and_rays_folder_is_closed_to_others(tmp_path: Path) -> None:
    anybodys, mark = tmp_path / "anybodys", tmp_path / "mark"
    for name, folder in (("agents", PROJECT), ("fleetexp", PROJECT), ("ray", Path(sys.prefix))):
        (anybodys / name).mkdir(parents=True)
        (anybodys / name / "__init__.py").write_text(
            f"open({str(mark)!r}, 'a').write('run')\n__path__ = [{str(folder / name)!r}]\n"
        )
    root = build_host(tmp_path / "host").root
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOK, str(root)],
        cwd=anybodys,
        env={**environment, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["facts"]
    assert "no Ray head answers at 127.0.0.1:1" in done.stderr
    assert not mark.exists()
    assert set(said["modes"]) == {0o700}
    assert not any(Path(path).exists() for path in said["paths"])  # they went with their process
