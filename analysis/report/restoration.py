"""Whether every host was left as it was found, read from the record of knob writes."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.quantities import counted
from analysis.report.content import KnobRow, ReportInput

_LIVE = {"preflight", "running", "paused", "analysing", "halting"}
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """True: all read back as found. False: some do not. None: nothing was written, or the run is not over."""

    ok: bool | None
    sentences: tuple[str, ...]


def restoration(content: ReportInput) -> Restoration:
    """Compare, for each host and knob, the first value found with the last value read back."""
    first: dict[tuple[str, str], KnobRow] = {}
    last: dict[tuple[str, str], KnobRow] = {}
    for row in sorted(content.knob_changes, key=lambda row: row.changed_at):
        first.setdefault((row.host, row.knob), row)
        last[row.host, row.knob] = row
    off = [key for key in first if last[key].after != first[key].before]
    if content.state in _LIVE:
        return Restoration(ok=None, sentences=("The run is not over: hosts may still be off their original settings.",))
    if off or content.state == "restore_incomplete":
        named = [
            f"{host}: {knob} reads {last[host, knob].after!r}, found as {first[host, knob].before!r}"
            for host, knob in off[:_MOST_NAMED]
        ]
        more = (f"and {len(off) - _MOST_NAMED} more",) * (len(off) > _MOST_NAMED)
        told = "Restore incomplete: not every host reads as it was found. Run fleetexp restore there."
        return Restoration(ok=False, sentences=(told, *named, *more))
    if not first:
        return Restoration(ok=None, sentences=("No knob was written.",))
    hosts = len({host for host, _ in first})
    told = (
        f"Every knob that was written reads as it was found: {counted(len(first), 'setting')} on "
        f"{counted(hosts, 'host')}, {counted(len(content.knob_changes), 'write')}, each read back."
    )
    return Restoration(ok=True, sentences=(told,))
