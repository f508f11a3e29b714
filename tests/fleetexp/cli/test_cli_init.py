"""`fleetexp init` writes a spec that loads, fits the host, and never takes the place of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from agents.sysroot import FolderRoot
from fleetexp.errors import RunError
from fleetexp.experiment import load_experiment, parse_experiment
from fleetexp.experiment.starter_spec import starter_spec

Make = Callable[..., Any]


def test_it_writes_a_spec_that_loads_and_plans_on_that_host(invoke: Make, host_tree: Callable[..., FolderRoot]) -> None:
    root = host_tree()
    said = invoke("init", "--root", str(root.root))
    assert said.exit_code == 0, said.stderr
    experiment = load_experiment(Path("experiment.yaml"))
    assert experiment.arms["big-pages"] == {"thp/2048kB/enabled": "always"}
    planned = invoke("plan", "experiment.yaml", "--root", str(root.root))
    assert planned.exit_code == 0, planned.stderr


def test_before_6_8_it_switches_the_top_level(invoke: Make, host_tree: Callable[..., FolderRoot]) -> None:
    root = str(host_tree(thp_sizes_kib=()).root)
    assert invoke("init", "--root", root).exit_code == 0
    assert load_experiment(Path("experiment.yaml")).arms["big-pages"] == {"thp/enabled": "always"}
    assert invoke("plan", "experiment.yaml", "--root", root).exit_code == 0
    said = " ".join(invoke("doctor", "--root", root).stdout.split())
    assert "switchback of 4K against 2M: yes, by thp/enabled" in said


def test_it_points_editors_at_the_schema_that_the_command_prints(
    invoke: Make, host_tree: Callable[..., FolderRoot]
) -> None:
    assert invoke("init", "--root", str(host_tree().root)).exit_code == 0
    first = Path("experiment.yaml").read_text().splitlines()[0]
    address = first.removeprefix("# yaml-language-server: $schema=")
    assert urlsplit(address).scheme == "file"
    assert Path(unquote(urlsplit(address).path)).read_text() == invoke("schema").stdout


@pytest.mark.parametrize(
    ("pmd_kib", "available_gib", "wanted"),
    [
        (2048, 18.0, "4GiB 2MiB"),
        (1024, 1.0, "256MiB 1MiB"),
        (524288, 14.0, "3GiB 512MiB"),
        (32768, 0, "1GiB 32MiB"),
    ],
)
def test_the_region_is_whole_pages_of_a_part_of_what_is_free(
    make_facts: Make, make_thp: Make, pmd_kib: int, available_gib: float, wanted: str
) -> None:
    knob = f"thp/{pmd_kib}kB/enabled"
    facts = make_facts(
        thp_pmd_kib=pmd_kib,
        thp_sizes=(make_thp(pmd_kib),),
        knobs={knob: "never"},
        writable_knobs=(knob,),
        memory_available_bytes=int(available_gib * 2**30),
        memory_total_bytes=int(available_gib * 2**31),
    )
    text = starter_spec(facts)
    region, page = wanted.split()
    assert f"region: {region}\n" in text
    assert f"page_size: {page}\n" in text
    parse_experiment(text)


def test_a_page_that_is_most_of_the_memory_is_refused(make_facts: Make, make_thp: Make) -> None:
    knob = "thp/524288kB/enabled"
    facts = make_facts(
        thp_pmd_kib=524288,
        thp_sizes=(make_thp(524288),),
        knobs={knob: "never"},
        writable_knobs=(knob,),
        memory_available_bytes=900 * 2**20,
    )
    with pytest.raises(RunError, match="512MiB is more than half"):
        starter_spec(facts)


def test_a_host_whose_huge_pages_have_no_known_size_is_told_so(make_facts: Make) -> None:
    with pytest.raises(RunError, match="page size not known"):
        starter_spec(make_facts(thp_pmd_kib=0, thp_sizes=()))


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
