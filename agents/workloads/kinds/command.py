"""A program of the user's own, which prints its measurements; `agents.workloads.start` starts it as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agents.catalogue.declared import THROUGHPUT
from agents.workloads.option import Options, Wrong, program, seconds, switch, text, variables
from agents.workloads.workload import Workload

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\0]*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Options):
    """A program of the user's own, which prints its measurements."""

    alone = ("argv",)

    argv: tuple[str, ...] = program(
        "program and arguments, one word each; no shell reads them", ["/opt/bench", "--rate", 500]
    )
    timeout_seconds: float | None = seconds("after which it is ended", "5m", otherwise="its period's end")
    user: str | None = text("who runs it", "nobody", otherwise="the agent's")
    env: tuple[str, ...] = variables(
        "variables beside a small clean environment, no secrets: the spec is stored", {"THREADS": 4}
    )
    capture: bool = switch("whether its output is read as measurements", "none", ("metrics", "none"), default="metrics")

    def wrong(self) -> Iterator[Wrong]:
        if not self.argv or not self.argv[0]:
            yield "argv", "no program is named", "give the program and its arguments, one word each"
        for entry in self.env:
            if not _VARIABLE.fullmatch(entry):
                yield "env", f"{entry!r} is not NAME=value", "write each variable as NAME=value"

    @classmethod
    def shorthand(cls, value: str | tuple[object, ...]) -> str:
        return "argv"


WORKLOAD = Workload(name="command", options=Command, reports=(THROUGHPUT,))
