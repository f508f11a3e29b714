"""What a session with PostgreSQL is asked for: every wait has an end, and what is acknowledged is on the disk."""

from __future__ import annotations

from typing import Any

from fleetexp.secret import Secret
from fleetexp.store.sqlite_file import WAIT_SECONDS
from fleetexp.store.url import Database

CONNECT_SECONDS = 5
DEAD_LINK_MILLISECONDS = 15_000  # a cut network is noticed after so long
STATEMENT_SECONDS = 300  # no statement of ours takes longer on a sound server


def connect_arguments(
    database: Database,
    wait_seconds: float = WAIT_SECONDS,
    *,
    read_only: bool = False,
    statement_seconds: float = STATEMENT_SECONDS,
) -> dict[str, Any]:
    """Return libpq's keywords: every wait has an end, instants are UTC, an acknowledged commit is on the disk.

    What the address says goes first, but for the settings that these promises need. Here, where a connection is made,
    the password is revealed.
    """
    said = {name: one.reveal() if isinstance(one, Secret) else one for name, one in database.libpq.items()}
    settings = {
        "timezone": "UTC",
        "synchronous_commit": "on",
        "lock_timeout": f"{wait_seconds * 1000:.0f}",
        "statement_timeout": f"{max(statement_seconds * 1000, 1):.0f}",
        **({"default_transaction_read_only": "on"} if read_only else {}),
    }
    return {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": DEAD_LINK_MILLISECONDS,
        "client_encoding": "utf8",
        "application_name": "fleetexp",
        **said,
        "options": " ".join(
            filter(None, (said.get("options"), *(f"-c {name}={value}" for name, value in settings.items())))
        ),
    }
