"""`fleetexp example` lists what comes along and writes it, never over a file that is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fleetexp.exit_codes import ExitCode
from fleetexp.experiment import load_experiment
from fleetexp.shipped import shipped_file, shipped_files

REPOSITORY = Path(__file__).parents[3]
Invoke = Callable[..., Result]


def test_it_lists_every_file_of_configs_and_docs(invoke: Invoke) -> None:
    there = {path.relative_to(REPOSITORY / "configs") for path in (REPOSITORY / "configs").rglob("*.*")}
    there |= {path.relative_to(REPOSITORY) for path in (REPOSITORY / "docs").rglob("*.*")}
    listed = json.loads(invoke("example", "--json").stdout)["files"]
    assert {entry["name"] for entry in listed} == {str(path) for path in there}
    text = invoke("example").stdout
    assert all(name in text.splitlines() for name in (entry["name"] for entry in listed))
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("thp-2m-demo", "configs/thp-2m-demo.yaml"),
        ("thp-2m-demo.yaml", "configs/thp-2m-demo.yaml"),
        ("configs/thp-2m-demo.yaml", "configs/thp-2m-demo.yaml"),
        ("systemd/ray.env", "configs/systemd/ray.env"),
        ("fleetexp-node.service", "configs/systemd/fleetexp-node.service"),
        ("grafana/fleetexp.json", "configs/grafana/fleetexp.json"),
        ("docs/DEPLOY.md", "docs/DEPLOY.md"),
    ],
)
def test_a_name_may_lack_its_folder_and_its_suffix(invoke: Invoke, name: str, file: str) -> None:
    said = invoke("example", name)
    assert said.exit_code == 0, said.stderr
    assert Path(Path(file).name).read_bytes() == (REPOSITORY / file).read_bytes()


def test_an_experiment_is_written_to_the_file_that_is_named_and_loads(invoke: Invoke) -> None:
    said = invoke("example", "thp-1g-web", "mine.yaml")
    assert said.stdout.startswith("wrote mine.yaml\nsee what it would do: fleetexp plan mine.yaml\n")
    assert load_experiment("mine.yaml").name == "thp-1g-web"


def test_a_folder_takes_the_file_under_its_own_name(invoke: Invoke) -> None:
    Path("etc").mkdir()
    assert json.loads(invoke("example", "systemd/ray.env", "etc", "--json").stdout) == {"wrote": "etc/ray.env"}
    assert Path("etc/ray.env").is_file()


def test_a_dash_means_stdout(invoke: Invoke) -> None:
    assert invoke("example", "docs/DEPLOY.md", "-").stdout == (REPOSITORY / "docs/DEPLOY.md").read_text()


def test_a_file_that_is_there_is_kept_unless_forced(invoke: Invoke) -> None:
    Path("mine.yaml").write_text("mine")
    said = invoke("example", "rfc-table", "mine.yaml")
    assert said.exit_code == ExitCode.ERROR
    assert "there already [mine.yaml]" in said.stderr
    assert Path("mine.yaml").read_text() == "mine"
    assert invoke("example", "rfc-table", "mine.yaml", "--force").exit_code == 0
    assert load_experiment("mine.yaml").name == "rfc-table"


def test_a_name_that_none_has_is_answered_with_the_nearest(invoke: Invoke) -> None:
    said = invoke("example", "thp-1g-wed.yaml")
    assert said.exit_code == ExitCode.ERROR
    assert "did you mean 'thp-1g-web.yaml'?" in said.stderr
    assert list(Path().iterdir()) == []


def test_every_name_is_found_again_and_what_fits_several_is_none() -> None:
    assert all(shipped_file(name) == path for name, path in shipped_files().items())
    assert all(shipped_file(name.removeprefix("configs/")) == path for name, path in shipped_files().items())
    assert shipped_file("") is None
