"""Errors of the host side. Every one says what failed, where, and the remedy, and survives a trip through Ray.

AgentError
├── KnobError            a kernel setting could not be read, written or verified
│   ├── UnknownKnob          this kernel (or fleetexp) has no such setting
│   ├── KnobRefused          the kernel refused the value
│   ├── KnobNotWritable      not root, or a read-only sysfs
│   └── KnobMismatch         a write was accepted and reads back differently
├── HostClaimed          another run holds this host
├── LeaseExpired         the guardian has already undone this claim
├── JournalError         the journal could not be written or read
│   └── StateRefused         somebody else could have written it, or the way to it
├── RestoreIncomplete    some knob could not be put back
├── GuardianError        the guardian did not start
└── WorkloadError        the workload could not start, crashed, hung or printed garbage
"""

from __future__ import annotations

__all__ = [
    "AgentError",
    "GuardianError",
    "HostClaimed",
    "JournalError",
    "KnobError",
    "KnobMismatch",
    "KnobNotWritable",
    "KnobRefused",
    "LeaseExpired",
    "RestoreIncomplete",
    "StateRefused",
    "UnknownKnob",
    "WorkloadError",
]


class AgentError(Exception):
    """Base of every host-side error; `what` failed, `where`, and the `remedy`."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        remedy = f" — {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}{remedy}"


class KnobError(AgentError):
    """A kernel setting could not be read, written or verified."""


class UnknownKnob(KnobError):
    """The setting does not exist on this kernel, or its name is not one fleetexp knows."""


class KnobRefused(KnobError):
    """The kernel refused the value (EINVAL and the like)."""


class KnobNotWritable(KnobError):
    """The setting exists and cannot be written: not root, read-only sysfs, a container."""


class KnobMismatch(KnobError):
    """The kernel took the write and reads back something else."""


class HostClaimed(AgentError):
    """Another run holds this host."""


class LeaseExpired(AgentError):
    """The guardian has undone this claim; nothing may be written under it any more."""


class JournalError(AgentError):
    """The journal of original values could not be written or read; nothing was changed."""


class StateRefused(JournalError):
    """A folder or file of the host's state that another user owns or could have written, or that is none of ours."""


class RestoreIncomplete(AgentError):
    """At least one knob could not be put back to its original value."""


class GuardianError(AgentError):
    """The guardian process did not start or did not answer; nothing was changed."""


class WorkloadError(AgentError):
    """The workload could not start, crashed, hung or printed what is not a measurement."""
