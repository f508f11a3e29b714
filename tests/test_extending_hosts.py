"""docs/EXTENDING.md, first half: each section is done in a copy of the project, and its tests pass there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests import user_package

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/EXTENDING.md").read_text()
HALF = PAGE.partition("\n## On the hosts\n")[2].partition("\n## ")[0]
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"\n### ", HALF)[1:]}
PACKAGE = "From a package of your own"
FILE = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DIFF = re.compile(r"^```diff\n (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

HALF_COMPILED = "*.pyc.*"  # another process is writing it, and gives it another name


def copied(to: Path, *test_folders: str) -> Path:
    """Copy the packages, and the files of some folders of tests; what is compiled comes along, and stays valid."""
    ignored = shutil.ignore_patterns("docs", "configs", HALF_COMPILED)
    for package in ("agents", "analysis", "fleetexp"):
        shutil.copytree(ROOT / package, to / package, symlinks=True, ignore=ignored)
    for folder in test_folders:
        (to / folder).mkdir(exist_ok=True, parents=True)
        for ours in (ROOT / folder).glob("*.py"):
            shutil.copy2(ours, to / folder)
        if (compiled := ROOT / folder / "__pycache__").is_dir():
            shutil.copytree(compiled, to / folder / "__pycache__", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def done(section: str, project: Path) -> list[str]:
    """Do what a section says; return the source files that were touched."""
    touched = []
    for path, text in FILE.findall(SECTIONS[section]):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
        touched.append(path)
    for path, diff in DIFF.findall(SECTIONS[section]):
        lines = diff.splitlines()
        before = "\n".join(line[1:] for line in lines if line[0] != "+")
        after = "\n".join(line[1:] for line in lines if line[0] != "-")
        text = (project / path).read_text()
        assert text.count(before) == 1, f"{path} has no such lines, or more than once"
        (project / path).write_text(text.replace(before, after))
        touched.append(path)
    return touched


def test_the_page_has_every_kind_of_thing() -> None:
    assert {"A workload", "A sysctl", "A knob family", "A metric of /proc/vmstat", PACKAGE} < set(SECTIONS)
    assert {"A collector: metrics from another file", "A place that metrics of a service are read from"} < set(SECTIONS)


def passed(project: Path, tests: Iterable[str], *behind: Path) -> Counter[str]:
    """Run files of tests in a project; return how many tests of each passed, and fail where one did not.

    What it imports is looked for in the project, and then in the folders `behind` it.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (project, *behind)))},
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return Counter(re.findall(r"^PASSED ([^:\n]+)::", ran.stdout, re.MULTILINE))


def hold_apart(sections: Iterable[str]) -> None:
    """Each section is done by itself: none uses a file that another one adds, though all are done in one copy."""
    added = [FILE.findall(section) for section in sections]
    for files in added:
        written = "".join(text for _, text in files)
        names = {Path(path).stem for others in added if others is not files for path, _ in others}
        assert not [name for name in names if re.search(rf"\b{name}\b", written)]


def test_one_source_file_and_one_test_add_each(tmp_path: Path) -> None:
    project = copied(tmp_path)
    sections = [name for name in SECTIONS if name != PACKAGE]
    hold_apart(SECTIONS[name] for name in sections)
    tests = []
    for section in sections:
        touched = done(section, project)
        own = [path for path in touched if path.startswith("tests/")]
        assert (len(touched), len(own)) == (2, 1), section
        tests += own
    assert passed(project, tests).keys() == set(tests)


def test_a_package_of_ones_own_adds_the_same_where_it_is_allowed(tmp_path: Path) -> None:
    """The modules of the page, offered by its entry points and allowed by its file, work without touching fleetexp."""
    page = {path: text for name in SECTIONS for path, text in FILE.findall(SECTIONS[name])}
    site = tmp_path / "site"
    modules = {
        "copymeter": page["agents/workloads/kinds/copy_memory.py"],
        "copymeter_load": page["agents/collectors/kinds/load.py"],
        "copymeter_socket": page["agents/metric_sources/kinds/unix_socket.py"],
    }
    project = tomllib.loads(page["pyproject.toml"])["project"]
    user_package.install(site, project["name"], modules, project["entry-points"])
    (tmp_path / "host/proc").mkdir(parents=True)
    (tmp_path / "host/proc/loadavg").write_text("0.20 0.18 0.12 3/80 11206\n")
    code = f"""
from agents.collectors import Collectors
from agents.sysroot import FolderRoot
from agents.workloads.workload import workloads
from fleetexp.experiment.sources import SourceSection
sample = Collectors(FolderRoot({str(tmp_path / "host")!r})).sample()
result = ["copy_memory" in workloads(), "unix_socket" in SourceSection.model_fields, sample]
"""
    assert user_package.beside(site, tmp_path / "none", code) == [False, False, {}]
    allowed = user_package.allow(tmp_path / "etc", page["/etc/fleetexp/extensions"])
    assert user_package.beside(site, allowed, code) == [True, True, {"runnable_tasks": 3.0}]
