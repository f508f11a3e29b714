"""What a fleet's hosts are before any of them is in a run: found, looked over, and opened as a fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agents.claim import ClaimStatus
from agents.messages import HostFacts
from fleetexp.fleets.base import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundHost:
    """A host that an inventory knows of: its facts, or in `unusable` why it has none to give or can't take part."""

    host: str
    labels: Mapping[str, str] = field(default_factory=dict)
    facts: HostFacts | None = None
    unusable: str = ""  # it does not answer, it runs another fleetexp, its state is not to be trusted
    claim: ClaimStatus | None = None  # what holds the host now, of whatever store


class Inventory(Protocol):
    """Where hosts are found. Every call has an end: a host that does not answer is found with the reason."""

    name: str  # 'local', 'inline', 'ray', 'simulated'
    one_machine: bool  # one host, and it is the one we run on

    @property
    def address(self) -> str:
        """What it is connected to, '' where there is nothing to connect to; never a secret."""
        ...

    def survey(self) -> Sequence[FoundHost]:
        """Look over every candidate host. Reads only."""
        ...

    def open(self, hosts: Sequence[str], run: str) -> Fleet:
        """Put an agent on each of these hosts for the run that claims under this name."""
        ...

    def close(self) -> None:
        """Let go of whatever was connected to. A fleet that was opened is closed by itself, first."""
        ...


def sort_out(
    found: Sequence[FoundHost], busy: Mapping[str, int], *, one_machine: bool = False
) -> tuple[list[HostFacts], dict[str, str]]:
    """Return the facts of the hosts that may take part, and for each other host why it may not.

    `busy`: hosts in a live run of this store -> that run. Of one machine nothing is left out: whatever is wrong with
    it, its preflight says best.
    """
    if one_machine:
        return [one.facts for one in found if one.facts is not None], {}
    usable: list[HostFacts] = []
    left_out: dict[str, str] = {}
    for one in found:
        if one.host in busy:
            left_out[one.host] = f"it is in run {busy[one.host]}"
        elif one.facts is None or one.unusable:
            left_out[one.host] = one.unusable or "it gave no facts"
        elif (claim := one.claim) is not None and claim.lease_remaining_seconds > 0:
            left_out[one.host] = f"it is claimed by run {claim.run} of {claim.owner}"
        else:
            usable.append(one.facts)
    return usable, left_out


def shown(reasons: Mapping[str, str], at_most: int = 20) -> str:
    """Write 'host: reason; ...', the first ones where there are many."""
    more = f"; and {len(reasons) - at_most} more" if len(reasons) > at_most else ""
    return "; ".join(f"{host}: {reason}" for host, reason in list(reasons.items())[:at_most]) + more


__all__ = ["FoundHost", "Inventory", "shown", "sort_out"]
