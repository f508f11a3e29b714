"""Who asks, launches and resumes, as the audit trail names them: by the kernel's word, not by the environment's."""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
from pathlib import Path

_NOT_SET = 2**32 - 1


def this_process() -> str:
    """Return 'user@host pid N' of this process; 'root (login alice)@host pid N' where somebody else logged in.

    The login is the audit uid, which the kernel hands down from login(1) or sshd through sudo and su, and which only
    root can change once it is set. LOGNAME, USER and SUDO_USER are not asked: anybody can set them.
    """
    user, login = os.getuid(), _login_uid()
    name = _name(user) if login is None or login == user else f"{_name(user)} (login {_name(login)})"
    return f"{name}@{platform.node()} pid {os.getpid()}"


def is_running(owner: str) -> bool:
    """Whether the process that `this_process` named runs on this machine, and is not this one."""
    where, _, pid = owner.rpartition(" pid ")
    if not pid.isdigit() or not where.endswith(f"@{platform.node()}") or int(pid) == os.getpid():
        return False
    with contextlib.suppress(OSError):
        return b"fleetexp" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _login_uid() -> int | None:
    """Return who logged in; None where the kernel keeps no audit uid, or nobody has: a service, a container."""
    try:
        uid = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        return None
    return None if uid == _NOT_SET else uid


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
