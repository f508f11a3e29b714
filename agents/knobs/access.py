"""Reading a knob, and writing it so that what was written is what it holds."""

from __future__ import annotations

import errno
import re

from agents.errors import KnobError, KnobMismatch, KnobNotWritable, KnobRefused, UnknownKnob
from agents.knobs.names import Knob, current_value, find_knob
from agents.messages import KnobChange, KnobReason
from agents.page_sizes import thp_sizes, thp_switch
from agents.sysroot import SysRoot

_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_LONGEST_NUMBER = 20  # digits of the largest number of 64 bits
_REMEDY_WRITABLE = "run as root on a host whose /sys and /proc/sys are mounted read-write (not in a container)"


def _gone(knob: Knob) -> UnknownKnob:
    remedy = "look the host over with 'fleetexp doctor'"
    return UnknownKnob(f"{knob.name} is gone from this kernel", where=knob.path, remedy=remedy)


def read_knob(root: SysRoot, knob: Knob) -> str:
    """Return the value a knob holds now, brackets resolved; KnobError where it can't be read."""
    try:
        return current_value(root.read(knob.path).decode(errors="replace"))
    except FileNotFoundError as error:
        raise _gone(knob) from error
    except OSError as error:
        raise KnobError(
            f"{knob.name} can't be read: {error.strerror}", where=knob.path, remedy="read it as root"
        ) from error


def check_value(knob: Knob, value: str) -> str | None:
    """Say what is wrong with a value for this knob, or None. The kernel may still refuse it for reasons of its own."""
    if knob.choices is not None:
        if value in knob.choices:
            return None
        return f"{value!r} is not a value of {knob.name}: this kernel knows {', '.join(knob.choices)}"
    if not re.fullmatch(r"0|[1-9][0-9]*", value):
        return f"{value!r} is not a value of {knob.name}: it takes a whole number, 0 or more"
    if knob.highest is not None and (len(value) > _LONGEST_NUMBER or int(value) > knob.highest):
        return f"{value[:40]} is too large for {knob.name}: at most {knob.highest}"
    return None


def attempt_write(root: SysRoot, knob: Knob, value: str, reason: KnobReason) -> tuple[KnobChange, KnobError | None]:
    """Make a knob hold a value and read it back; a knob that already holds it is not written.

    Returns the change as it went and what went wrong; never raises a KnobError. The kernel alone judges the value.
    """
    before, failure = "", None
    after = ""
    try:
        before = after = read_knob(root, knob)
        if before != value:
            _write(root, knob, value)
            after = read_knob(root, knob)
            if after != value:
                raise _mismatch(knob, before, value, after)
    except KnobError as error:
        failure = error
    change = KnobChange(
        knob=knob.name,
        before=before,
        wanted=value,
        after=after,
        reason=reason,
        changed_at=root.clock.now(),
        error=None if failure is None else str(failure),
    )
    return change, failure


def write_knob(root: SysRoot, knob: Knob, value: str, reason: KnobReason) -> KnobChange:
    """Make a knob hold a value and read it back; a no-op comes back as a change too.

    Raises KnobRefused (not a value here), KnobNotWritable (not root, read-only), KnobMismatch (reads back
    differently; a pool may then hold part of what was asked) or UnknownKnob (gone).
    """
    if (problem := check_value(knob, value)) is not None:
        raise KnobRefused(problem, where=knob.path, remedy="choose a value this kernel knows")
    change, failure = attempt_write(root, knob, value, reason)
    if failure is not None:
        raise failure
    return change


def effective_thp(root: SysRoot, size_kib: int) -> str:
    """Return what one transparent-huge-page size does now, with `inherit` resolved through the top level.

    A size set to `always` allocates also where the top level is `never`. Before 6.8 the one size has the top level
    alone. UnknownKnob where there is no such size.
    """
    switch = thp_switch(root, size_kib) if size_kib in thp_sizes(root) else f"thp/{size_kib}kB/enabled"
    own = read_knob(root, find_knob(root, switch))
    return own if own != "inherit" else read_knob(root, find_knob(root, "thp/enabled"))


def _write(root: SysRoot, knob: Knob, value: str) -> None:
    try:
        root.write(knob.path, value.encode())
    except FileNotFoundError as error:
        raise _gone(knob) from error
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            raise KnobNotWritable(
                f"{knob.name} can't be written: {error.strerror}", where=knob.path, remedy=_REMEDY_WRITABLE
            ) from error
        raise KnobRefused(
            f"the kernel refused {value!r} for {knob.name}: {error.strerror or error}",
            where=knob.path,
            remedy="choose a value this kernel knows",
        ) from error


def _mismatch(knob: Knob, before: str, value: str, after: str) -> KnobMismatch:
    if not knob.is_pool:
        return KnobMismatch(
            f"{knob.name} was set to {value!r} and reads {after!r}",
            where=knob.path,
            remedy="look for another program that writes it (TuneD, a boot script) and stop it for the run",
        )
    if max(len(before), len(value)) <= _LONGEST_NUMBER and before.isdecimal() and int(value) < int(before):
        return KnobMismatch(
            f"{knob.name} was set to {value} pages and still holds {after}: the rest are in use",
            where=knob.path,
            remedy="end the processes that have them mapped; they are given back then",
        )
    return KnobMismatch(
        f"the kernel granted {after} of {value} pages for {knob.name}",
        where=knob.path,
        remedy="ask for fewer, free memory and compact it, or reserve them at boot",
    )
