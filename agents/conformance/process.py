"""One try of a scenario: its process started, listened to, given its time, ended, and what it said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agents.conformance.huge_heap import without_huge_pages
from agents.conformance.scenario import Scenario
from agents.conformance.verdict import Outcome, PageCheck, Subject, VerdictCause
from agents.errors import AgentError
from agents.json_fields import as_any_text, as_object, as_whole, read_object
from agents.process import kill_with_group, mark_process
from agents.readable import readable_within

_BOOT = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from agents.conformance.child import main; sys.exit(main(sys.argv[1:]))"
)
_SOURCE = Path(__file__).resolve().parents[2]
_TICK_SECONDS = 0.5
_ENDING_SECONDS = 10.0  # for a killed process to end, or a third of its time: a page that is paged out is seen through


@dataclass(slots=True)
class Try:
    """What one try came to. `cause` is NONE where the process ran to its end; `stuck`: it could not even be killed."""

    seconds: float = 0.0
    checks: list[PageCheck] = field(default_factory=list)
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)
    cause: VerdictCause = VerdictCause.NONE
    not_tried: bool = False
    detail: str = ""
    stuck: bool = False


class ScenarioProcess:
    """A process in a session of its own. `apply` sets knobs when it asks; `tick` is called all the while.

    Where `tick` returns False it is listened to no more, and ended.
    """

    def __init__(self, scenario: Scenario, size_kib: int, limit_seconds: float | None = None) -> None:
        self._limit = limit_seconds or scenario.limit_for(size_kib)
        words = [scenario.run.__module__, scenario.run.__qualname__, str(size_kib)]
        with without_huge_pages():
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, str(_SOURCE), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
            )
        self._mark = mark_process(self._process.pid)
        self._said = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, apply: Callable[[Mapping[str, str]], None], tick: Callable[[], bool]) -> Try:
        """Listen until it ends or its time is over, then make sure that it is gone; never waits without a bound."""
        assert self._process.stdout is not None  # noqa: S101 - asked for
        outcome, begun = Try(), time.monotonic()
        pipe = self._process.stdout.fileno()
        try:
            while True:
                left = begun + self._limit - time.monotonic()
                if left <= 0:
                    outcome.cause = VerdictCause.HUNG
                    outcome.detail = f"not finished in {self._limit:.0f} s: a slow host needs a higher --time-limit"
                    break
                if not tick():
                    break
                if not readable_within([pipe], min(left, _TICK_SECONDS)):
                    continue
                data = os.read(pipe, 65536)
                if not data:
                    break
                self._hear(data, outcome, apply)
        finally:
            status = self._end(tick)
        outcome.seconds = time.monotonic() - begun
        outcome.stuck = status is None
        if status is None:
            outcome.cause, outcome.detail, outcome.not_tried = (
                VerdictCause.HUNG,
                "its process can't be ended: it hangs in the kernel",
                False,
            )
        elif status is not None and status < 0 and outcome.cause is not VerdictCause.HUNG:
            name = signal.Signals(-status).name
            outcome.cause, outcome.detail, outcome.not_tried = (
                VerdictCause.CRASHED,
                f"its process was killed by {name}",
                False,
            )
        elif outcome.cause is VerdictCause.NONE and not outcome.after:
            outcome.cause, outcome.detail = (
                VerdictCause.BROKEN,
                f"its process ended with status {status} before it was done",
            )
        return outcome

    def _hear(self, data: bytes, outcome: Try, apply: Callable[[Mapping[str, str]], None]) -> None:
        *lines, self._said = (self._said + data).split(b"\n")
        for line in lines:
            said = read_object(line)
            if "check" in said:
                outcome.checks.append(_check(as_object(said["check"], "check")))
            elif "apply" in said:
                self._answer(as_object(said["apply"], "apply"), apply)
            elif "counted" in said:
                outcome.before = _counters(said["counted"])
            elif "ended" in said:
                outcome.after = _counters(said["ended"])
            elif "not_tried" in said:
                why = as_object(said["not_tried"], "not_tried")
                outcome.cause, outcome.not_tried = VerdictCause(as_any_text(why["cause"], "cause")), True
                outcome.detail = as_any_text(why["detail"], "detail")
            elif "broken" in said:
                outcome.cause, outcome.detail = VerdictCause.BROKEN, as_any_text(said["broken"], "broken")

    def _answer(self, knobs: Mapping[str, object], apply: Callable[[Mapping[str, str]], None]) -> None:
        refused = ""
        try:
            apply({name: as_any_text(value, name) for name, value in knobs.items()})
        except AgentError as error:
            refused = str(error)
        assert self._process.stdin is not None  # noqa: S101 - asked for
        with suppress(OSError):
            self._process.stdin.write(json.dumps({"refused": refused}).encode() + b"\n")
            self._process.stdin.flush()

    def _end(self, tick: Callable[[], bool]) -> int | None:
        """Reap it, killed with all it has started where it still runs; None where it can't be killed."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101 - asked for
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        deadline = time.monotonic() + max(_ENDING_SECONDS, self._limit / 3)
        while self._mark is not None and not kill_with_group(self._mark, timeout_seconds=_TICK_SECONDS):
            tick()
            if time.monotonic() > deadline:
                break
        try:
            return self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self._process.stdout.close()


def _check(said: Mapping[str, object]) -> PageCheck:
    return PageCheck(
        subject=Subject(as_any_text(said["subject"], "subject")),
        what=as_any_text(said["what"], "what"),
        wanted=as_any_text(said["wanted"], "wanted"),
        seen=as_any_text(said["seen"], "seen"),
        outcome=Outcome(as_any_text(said["outcome"], "outcome")),
        counter=as_any_text(said["counter"], "counter"),
    )


def _counters(said: object) -> dict[str, int]:
    return {name: as_whole(value, name) for name, value in as_object(said, "counters").items()}
