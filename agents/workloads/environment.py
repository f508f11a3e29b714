"""What a workload's process is given of its surroundings: variables, user, program."""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass

from agents.errors import WorkloadError
from agents.workloads.kinds.command import Command

# The agent's environment may hold a cluster's token: only this much of it goes on.
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user as the kernel knows it, with all its groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def switched_to(self) -> tuple[int, int, tuple[int, ...]] | None:
        """Return user, group and further groups for `Launch`; None where this process is that user already."""
        return None if self.uid == os.geteuid() else (self.uid, self.gid, self.groups)


def kept_environment() -> dict[str, str]:
    """Return the few variables of this process that a workload needs."""
    return {"PATH": os.defpath} | {name: os.environ[name] for name in _KEPT if name in os.environ}


def command_environment(options: Command) -> dict[str, str]:
    """Return the variables of a command: the few kept, those of its user, and its own on top."""
    user = find_identity(options.user) if options.user is not None else None
    personal = {} if user is None else {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    return {**kept_environment(), **personal, **dict(entry.split("=", 1) for entry in options.env)}


def find_identity(name: str) -> Identity:
    """Look a user up by name; WorkloadError where there is none."""
    try:
        user = pwd.getpwnam(name)
    except (KeyError, ValueError) as error:
        raise WorkloadError(
            f"there is no user {name!r} on this host",
            where="workload command, user",
            remedy="name a user that 'getent passwd' shows",
        ) from error
    groups = tuple(os.getgrouplist(name, user.pw_gid))
    return Identity(name=name, uid=user.pw_uid, gid=user.pw_gid, groups=groups, home=user.pw_dir)


def find_program(options: Command) -> str:
    """Return the file that a command runs, found as a shell would; WorkloadError where there is none to run."""
    found = shutil.which(options.argv[0], path=command_environment(options).get("PATH"))
    if found is None:
        raise WorkloadError(
            f"there is no program {options.argv[0]!r} to run on this host",
            where="workload command, argv",
            remedy="give the whole path of an executable file",
        )
    return os.path.abspath(found)  # noqa: PTH100 - a link keeps its name: busybox and its like go by it
