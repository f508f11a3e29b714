"""The exit codes of every fleetexp command: what a script may rely on."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What happened, from best to worst for the hosts: RESTORE_INCOMPLETE is the loudest."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    HALTED = 3  # by a guardrail, or on request; every host reads as it was found
    TOO_MANY_HOSTS_FAILED = 4
    RESTORE_INCOMPLETE = 5  # some host does not read as it was found
    INCONCLUSIVE = 6  # only where --require-decision was given
