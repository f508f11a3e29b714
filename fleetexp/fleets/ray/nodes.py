"""The nodes of a Ray cluster and the hosts that they are: followed as nodes die, and come back under other ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.actor import start_look
from agents.claim import ClaimStatus
from agents.messages import HostFacts
from agents.node_identity import HOST_LABELS, spoken
from agents.timeouts import timeout_factor
from fleetexp.fleets.inventory import FoundHost
from fleetexp.fleets.ray.actors import RayHost, collect

Node = Mapping[str, Any]  # as `ray.nodes()` gives it

_HEAD_RESOURCE = "node:__internal_head__"
_LOOK_SECONDS = 60.0 * timeout_factor()  # a node starts a Python worker for the first look; busy ones take a while
_TOLD_TO_STOP = 1  # Ray's DeathReason of a node that was stopped on purpose


def labels_of(node: Node) -> dict[str, str]:
    """Return the labels given to `ray start --labels`, without Ray's own."""
    return {name: str(value) for name, value in node.get("Labels", {}).items() if not name.startswith("ray.io/")}


def name_of(node: Node) -> str:
    """Return what can be said of a node's host without asking it: its label, else its machine's name."""
    labels = labels_of(node)
    named = next((labels[label] for label in HOST_LABELS if labels.get(label)), "")
    return named or str(node.get("NodeManagerHostname") or node.get("NodeManagerAddress"))


class RayNodes:
    """What is known of each node. The head, and the node that we are on, are hosts only where they have a pool."""

    def __init__(self, own_id: str, look: Callable[..., Any] = start_look) -> None:
        self._own_id = own_id
        self._look = look
        self._table: dict[str, Node] = {}
        self._found: dict[str, FoundHost] = {}  # node id -> the host that it is
        self._roots: dict[str, str] = {}
        self._looks: dict[Any, tuple[str, float]] = {}  # under way -> node id, deadline

    @property
    def known(self) -> bool:
        """Whether the cluster's table has been seen at all."""
        return bool(self._table)

    @property
    def looking(self) -> bool:
        return bool(self._looks)

    def update(self, nodes: Sequence[Node]) -> None:
        """Take the cluster's table as it is now; nodes that are new are asked who they are."""
        self._table = {str(node["NodeID"]): node for node in nodes}
        asked = {node_id for node_id, _ in self._looks.values()}
        for node_id, node in self._table.items():
            if self._is_candidate(node) and node_id not in self._found and node_id not in asked:
                self._ask(node_id)

    def look_again(self) -> None:
        """Forget what was found and ask every candidate anew."""
        self._found.clear()
        self._looks.clear()
        self.update(list(self._table.values()))

    def _ask(self, node_id: str) -> None:
        ref = self._look(node_id=node_id, labels=labels_of(self._table[node_id]))
        self._looks[ref] = (node_id, time.monotonic() + _LOOK_SECONDS)

    def _is_candidate(self, node: Node) -> bool:
        if not node["Alive"]:
            return False
        aside = _HEAD_RESOURCE in node.get("Resources", {}) or node["NodeID"] == self._own_id
        return not aside or "pool" in labels_of(node)

    def settle(self) -> None:
        """Take the answers that have come; give up what is overdue or has died. Waits for nothing."""
        for ref, seen, error in collect(list(self._looks)):
            node_id, _ = self._looks.pop(ref)
            self._note(node_id, seen, error)
        now = time.monotonic()
        for ref, (node_id, deadline) in list(self._looks.items()):
            if now > deadline or not self.alive(node_id):
                del self._looks[ref]
                self._note(node_id, None, f"it did not answer within {_LOOK_SECONDS:.0f} s")

    def _note(self, node_id: str, seen: Mapping[str, Any] | None, error: str) -> None:
        node = self._table.get(node_id)
        if node is None:
            return
        labels = labels_of(node)
        if seen is None:
            self._found[node_id] = FoundHost(host=name_of(node), labels=labels, unusable=error)
            return
        facts, claim = seen.get("facts"), seen.get("claim")
        self._roots[node_id] = str(seen["root"])
        self._found[node_id] = FoundHost(
            host=str(seen["host"]),
            labels=labels,
            facts=facts if isinstance(facts, HostFacts) else None,
            unusable=str(seen["refused"]),
            claim=claim if isinstance(claim, ClaimStatus) else None,
        )

    def alive(self, node_id: str) -> bool:
        node = self._table.get(node_id)
        return node is not None and bool(node["Alive"])

    def where(self, host: str) -> RayHost | None:
        """Return the node that a host is on now; None where no living node is it, or several say so."""
        nodes = [node_id for node_id, found in self._found.items() if found.host == host and self.alive(node_id)]
        if len(nodes) != 1:
            return None
        node_id = nodes[0]
        return RayHost(
            node_id=node_id,
            root=self._roots.get(node_id, ""),
            labels=self._found[node_id].labels,
            language=spoken(),
        )

    def seen(self) -> tuple[FoundHost, ...]:
        """Return every host that was found, by name; those whose node has died say so, unless it was told to stop."""
        living: dict[str, list[FoundHost]] = {}
        for node_id, found in self._found.items():
            if self.alive(node_id):
                living.setdefault(found.host, []).append(found)
        for node_id, _ in self._looks.values():
            if self.alive(node_id):  # and what its host was on before says nothing about it
                node, host = self._table[node_id], name_of(self._table[node_id])
                silent = FoundHost(host=host, labels=labels_of(node), unusable="it has not answered yet")
                living.setdefault(host, []).append(silent)
        out = {host: _one_of(host, several) for host, several in living.items()}
        for node_id, node in self._table.items():
            if node["Alive"] or node.get("DeathReason") == _TOLD_TO_STOP:
                continue
            known = self._found.get(node_id)
            host = known.host if known is not None else name_of(node)
            died = str(node.get("DeathReasonMessage") or "").strip().splitlines()
            aside = _HEAD_RESOURCE in node.get("Resources", {}) and "pool" not in labels_of(node)
            if host not in out and not aside:
                why = f"its Ray node has died: {died[0]}" if died else "its Ray node has died"
                out[host] = FoundHost(host=host, labels=labels_of(node), unusable=why)
        return tuple(out[host] for host in sorted(out))


def _one_of(host: str, several: Sequence[FoundHost]) -> FoundHost:
    if len(several) == 1:
        return several[0]
    what = f"{len(several)} nodes say that they are it: give each a label of its own, fleetexp.host=NAME"
    return FoundHost(host=host, labels=several[0].labels, unusable=what)


__all__ = ["RayNodes", "labels_of", "name_of"]
