"""What a newcomer meets: the wheel, alone in an environment, and every command and file that is printed somewhere.

Commands of `--help`, README and docs/ run as they are printed, each page in a folder of its own, but for three things:
/etc is a folder there, runs have the numbers of the runs that are there, and what NEEDS lists is not run.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click
import pytest
import yaml

from agents.perf.tables import event_tables
from fleetexp.cli.main import COMMANDS, cli
from fleetexp.experiment import parse_experiment
from fleetexp.experiment.mapping import parse_mapping
from fleetexp.shipped import shipped_files
from tests.fleetexp.imports.rollout import long_frame, write_csv

ROOT = Path(__file__).parents[1]
PACKED = ("fleetexp", "agents", "analysis", "migrations", "configs", "docs", "pyproject.toml", "README.md", "LICENSE")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Not run, because they need more than an environment; that their options exist is checked like all others'.
NEEDS = {
    r"--fleet ray|ray job": "a Ray cluster: tests/cluster",
    r"postgresql://|db grant|db partition": "a PostgreSQL server: tests/fleetexp/store",
    r"\brun (thp-2m-demo|my|first)\.yaml( --json| +#|$)": "to write this machine's kernel: tests marked real_knobs",
    r"fleetexp restore": "to write this machine's kernel: tests/fleetexp/cli/test_cli_host_commands.py",
    r"fleetexp (pause|resume|abort) \d": "a run that goes on: tests/fleetexp/cli/test_cli_run_command.py",
    r"--as-of 2026": "a run of that day: tests/fleetexp/cli/test_cli_store_commands.py",
    r"fleetexp lab (boot|enter|status|stop)": "a kernel image and its guests: tests/lab/test_lab_boot.py",
    r"fleetexp conform --size": "to write this machine's kernel: tests/agents/conformance/test_on_this_kernel.py",
    r"fleetexp serve": "somebody to stop it: tests/fleetexp/web",
}
MINE = """\
name: rollout
design: parallel
arms: {control: {}, treatment: {thp/1048576kB/enabled: always}}
stages: [{hosts: 4, hold: 2m}, {share: 100%, hold: 5m}]
periods: {baseline: 2m, washout: 1m, sample_every: 10s}
metrics:
  primary: throughput
  secondary: [memory_used_bytes]
  sources: {throughput: {prometheus: "http://127.0.0.1:9100/metrics", name: requests_total}}
  better: {throughput: increase}
"""
PROMPTED = re.compile(r"^((?:\w+)?[$#]) (.*\bfleetexp [a-z].*)$", re.MULTILINE)
INLINE = re.compile(r"`(fleetexp [^`]+)`")
FILE = re.compile(r"(?<![\w/.-])((?:configs|docs)/[\w./-]*\w)")
LINK = re.compile(r"\]\((?!http)([^)#]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A help text, or what one prompt of a page stands for, and the commands there, in order."""

    name: str
    commands: list[str] = field(default_factory=list)


def every_command() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    yield "", cli
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", below) for sub, below in command.commands.items())


HELP = {name: command.epilog or "" for name, command in every_command()}


def places() -> Iterator[Place]:
    for name, text in HELP.items():
        lines = re.findall(r"^ +((?:source <\()?fleetexp .*)$", text, re.MULTILINE)
        if lines:
            yield Place(name=f"fleetexp {name} --help", commands=lines)
    for page in PAGES:
        text = page.read_text().replace("\\\n", "")
        for prompt in dict.fromkeys(match[1] for match in PROMPTED.finditer(text)):
            found = [match[2] for match in PROMPTED.finditer(text) if match[1] == prompt]
            yield Place(name=f"{page.name} {prompt}", commands=found)


PLACES = list(places())
PRINTED = [command for place in PLACES for command in place.commands]
MENTIONED = [match[1] for page in PAGES for match in INLINE.finditer(page.read_text())]


def needed(command: str) -> str:
    """What a command needs that an environment lacks; '' for nothing."""
    return next((reason for pattern, reason in NEEDS.items() if re.search(pattern, command)), "")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first process of this test run to want it makes, and the others find."""
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    folder, made = place / name, place / f"{name}.made"
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel installed and, beside it, the packages that fleetexp depends on."""
    return made_once(tmp_path_factory, "wheel", make_environment) / "env"


def make_environment(folder: Path) -> None:
    source, env = folder / "source", folder / "env"
    source.mkdir()
    for name in PACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = subprocess.run(
        [*pip, "wheel", "-q", "--no-deps", "-w", str(folder), str(source)], capture_output=True, text=True, check=False
    )
    if "setuptools>=77" in built.stderr and "No matching distribution" in built.stderr:
        pytest.skip("no package index has the setuptools that builds the wheel")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    python = env / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    # Only now, so that pip never sees the checkout that the tests' own environment has installed.
    (site,) = env.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")


def run_in(environment: Path, folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line by the shell, with the environment's `fleetexp` first."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "FLEETEXP_STORE"}}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**kept, "PATH": f"{environment / 'bin'}:{os.environ['PATH']}"},
        check=False,
    )


@pytest.fixture(scope="module")
def base(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the printed commands take for granted: a spec, a question, data, two runs in the store."""
    return made_once(tmp_path_factory, "base", partial(make_base, environment))


def make_base(environment: Path, folder: Path) -> None:
    (folder / "my.yaml").write_text(MINE)
    (folder / "question.sql").write_text("select * from run_summary")
    measured = long_frame()
    write_csv(folder / "measured.csv", measured)
    for week, part in enumerate((measured[: len(measured) // 2], measured[len(measured) // 2 :]), start=1):
        part.to_parquet(folder / f"week-{week}.parquet")
    mapping = next(text for name, text in fragments() if name == "IMPORT.md-0")
    (folder / "mapping.yaml").write_text(mapping)
    for _ in range(2):
        done = run_in(environment, folder, "fleetexp run my.yaml --fleet simulated --effect throughput=+5.9%")
        assert done.returncode == 0, done.stderr


def as_it_runs(command: str) -> str:
    """The command with what stands for something else put in, and no note behind it."""
    command = re.sub(r"^source <\((.*)\)$", r"\1", command)
    command = re.split(r" {3,}|\s+# ", command)[0].replace(" /etc/", " etc/")
    if shutil.which("jq") is None:
        command = command.split(" | jq")[0]
    if re.search(r"fleetexp (status|report|export) ", command):
        command = re.sub(r" [37](?= |$)", " 1", re.sub(r" 5(?= |$)", " 2", command))
    return command


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tables_of_events_are_in_the_wheel(environment: Path, tmp_path: Path) -> None:
    names = "from agents.perf.tables import event_tables as t; print(*(cpu.name for one in t() for cpu in one.cpus))"
    done = run_in(environment, tmp_path, f"python -c '{names}'")
    assert done.stdout.split() == " ".join(cpu.name for table in event_tables() for cpu in table.cpus).split()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_each_command_runs_as_it_is_printed(place: Place, environment: Path, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(base, folder)
    for name in ("fleetexp", "bash_completion.d", "systemd/system"):
        (folder / "etc" / name).mkdir(parents=True)
    for name in ("thp-2m-demo", "thp-1g-web"):
        text = "\n".join(place.commands)
        if f" {name}.yaml" in text and f"example {name}" not in text:
            assert run_in(environment, folder, f"fleetexp example {name}").returncode == 0
    for command in place.commands:
        if not needed(command):
            done = run_in(environment, folder, as_it_runs(command))
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            assert done.stdout or re.search("> |--parquet|jq .*select", command), f"{command}: says nothing"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_is_that_of_the_wheel(environment: Path, tmp_path: Path) -> None:
    where = run_in(environment, tmp_path, "python -c 'import fleetexp, agents, analysis; print(fleetexp.__file__)'")
    assert Path(where.stdout.strip()).is_relative_to(environment), where.stdout + where.stderr
    assert re.fullmatch(r"fleetexp \d+\.\d+\.\d+\n", run_in(environment, tmp_path, "fleetexp --version").stdout)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_file_that_is_named_is_in_the_wheel(environment: Path, tmp_path: Path) -> None:
    (package,) = environment.glob("lib/python*/site-packages/fleetexp")
    texts = {page.name: page.read_text() for page in PAGES}
    texts |= {name: path.read_text() for name, path in shipped_files().items() if path.suffix not in {".png", ".md"}}
    texts |= {str(path): path.read_text() for path in (ROOT / "fleetexp").rglob("*.py")}
    named = {file for text in texts.values() for file in FILE.findall(text)}
    named |= {f"docs/{link}" for page in PAGES[1:] for link in LINK.findall(page.read_text())}
    assert len(named) >= 12
    assert [name for name in sorted(named) if not (package / name).exists()] == []
    there = {path.relative_to(package).as_posix() for path in package.glob("configs/**/*") if path.is_file()}
    there |= {path.relative_to(package).as_posix() for path in package.glob("docs/*")}
    assert there == set(shipped_files())
    for name in sorted(there):
        done = run_in(environment, tmp_path, f"fleetexp example {name}")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", list(dict.fromkeys([*PRINTED, *MENTIONED])))
def test_each_command_that_is_named_exists_with_its_options(command: str) -> None:
    words = re.sub(r"^.*?\bfleetexp ", "", command).split()
    at = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in HELP), None)
    assert at is not None, f"there is no such command: {command}"
    known = {option for name, found in every_command() if name == at for p in found.params for option in p.opts}
    assert set(re.findall(r"(?<= )--[a-z-]+", command)) - {"--submission-id", "--no-wait"} <= known | {"--help"}


def test_what_is_not_run_is_still_printed_somewhere() -> None:
    assert [pattern for pattern in NEEDS if not any(re.search(pattern, command) for command in PRINTED)] == []
    assert len(PRINTED) >= 60
    assert sum(not needed(command) for command in PRINTED) >= 35


def fragments() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)):
            yield f"{page.name}-{number}", text


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in fragments()])
def test_each_piece_of_yaml_is_an_experiment_or_a_part_of_one(text: str) -> None:
    document = yaml.load(text, yaml.BaseLoader)  # noqa: S506 - nothing but text
    if "name" in document:
        (parse_mapping if "read" in document else parse_experiment)(text)
        return
    whole = yaml.safe_load(MINE)
    parts = {key: value for key, value in whole.items() if key not in document}
    parse_experiment(yaml.safe_dump(parts) + text)
