"""Where an agent is: which host this process is on, where that host's files are, which fleetexp runs here."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from agents.versions import version_of

HOST_LABELS = ("fleetexp.host", "host")
ROOT_VARIABLE = "FLEETEXP_ROOT"
HOST_VARIABLE = "FLEETEXP_HOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """A host by name, and the root of its files: '/' unless several nodes share one machine."""

    host: str
    root: str


def here(labels: Mapping[str, str]) -> NodeIdentity:
    """Return the place of this process on a node with these labels.

    The name: the label `fleetexp.host` or `host`, else FLEETEXP_HOST of the node's environment, else the machine's
    own. The root: FLEETEXP_ROOT, else '/'.
    """
    named = next((labels[label] for label in HOST_LABELS if labels.get(label)), "")
    host = named or os.environ.get(HOST_VARIABLE) or platform.node()
    return NodeIdentity(host=host, root=os.environ.get(ROOT_VARIABLE) or "/")


def spoken() -> str:
    """Return what both sides must have in common to understand each other: 'fleetexp 0.1.0, Python 3.12'."""
    return f"fleetexp {version_of('fleetexp')}, Python {'.'.join(platform.python_version_tuple()[:2])}"


__all__ = ["HOST_LABELS", "NodeIdentity", "here", "spoken"]
