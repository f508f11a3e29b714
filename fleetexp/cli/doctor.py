"""`fleetexp doctor`: the honest map of this host. Reads only."""

from __future__ import annotations

import click

from fleetexp.cli.options import json_option, root_option
from fleetexp.cli.output import duration, emit_json, width


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
    from agents.facts import survey

    from agents.sysroot import FolderRoot
    from fleetexp.cli.abilities import abilities
    from fleetexp.cli.doctor_screen import doctor_lines

    host = FolderRoot(root)
    facts = survey(host)
    status = claim_status(host)
    if as_json:
        emit_json({"facts": facts, "abilities": abilities(facts), "claim": status})
        return
    if status is None:
        claim = "free: no run holds this host"
    elif status.lease_remaining_seconds > 0:
        left = duration(status.lease_remaining_seconds)
        claim = f"held by run {status.run} of {status.owner}, lease {left}"
    else:
        claim = f"LEFT BEHIND by run {status.run} of {status.owner} — put it right with 'fleetexp restore'"
    for line in doctor_lines(facts, claim, short=short, columns=width()):
        click.echo(line)
