"""`fleetexp doctor`: the honest map of this host. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fleetexp.cli.options import json_option, root_option
from fleetexp.cli.output import duration, emit_json, width

if TYPE_CHECKING:
    from agents.recovery import ClaimStatus


@click.command(
    epilog="""
    \b
    Example:
      fleetexp doctor
      fleetexp doctor --json | jq .facts.thp_sizes
    """
)
@click.option("--short", is_flag=True, help="Only what works here.")
@root_option
@json_option
def doctor(short: bool, root: str, as_json: bool) -> None:
    """Show what this host is and what works on it.

    Kernel, huge-page sizes and what they do now, which knobs can be written,
    events that can be counted, and what would disturb an experiment.
    Nothing is changed.
    """
    from agents.claim import claim_status
    from agents.errors import JournalError
    from agents.facts import survey
    from agents.perf.multiplexing import try_turns
    from agents.sysroot import FolderRoot
    from fleetexp.cli.capabilities import capabilities
    from fleetexp.cli.doctor_screen import doctor_lines

    host = FolderRoot(root)
    facts = survey(host)
    status, unknown, fault = None, "", None
    try:
        status = claim_status(host)
    except JournalError as error:
        unknown = str(error)
        fault = None if isinstance(error.__cause__, PermissionError) else error  # that this user may not look is none
    if not as_json:
        turns = try_turns(host) if host.real and not short else None
        claim = f"NOT KNOWN: {unknown}" if unknown else claim_line(status)
        for line in doctor_lines(facts, claim, short=short, columns=width(), turns=turns):
            click.echo(line)
    if fault is not None:
        raise fault
    if as_json:
        emit_json(
            {"facts": facts, "capabilities": capabilities(facts), "claim": status, "claim_not_known": unknown or None}
        )


def claim_line(status: ClaimStatus | None) -> str:
    """Say who holds the host, and what to do where a dead run left it changed."""
    from agents.recovery import ClaimStanding

    if status is None:
        return "free: no run holds this host"
    who = f"run {status.run} of {status.owner}"
    changed = f"{len(status.changed)} knobs changed" if len(status.changed) != 1 else "1 knob changed"
    match status.standing:
        case ClaimStanding.HELD:
            return f"held by {who}: {changed}, lease {duration(status.lease_remaining_seconds)}"
        case ClaimStanding.UNDOING:
            return f"left by {who}: its guardian is putting it back, {changed} still"
        case ClaimStanding.REBOOTED:
            return f"left by {who} before the last boot, which undid it; 'fleetexp restore' closes it"
        case _:
            return f"LEFT BEHIND by {who}: {changed} — put it right with 'fleetexp restore'"
