"""Who asks, launches and resumes, as the audit trail names them."""

from __future__ import annotations

import getpass
import os
import platform


def who() -> str:
    """Return 'user@host pid N' of this process, for the audit trail."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{platform.node()} pid {os.getpid()}"
