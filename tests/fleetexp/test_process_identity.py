"""Who launched a run is the kernel's word, not the environment's."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

SAY = "from fleetexp.process_identity import this_process; print(this_process())"
LOGIN = "from pathlib import Path; Path('/proc/self/loginuid').write_text('{}'); "
HERE = f"@{platform.node()} pid "


def said(code: str, **environment: str) -> str:
    """Return what a process of its own says, up to its host."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.partition(HERE)[0]


def test_names_in_the_environment_are_not_believed() -> None:
    forged = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"), "ada@ops-1 pid 1")
    assert said(SAY, **forged, SUDO_UID="1000") == said(SAY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set who logged in")
@pytest.mark.parametrize(("login", "shown"), [(0, "root"), (1, "root (login daemon)"), (123456, "root (login 123456)")])
def test_who_logged_in_is_named_beside_who_acts(login: int, shown: str) -> None:
    if not Path("/proc/self/loginuid").exists():
        pytest.skip("this kernel keeps no audit uid")
    assert said(LOGIN.format(login) + SAY) == shown


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_user_without_a_name_is_a_number() -> None:
    become = "import os; import fleetexp.process_identity; os.setuid(123456); "
    assert said(become + SAY, LOGNAME="root").removesuffix(" (login root)") == "123456"
