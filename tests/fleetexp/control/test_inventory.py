"""Hosts found and sorted out, the nodes of a cluster followed, and a link to Ray that can't hang."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from agents.claim import claim_status, take_claim
from agents.facts import survey
from agents.node_identity import here
from agents.sysroot import FolderRoot
from fleetexp.control.prepare import plan_over
from fleetexp.errors import ConfigError, RunError
from fleetexp.experiment import parse_experiment
from fleetexp.experiment.schedule import host_info
from fleetexp.fleets.by_name import FleetChoice, open_inventory
from fleetexp.fleets.inline_fleet import InlineInventory
from fleetexp.fleets.inventory import FoundHost, sort_out
from fleetexp.fleets.ray import link as ray_link
from fleetexp.fleets.ray import nodes as ray_nodes
from fleetexp.fleets.ray.nodes import RayNodes
from fleetexp.fleets.ray_fleet import RayInventory

HostTree = Callable[..., FolderRoot]


@pytest.mark.parametrize("text", ["local", "inline", "ray 10.0.0.1:6379"])
def test_a_choice_is_kept_as_text_and_read_back(text: str) -> None:
    assert str(FleetChoice.parse(text)) == text


def test_no_token_is_ever_part_of_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert "secret" not in str(FleetChoice(name="ray", address="10.0.0.1:6379"))


def test_an_unknown_fleet_is_refused_with_those_there_are() -> None:
    with pytest.raises(RunError, match="no fleet is called"):
        open_inventory(FleetChoice(name="x"))


@pytest.mark.parametrize(
    ("labels", "environment", "expected"),
    [
        ({"fleetexp.host": "a", "host": "b"}, {"FLEETEXP_HOST": "c"}, ("a", "/")),
        ({"host": "b"}, {"FLEETEXP_HOST": "c"}, ("b", "/")),
        ({}, {"FLEETEXP_HOST": "c", "FLEETEXP_ROOT": "/srv/x"}, ("c", "/srv/x")),
    ],
)
def test_a_host_is_named_by_label_then_environment(
    monkeypatch: pytest.MonkeyPatch,
    labels: Mapping[str, str],
    environment: Mapping[str, str],
    expected: tuple[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    place = here(labels)
    assert (place.host, place.root) == expected


# ------------------------------------------------------------------ sorting out
def test_busy_claimed_and_silent_hosts_are_left_out_each_with_its_reason(
    host_tree: HostTree, no_guardian_left: None
) -> None:
    roots = {name: host_tree(name=name) for name in ("free", "busy", "claimed")}
    claim = take_claim(
        roots["claimed"],
        run="7-x",
        owner="ann@other pid 1",
        knobs=["thp/enabled"],
        lease_seconds=30,
        guardian_command=(),
    )
    found = [*InlineInventory(roots).survey(), FoundHost(host="silent", unusable="it did not answer")]
    usable, left_out = sort_out(found, {"busy": 3})
    assert [facts.host for facts in usable] == ["free"]
    assert left_out["busy"] == "it is in run 3"
    assert "run 7-x of ann@other" in left_out["claimed"]
    assert left_out["silent"] == "it did not answer"
    claim.release()
    assert claim_status(roots["claimed"]) is None


def test_where_nothing_is_left_the_error_says_why_the_others_were_left_out() -> None:
    text = (
        "name: x\ndesign: switchback\ncontrol: a\narms: {a: {thp/enabled: never}, b: {thp/enabled: always}}\n"
        "metrics: {primary: memory_used_bytes}\n"
    )
    with pytest.raises(ConfigError, match="left out before: web-1: it is in run 3"):
        plan_over(parse_experiment(text), [], {"web-1": "it is in run 3"}, "sqlite:///none.db")


def test_page_sizes_are_labels_that_a_population_can_ask_for(host_tree: HostTree) -> None:
    labels = host_info(survey(host_tree(), host="a")).labels
    assert labels["thp_2048kB"] == "madvise"  # inherit, through the top level
    assert labels["thp_1048576kB"] == "absent"
    assert host_info(survey(host_tree(name="b", gigantic=True), host="b")).labels["thp_1048576kB"] == "never"


# ------------------------------------------------------------------ nodes
class Looks:
    """Stands in for Ray's tasks: what each node would answer, once it is let."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}

    def start(self, *, node_id: str, labels: Mapping[str, str]) -> str:
        return node_id

    def collect(self, refs: list[str]) -> list[tuple[str, Mapping[str, Any] | None, str]]:
        return [(ref, self.answers[ref], "") for ref in refs if ref in self.answers]

    def answer(self, node_id: str, host: str) -> None:
        self.answers[node_id] = {"host": host, "root": "/", "refused": "", "facts": None, "claim": None}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    made = Looks()
    monkeypatch.setattr(ray_nodes, "collect", made.collect)
    return made


def node(node_id: str, host: str, *, alive: bool = True, head: bool = False, **labels: str) -> dict[str, Any]:
    return {
        "NodeID": node_id,
        "Alive": alive,
        "NodeManagerHostname": host,
        "Resources": {"node:__internal_head__": 1.0} if head else {},
        "Labels": {"ray.io/node-id": node_id, **labels},
        "DeathReason": 0,
        "DeathReasonMessage": "" if alive else "health check failed",
    }


def hosts(nodes: RayNodes) -> list[str]:
    nodes.settle()
    return [found.host for found in nodes.seen()]


def test_head_and_own_node_are_hosts_only_with_a_pool(looks: Looks) -> None:
    for node_id in "abcd":
        looks.answer(node_id, node_id)
    nodes = RayNodes("b", look=looks.start)
    nodes.update([node("a", "a", head=True), node("b", "b"), node("c", "c")])
    assert hosts(nodes) == ["c"]
    nodes = RayNodes("b", look=looks.start)
    nodes.update([node("a", "a", head=True, pool="x"), node("b", "b", pool="x"), node("c", "c")])
    assert hosts(nodes) == ["a", "b", "c"]


def test_a_host_is_found_again_on_the_node_that_its_machine_came_back_as(looks: Looks) -> None:
    looks.answer("old", "web-1")
    nodes = RayNodes("me", look=looks.start)
    nodes.update([node("old", "web-1")])
    nodes.settle()
    assert nodes.where("web-1").node_id == "old"  # type: ignore[union-attr]
    nodes.update([node("old", "web-1", alive=False)])
    assert nodes.where("web-1") is None
    nodes.update([node("old", "web-1", alive=False), node("new", "web-1")])
    assert nodes.where("web-1") is None, "it has not said yet who it is"
    looks.answer("new", "web-1")
    nodes.settle()
    assert nodes.where("web-1").node_id == "new"  # type: ignore[union-attr]
    assert hosts(nodes) == ["web-1"]


def test_two_nodes_of_one_name_are_neither(looks: Looks) -> None:
    looks.answer("a", "web-1")
    looks.answer("b", "web-1")
    nodes = RayNodes("me", look=looks.start)
    nodes.update([node("a", "x"), node("b", "y")])
    nodes.settle()
    (found,) = nodes.seen()
    assert "2 nodes say that they are it" in found.unusable
    assert nodes.where("web-1") is None


def test_a_dead_node_is_listed_and_one_that_was_stopped_is_not(looks: Looks) -> None:
    nodes = RayNodes("me", look=looks.start)
    stopped = {**node("b", "web-2", alive=False), "DeathReason": 1}
    nodes.update([node("a", "web-1", alive=False), stopped])
    (found,) = nodes.seen()
    assert (found.host, found.unusable) == ("web-1", "its Ray node has died: health check failed")


def test_a_node_that_is_slow_to_answer_is_not_called_dead_for_what_it_was_before(looks: Looks) -> None:
    nodes = RayNodes("me", look=looks.start)
    nodes.update([node("old", "web-1", alive=False), node("new", "web-1")])
    nodes.settle()
    (found,) = nodes.seen()
    assert (found.host, found.unusable) == ("web-1", "it has not answered yet")


def test_a_node_that_does_not_answer_is_given_up(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_nodes, "_LOOK_SECONDS", 0.0)
    nodes = RayNodes("me", look=looks.start)
    nodes.update([node("a", "web-1", pool="web")])
    assert nodes.looking
    time.sleep(0.01)
    nodes.settle()
    (found,) = nodes.seen()
    assert not nodes.looking
    assert (found.host, found.labels) == ("web-1", {"pool": "web"})
    assert "did not answer" in found.unusable


# ------------------------------------------------------------------ the link
@pytest.fixture
def deaf() -> Iterator[str]:
    """A head that takes the connection and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.ray
def test_nobody_at_the_address_is_an_error_that_names_it() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    inventory = RayInventory(address)
    try:
        with pytest.raises(RunError, match="no Ray head answers") as refused:
            inventory.survey()
        assert address in str(refused.value)
    finally:
        inventory.close()


@pytest.mark.ray
def test_a_head_that_never_answers_does_not_hang_the_orchestrator(deaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    monkeypatch.setattr(ray_link, "CONNECT_SECONDS", 4.0)
    started = time.monotonic()
    inventory = RayInventory(deaf)
    try:
        with pytest.raises(RunError, match="took longer"):
            inventory.survey()
        fleet = inventory.open(["a"], "1-x")
        from agents.messages import Survey

        fleet.send("a", Survey(), 60.0)
        (answer,) = fleet.receive(0.1)
        assert (answer.host, answer.lost) == ("a", True)
    finally:
        inventory.close()
    assert time.monotonic() - started < 30
