"""`fleetexp init` writes a spec that loads, fits the host, and never takes the place of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.sysroot import FolderRoot
from fleetexp.config import load_experiment, parse_experiment
from fleetexp.errors import RunError
from fleetexp.starter import starter_spec

Make = Callable[..., Any]


def test_it_writes_a_spec_that_loads_and_plans_on_that_host(invoke: Make, host_tree: Callable[..., FolderRoot]) -> None:
    root = host_tree()
    said = invoke("init", "--root", str(root.root))
    assert said.exit_code == 0, said.stderr
    experiment = load_experiment(Path("experiment.yaml"))
    assert experiment.arms["big-pages"] == {"thp/2048kB/enabled": "always"}
    planned = invoke("plan", "experiment.yaml", "--root", str(root.root))
    assert planned.exit_code == 0, planned.stderr


def test_a_host_with_gigabyte_pages_compares_them_with_2m_pages(make_facts: Make, make_thp: Make) -> None:
    facts = make_facts()
    knob = "thp/1048576kB/enabled"
    facts = make_facts(thp_sizes=(*facts.thp_sizes, make_thp(1048576)), writable_knobs=(*facts.writable_knobs, knob))
    experiment = parse_experiment(starter_spec(facts))
    assert experiment.arms["pages-1g"][knob] == "always"
    assert experiment.arms["pages-2m"] == {knob: "never", "thp/2048kB/enabled": "always"}


def test_a_host_that_can_not_be_written_is_told_so(make_facts: Make) -> None:
    with pytest.raises(RunError, match="no size of transparent huge pages"):
        starter_spec(make_facts(writable_knobs=(), not_writable_because="read-only sysfs"))


def test_a_file_that_is_there_is_kept(invoke: Make, host_tree: Callable[..., FolderRoot]) -> None:
    root = str(host_tree().root)
    Path("experiment.yaml").write_text("mine")
    said = invoke("init", "--root", root)
    assert said.exit_code == 1
    assert "there already" in said.stderr
    assert Path("experiment.yaml").read_text() == "mine"
