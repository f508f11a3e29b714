"""The command as a whole: quick to answer, every command explained, errors as one line and a code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from agents.errors import KnobRefused, RestoreIncomplete
from fleetexp.cli.commands_page import every_command, render_commands
from fleetexp.cli.errors import exit_code_of, failure_lines, problem_of
from fleetexp.cli.main import COMMANDS
from fleetexp.errors import ConfigError
from fleetexp.exit_codes import ExitCode

PAGE = Path(__file__).parents[3] / "docs/COMMANDS.md"
HEAVY = {"ray", "sqlalchemy", "pandas", "numpy", "scipy", "pydantic", "numba", "matplotlib", "alembic", "rich", "yaml"}


COMMAND_LIST = dict(every_command())


# ------------------------------------------------------------------ help
def test_help_names_every_command(invoke: Callable[..., Result]) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    listed = re.findall(r"^  ([\w-]+)  ", result.stdout, re.MULTILINE)
    assert [name for name in listed if name in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMAND_LIST)
def test_each_command_explains_itself_with_an_example_in_80_columns(invoke: Callable[..., Result], name: str) -> None:
    result = invoke(*name.split(), "--help")
    assert result.exit_code == 0
    assert COMMAND_LIST[name].help
    assert "Example:" in result.stdout
    assert f"fleetexp {name}" in result.stdout.split("Example:")[1]
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_the_page_of_commands_is_current() -> None:
    assert PAGE.read_text() == render_commands(), "write it again: see docs/COMMANDS.md, first lines"


@pytest.mark.parametrize("name", COMMAND_LIST)
def test_short_help_is_a_whole_sentence(name: str) -> None:
    assert not COMMAND_LIST[name].get_short_help_str(60).endswith("...")


def test_that_page_and_the_help_give_every_exit_code(invoke: Callable[..., Result]) -> None:
    text, help_text = PAGE.read_text(), invoke("--help").stdout
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \|", text, re.MULTILINE), code
        if code is not ExitCode.DONE:
            assert re.search(rf"\b{int(code)} [a-zR]", help_text), code


def test_a_misspelt_command_is_a_usage_error_that_names_the_nearest(invoke: Callable[..., Result]) -> None:
    result = invoke("docter")
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout == ""
    assert "docter" in result.stderr


def test_version_is_that_of_the_package(fleetexp: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = fleetexp("--version")
    assert re.fullmatch(r"fleetexp \d+\.\d+\.\d+\n", result.stdout)


# ------------------------------------------------------------------ speed
def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from fleetexp.cli.main import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "click" in loaded
    assert loaded & HEAVY == set()
    assert "agents.messages" not in done.stdout


# ------------------------------------------------------------------ errors
@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Put a command 'doctor' in place that raises."""

    def arrange(error: BaseException) -> None:
        from fleetexp.cli import doctor
        from fleetexp.cli.options import json_option

        @click.command()
        @json_option
        def broken(as_json: bool) -> None:
            raise error

        monkeypatch.setattr(doctor, "doctor", broken)

    return arrange


def test_an_error_of_ours_is_one_line_with_what_where_and_remedy(
    invoke: Callable[..., Result], failing: Callable[[BaseException], None]
) -> None:
    failing(KnobRefused("the kernel refused 'sometimes'", "thp/enabled", "choose always, madvise or never"))
    result = invoke("doctor")
    assert result.exit_code == ExitCode.ERROR
    assert result.stdout == ""
    assert result.stderr == ("error: the kernel refused 'sometimes' [thp/enabled] — choose always, madvise or never\n")


def test_an_error_with_json_is_one_object_on_stdout_too(
    invoke: Callable[..., Result], failing: Callable[[BaseException], None]
) -> None:
    failing(KnobRefused("refused", "thp/enabled", "choose another"))
    result = invoke("doctor", "--json")
    assert json.loads(result.stdout) == {
        "error": {
            "what": "refused",
            "where": "thp/enabled",
            "remedy": "choose another",
            "problems": [],
            "exit_code": 1,
        }
    }
    assert result.stderr.startswith("error: refused [thp/enabled]")


def test_an_incomplete_restore_has_the_loudest_code(
    invoke: Callable[..., Result], failing: Callable[[BaseException], None]
) -> None:
    failing(RestoreIncomplete("thp/enabled reads never", "web-17", "write it by hand"))
    assert invoke("doctor").exit_code == ExitCode.RESTORE_INCOMPLETE


def test_an_unexpected_error_is_one_line_that_says_how_to_see_more(
    invoke: Callable[..., Result], failing: Callable[[BaseException], None]
) -> None:
    failing(KeyError("colour"))
    result = invoke("doctor")
    assert result.exit_code == ExitCode.ERROR
    assert len(result.stderr.splitlines()) == 1
    assert "unexpected KeyError: 'colour'" in result.stderr
    assert "--debug" in result.stderr


def test_debug_shows_the_traceback_before_the_line(
    invoke: Callable[..., Result], failing: Callable[[BaseException], None]
) -> None:
    failing(KeyError("colour"))
    result = invoke("--debug", "doctor")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("error: unexpected KeyError")


def test_an_interrupted_command_says_so_and_fails(
    invoke: Callable[..., Result], failing: Callable[[BaseException], None]
) -> None:
    failing(KeyboardInterrupt())
    result = invoke("doctor")
    assert result.exit_code == ExitCode.ERROR
    assert "error: interrupted" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = f"{sys.executable} -m fleetexp --help | true"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


def test_several_problems_follow_their_count_line_by_line() -> None:
    error = ConfigError("2 problems", "a.yaml", "each line names its own", ("a.yaml:1:1 x: bad", "a.yaml:2:1 y:\n bad"))
    assert failure_lines(error) == [
        "error: 2 problems [a.yaml] — each line names its own",
        "  a.yaml:1:1 x: bad",
        "  a.yaml:2:1 y: bad",
    ]


def test_one_problem_is_one_line() -> None:
    assert len(failure_lines(ConfigError("bad", "a.yaml:1:1", "fix", ("a.yaml:1:1 bad — fix",)))) == 1


def test_an_error_of_the_system_names_its_file() -> None:
    error = PermissionError(13, "Permission denied", "/root/x")
    assert problem_of(error) == {"what": "Permission denied", "where": "/root/x", "remedy": ""}
    assert exit_code_of(error) is ExitCode.ERROR


# ------------------------------------------------------------------ completion
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_the_shell(invoke: Callable[..., Result], shell: str) -> None:
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert "_FLEETEXP_COMPLETE" in result.stdout


def test_completion_offers_our_commands(fleetexp: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = fleetexp(env={"_FLEETEXP_COMPLETE": "bash_complete", "COMP_WORDS": "fleetexp re", "COMP_CWORD": "1"})
    assert {line.split(",")[1] for line in result.stdout.split()} == {"rehearse", "report", "restore", "resume"}


def test_completion_refuses_a_shell_it_does_not_know(invoke: Callable[..., Result]) -> None:
    assert invoke("completion", "tcsh").exit_code == ExitCode.USAGE
