"""The machine that we are on, as the design of an experiment and the audit trail see it."""

from __future__ import annotations

import getpass
import os
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetexp.design import HostInfo


def this_host() -> HostInfo:
    """Return this machine as the one host of a local experiment."""
    from fleetexp.design import HostInfo

    return HostInfo(name=platform.node(), labels={})


def who() -> str:
    """Return 'user@host pid N' of this process, for the audit trail."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{platform.node()} pid {os.getpid()}"
