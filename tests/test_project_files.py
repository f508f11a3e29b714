"""The project's own files agree with each other: dependencies, exact versions, README, Makefile."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = re.compile(r"[A-Za-z0-9._-]+")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> list[str]:
    return [normal(match[0]) for line in requirements if (match := NAME.match(line))]


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def test_every_dependency_has_an_exact_version() -> None:
    wanted = names(PROJECT["dependencies"]) + [
        name for extra in PROJECT["optional-dependencies"].values() for name in names(extra)
    ]
    assert set(wanted) - set(pinned()) == set()


def test_the_exact_versions_are_nothing_but_names_and_versions() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line), line
    assert {"pip", "setuptools", "wheel", "fleetexp"} & set(pinned()) == set()


def test_contributing_says_why_each_dependency_is_there() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Dependencies")[1].split("\n## ")[0]
    assert [name for name in names(PROJECT["dependencies"]) if name not in section.lower()] == []


@pytest.mark.parametrize("page", ["docs/GUARANTEES.md", "SECURITY.md"])
def test_a_page_names_only_tests_that_exist(page: str) -> None:
    named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", (ROOT / page).read_text())
    assert named
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).is_file() or (test and f"def {test}(" not in (ROOT / path).read_text())
    ]
    assert missing == []


def test_the_readme_names_only_files_that_exist() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)|`((?:configs|docs)/[\w./-]+)`", (ROOT / "README.md").read_text())
    assert [path for pair in linked if not (ROOT / (path := pair[0] or pair[1])).exists()] == []


def test_the_page_on_the_architecture_names_only_files_that_exist() -> None:
    named = re.findall(
        r"`((?:fleetexp|agents|analysis|docs)/[\w/]+\.\w+)`", (ROOT / "docs/ARCHITECTURE.md").read_text()
    )
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("target", ["help", "setup", "demo", "check", "quick", "test", "bench", "coverage"])
def test_make_knows_each_target(target: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_scripts_are_sound_and_can_be_run() -> None:
    for name in ("run", "system-packages"):
        script = ROOT / ".ci" / name
        assert script.stat().st_mode & 0o111
        subprocess.run(["bash", "-n", str(script)], check=True, timeout=10)


def test_no_two_classes_share_a_name() -> None:
    where: dict[str, list[str]] = {}
    for package in ("fleetexp", "agents", "analysis"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    where.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in where.items() if len(paths) > 1} == {}
