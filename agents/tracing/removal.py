"""Taking away what a claim left in the kernel's tracing: an instance and probes that bear the claim's own name.

The name follows from the claim, so its journal is the intention: whoever undoes a claim looks for what bears its name,
at whatever moment the agent died, and touches nothing else. Source: kernel/trace/trace_events_trigger.c (a trigger file
opened with O_TRUNC loses its triggers), trace_events_hist.c (a histogram with variables keeps its instance busy, and a
variable that another refers to stays), Documentation/trace/kprobetrace.rst.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path

from agents.messages import KnobChange, KnobReason
from agents.sysroot import SysRoot
from agents.tracing.functions import find_tracefs

log = logging.getLogger(__name__)

PRESENT, ABSENT = "present", "absent"
_CLAIM = re.compile(r"[a-z0-9]{1,32}")  # as `take_claim` names them: it becomes part of C names
_TRIES = 8
_PAUSE_SECONDS = 0.05  # what is read by somebody at this moment is busy
_LARGEST = 4 * 2**20


def name_of(claim: str) -> str | None:
    """Return the name of a claim's instance and probes; None for a claim that can have none."""
    return f"fleetexp_{claim}" if _CLAIM.fullmatch(claim) else None


def remove_tracing(root: SysRoot, claim: str, reason: KnobReason) -> tuple[KnobChange, ...]:
    """Remove what bears the claim's name and look again; one change where there was something, none else.

    Done again it changes nothing. Never raises: what is in the way is in the change's `error`.
    """
    name = name_of(claim)
    folder = find_tracefs(root) if root.real and name is not None else None
    if name is None or folder is None:
        return ()
    tracefs = Path("/") / folder
    if not (left := _left(tracefs, name)):
        return ()
    for attempt in range(_TRIES):
        _try_once(tracefs, name)
        if not (left := _left(tracefs, name)):
            break
        if attempt + 1 < _TRIES:
            root.clock.sleep(_PAUSE_SECONDS)
    return (
        KnobChange(
            knob=f"tracing/{name}",
            before=PRESENT,
            wanted=ABSENT,
            after=PRESENT if left else ABSENT,
            reason=reason,
            changed_at=root.clock.now(),
            error=f"{', '.join(left)} could not be removed: somebody has it open" if left else None,
        ),
    )


def has_tracing(root: SysRoot, claim: str) -> bool:
    """Whether anything bears the claim's name."""
    name = name_of(claim)
    folder = find_tracefs(root) if root.real and name is not None else None
    return name is not None and folder is not None and bool(_left(Path("/") / folder, name))


def _try_once(tracefs: Path, name: str) -> None:
    instance = tracefs / "instances" / name
    for _ in range(2):  # what refers to a variable first, then the variable
        own, synthetic = (instance / "events" / folder for folder in (name, "synthetic"))
        for trigger in (*_triggers(own, "*")[::-1], *_triggers(synthetic, f"{name}_*")):
            with suppress(OSError):
                os.close(os.open(trigger, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC))
    with suppress(OSError):
        instance.rmdir()
    for file, event in _events(tracefs, name):
        try:
            write_line(tracefs / file, f"-:{event}")
        except OSError as error:
            log.debug("%s is not removed yet: %s", event, error)


def _triggers(folder: Path, events: str) -> list[Path]:
    """Return the trigger files of these events, in order; none where another who undoes the claim was here first."""
    try:
        return sorted(folder.glob(f"{events}/trigger"))
    except FileNotFoundError:
        return []


def _left(tracefs: Path, name: str) -> list[str]:
    instance = [f"instances/{name}"] if (tracefs / "instances" / name).is_dir() else []
    return instance + [event for _, event in _events(tracefs, name)]


def _events(tracefs: Path, name: str) -> list[tuple[str, str]]:
    """Return the probes and synthetic events of that name, with the file that each is removed by."""
    probes = re.compile(rf"^[pr][0-9]*:({name}/[A-Za-z0-9_]+) ", re.MULTILINE)
    synthetic = re.compile(rf"^s:(?:synthetic/)?({name}_[A-Za-z0-9_]+)[ \t]", re.MULTILINE)
    found = [("kprobe_events", event) for event in probes.findall(_read(tracefs / "kprobe_events"))]
    return found + [
        ("dynamic_events", f"synthetic/{event}") for event in synthetic.findall(_read(tracefs / "dynamic_events"))
    ]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode(errors="replace")
    except OSError:
        return ""


def write_line(path: Path, line: str) -> None:
    """Give a control file one command in one write; never O_TRUNC, which would remove what others have set up."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)
