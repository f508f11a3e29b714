"""The time that hosts have to answer can be stretched, and what is not a factor is refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.errors import AgentError
from agents.timeouts import read_timeout_factor

SHOW = """\
from agents.timeouts import start_seconds
from fleetexp.control.instruction_executor import SETTLING_SECONDS
from fleetexp.control.run_context import ANSWER_WITHIN
print([start_seconds(), SETTLING_SECONDS, *ANSWER_WITHIN.values()])
"""


def run(*words: str, factor: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLEETEXP_TIMEOUT_FACTOR": factor}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("text", ["0", "0.5", "-3", "nan", "inf", "often", "2x"])
def test_what_is_no_factor_is_refused(text: str) -> None:
    with pytest.raises(AgentError, match="FLEETEXP_TIMEOUT_FACTOR"):
        read_timeout_factor(text)


def test_unset_is_one() -> None:
    assert read_timeout_factor("") == 1
    assert read_timeout_factor("2.5") == 2.5


@pytest.mark.slow
def test_every_answer_and_every_start_has_so_much_longer() -> None:
    usual, patient = (eval(run("-c", SHOW, factor=text).stdout) for text in ("", "4"))  # noqa: S307 - our own list
    assert patient == [4 * seconds for seconds in usual]


@pytest.mark.slow
def test_the_command_line_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    assert run("-m", "fleetexp", "init", str(spec), factor="").returncode == 0
    done = run("-m", "fleetexp", "run", str(spec), "--store", f"sqlite:///{tmp_path}/a.db", factor="often")
    assert done.returncode == 1, done.stderr
    assert "FLEETEXP_TIMEOUT_FACTOR" in done.stderr
    assert "Traceback" not in done.stderr
