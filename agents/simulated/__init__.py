"""Hosts whose kernel is a model: the same agents, journals and guardians run over them, in virtual time.

clock            the time of one host        files   what its kernel shows, and how its knobs take a write
response_model   how its numbers move        kernel  the SysRoot made of both
faults           what goes wrong, to order   host    agent, guardian and timeline of one host
"""

from __future__ import annotations

from agents.simulated.clock import HostClock
from agents.simulated.faults import Fault, Lie, Oops, Reboot, Refuse, Rewrite, Vanish
from agents.simulated.files import MachineFiles
from agents.simulated.host import Handled, SimulatedHost
from agents.simulated.kernel import SimulatedRoot
from agents.simulated.response_model import MetricModel, ModelParameters, PlainModel, ResponseModel, Treatment

__all__ = [
    "Fault",
    "Handled",
    "HostClock",
    "Lie",
    "MachineFiles",
    "MetricModel",
    "ModelParameters",
    "Oops",
    "PlainModel",
    "Reboot",
    "Refuse",
    "ResponseModel",
    "Rewrite",
    "SimulatedHost",
    "SimulatedRoot",
    "Treatment",
    "Vanish",
]
