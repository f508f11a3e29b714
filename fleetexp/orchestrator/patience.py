"""How much longer than usual hosts may take to answer: FLEETEXP_PATIENCE=4 where machines are emulated or crowded."""

from __future__ import annotations

import os

PATIENCE = max(1.0, float(os.environ.get("FLEETEXP_PATIENCE", "1")))
