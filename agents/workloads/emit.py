"""What a workload of ours says to its agent: JSON lines on stdout, one write each, so that none is ever half there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping

from agents.messages import Scalar

READY = "ready"
FAILED = "failed"
VALUES = "values"


class Emit:
    """Writes lines; `write` takes one whole line, and the default is a write(2) to stdout without a buffer."""

    def __init__(
        self, write: Callable[[bytes], object] = lambda line: os.write(1, line), go: Callable[[], object] = lambda: None
    ) -> None:
        self._write = write
        self._go = go

    def ready(self) -> None:
        """Say that everything is compiled and warm; measuring begins when the agent has taken its first sample."""
        self._line({READY: True})
        self._go()

    def measured(self, values: Mapping[str, float]) -> None:
        """Report values that belong to one instant."""
        self._line({VALUES: values, "at": time.time()})

    def failed(self, *, what: str, where: str, remedy: str) -> None:
        self._line({FAILED: {"what": what, "where": where, "remedy": remedy}})

    def _line(self, message: Mapping[str, Scalar | Mapping[str, float] | Mapping[str, str]]) -> None:
        self._write(json.dumps(message, allow_nan=False).encode() + b"\n")
