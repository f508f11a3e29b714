"""More views. Views hold no data and are made anew after the last step: this one only says that they have changed."""

from __future__ import annotations

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Leave the tables as they are."""
