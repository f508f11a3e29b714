"""What can be made to go wrong on a simulated host. Instants are seconds of virtual time, knobs go by their names."""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """The kernel refuses every write to a knob."""

    knob: str
    at_seconds: float = 0.0
    until_seconds: float = math.inf
    number: int = errno.EINVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Lie:
    """The kernel accepts writes to a knob; `shows` is what it reads then, '' for what it read before."""

    knob: str
    shows: str = ""
    at_seconds: float = 0.0
    until_seconds: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Another program writes a knob."""

    knob: str
    value: str
    at_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanish:
    """The host can't be reached, and runs on."""

    at_seconds: float
    until_seconds: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Reboot:
    """The host goes down and comes up with another boot id; agent and guardian are dead, the knobs as at every boot."""

    at_seconds: float
    down_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Oops:
    """The kernel writes this into its log and taints itself."""

    at_seconds: float
    message: str = "BUG: unable to handle page fault for address: ffff888000000000"


Fault: TypeAlias = Refuse | Lie | Rewrite | Vanish | Reboot | Oops
