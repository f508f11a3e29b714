"""Every host of the gallery, against what is right for it. `tests/cases/hosts/README.md` says how to add one."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from agents.facts import survey
from agents.knobs import find_knob, find_knobs
from agents.messages import Arm
from agents.preflight import preflight
from fleetexp.cli.main import cli
from fleetexp.experiment import parse_experiment
from fleetexp.experiment.starter_spec import starter_spec
from tests.host_gallery import GALLERY, GOLDEN, host_names, init_text, unpack

REFUSED = frozenset({"container-docker", "lockdown-unprivileged", "rhel7-3.10", "support-bundle", "thp-left-out-kvm"})


@pytest.mark.parametrize("file", GOLDEN)
@pytest.mark.parametrize("host", host_names())
def test_a_host_is_seen_as_it_is(host: str, file: str, tmp_path: Path) -> None:
    assert GOLDEN[file](unpack(host, tmp_path)) == (GALLERY / host / file).read_text()


@pytest.mark.parametrize("host", host_names())
def test_a_map_fits_80_columns_and_leaves_no_question(host: str) -> None:
    text = (GALLERY / host / "doctor.txt").read_text()
    assert max(map(len, text.splitlines())) <= 80
    assert " 0K" not in text
    assert "None" not in text


@pytest.mark.parametrize("host", host_names())
def test_a_tree_names_its_sources(host: str) -> None:
    head = (GALLERY / host / "tree").read_text().split("\n\n")[0].splitlines()
    assert head[1] == "# Sources:"
    assert len(head) > 2


@pytest.mark.parametrize("host", sorted(set(host_names()) - REFUSED))
def test_what_init_writes_loads_and_would_be_let_through_by_preflight(host: str, tmp_path: Path) -> None:
    root = unpack(host, tmp_path)
    facts = survey(root)
    experiment = parse_experiment(starter_spec(facts))
    arms = [Arm(name=name, knobs=knobs) for name, knobs in experiment.arms.items()]
    assert len(arms) == 2
    assert [problem for problem in preflight(root, facts, arms, [], None) if problem.severity == "error"] == []
    for arm in arms:
        assert all(find_knob(root, knob) in find_knobs(root) for knob in arm.knobs)


@pytest.mark.parametrize("host", sorted(REFUSED))
def test_a_host_without_a_size_to_switch_is_refused_in_one_line(host: str, tmp_path: Path) -> None:
    (line,) = init_text(unpack(host, tmp_path)).splitlines()
    assert line.startswith("error: ")
    assert " — " in line


def test_before_6_8_a_plan_of_a_knob_by_size_ends_as_run_would_and_names_the_one_that_there_is(tmp_path: Path) -> None:
    root = unpack("rhel9-5.14", tmp_path / "host")
    spec = tmp_path / "spec.yaml"
    spec.write_text(starter_spec(survey(root)).replace("thp/enabled", "thp/2048kB/enabled"))
    found = CliRunner().invoke(cli, ["plan", str(spec), "--root", str(tmp_path / "host")])
    assert found.exit_code == 1
    assert "knob thp/2048kB/enabled" in found.stderr
    assert "write thp/enabled" in " ".join(found.stderr.split())
