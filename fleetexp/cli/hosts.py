"""`fleetexp hosts`: which hosts there are, what they are, and what holds them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetexp.cli.options import fleet_options, json_option, root_option, store_option
from fleetexp.cli.output import emit_json, memory, print_table, size, visible, wrapped

if TYPE_CHECKING:
    from agents.messages import HostFacts
    from fleetexp.experiment.population import LeftOut
    from fleetexp.fleets.inventory import FoundHost
    from fleetexp.store.url import Database


@click.command(
    epilog="""
    \b
    Example:
      fleetexp hosts
      fleetexp hosts --fleet ray --address 10.0.0.1:6379 --pool web-a
    """
)
@click.option("--pool", "pools", metavar="POOL", multiple=True, help="Only hosts of this pool; may be given again.")
@click.option(
    "--spec",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Say which of them this experiment leaves out, and by which condition.",
)
@fleet_options
@root_option
@store_option
@json_option
def hosts(
    *,
    pools: tuple[str, ...],
    spec: Path | None,
    fleet: str,
    address: str,
    root: str,
    store_url: Database,
    as_json: bool,
) -> None:
    """List the hosts with what they are and what holds them. Changes nothing.

    A host that does not answer is listed with the reason. Under THP: each page
    size with its setting, a always, m madvise, n never, i inherit.
    """
    from agents.sysroot import FolderRoot
    from fleetexp.cli.plan_screen import taken_away
    from fleetexp.fleets.by_name import FleetChoice, open_inventory

    with contextlib.closing(open_inventory(FleetChoice(name=fleet, address=address), FolderRoot(root))) as inventory:
        found = [one for one in inventory.survey() if not pools or one.labels.get("pool") in pools]
        address = inventory.address
    busy = _busy(store_url, [one.host for one in found])
    left_out = {} if spec is None else _left_out(spec, found)
    by_condition = Counter(left.condition for left in left_out.values())
    if as_json:
        listed = [{**_as_json(one, busy), "left_out": left_out.get(one.host)} for one in found]
        emit_json({"fleet": fleet, "address": address, "left_out_by_condition": by_condition, "hosts": listed})
        return
    if not found:
        click.echo(
            f"no host{' of ' + ', '.join(pools) if pools else ''}: none of the nodes is one (see docs/DEPLOY.md)"
        )
        return
    print_table(
        ["host", "pool", "sku", "kernel", "memory", "THP", "state"],
        [_row(one, busy) for one in found],
        right=frozenset({4}),
    )
    for one in found:
        if reason := _reason(one, busy):
            click.echo(wrapped(visible(f"{one.host}: {reason}")))
        if left := left_out.get(one.host):
            click.echo(wrapped(visible(f"{one.host}: {left.reason}")))
    if left_out:
        click.echo(wrapped(f"{len(left_out)} of {len(found)} hosts left out: {taken_away(by_condition)}"))


def _left_out(spec: Path, found: Sequence[FoundHost]) -> dict[str, LeftOut]:
    """Return for each host that the experiment is not about the first condition that it does not meet."""
    from fleetexp.experiment import load_experiment
    from fleetexp.experiment.schedule import host_info, left_out_of

    return left_out_of(load_experiment(spec), [host_info(one.facts) for one in found if one.facts is not None])


def _busy(store_url: Database, names: Sequence[str]) -> dict[str, int]:
    """Return what the store says of these hosts; nothing where there is no store yet."""
    from fleetexp.errors import BadStoreUrl, StoreError
    from fleetexp.store.store import open_store

    try:
        with contextlib.closing(open_store(store_url, read_only=True)) as store:
            return store.hosts_busy(names)
    except BadStoreUrl:
        raise
    except StoreError:
        return {}


def _row(one: FoundHost, busy: dict[str, int]) -> list[str]:
    labels, facts = one.labels, one.facts
    state = "no" if facts is None or one.unusable else "held" if _reason(one, busy) else "free"
    if facts is None:
        return [one.host, labels.get("pool", ""), labels.get("sku", ""), "", "", "", state]
    return [
        one.host,
        labels.get("pool", ""),
        labels.get("sku", ""),
        facts.kernel,
        memory(facts.memory_total_bytes),
        _thp(facts),
        state,
    ]


def _thp(facts: HostFacts) -> str:
    return " ".join(
        f"{size(thp.size_kib)}:{(thp.effective or thp.enabled)[:1]}"
        for thp in facts.thp_sizes
        if thp.size_kib >= facts.thp_pmd_kib
    )


def _reason(one: FoundHost, busy: dict[str, int]) -> str:
    """Say why a host can't take part now; '' where it can."""
    from fleetexp.fleets.inventory import sort_out

    _, left_out = sort_out([one], busy)
    return left_out.get(one.host, "")


def _as_json(one: FoundHost, busy: dict[str, int]) -> dict[str, Any]:
    return {
        "host": one.host,
        "labels": one.labels,
        "reachable": one.facts is not None,
        "free": not _reason(one, busy),
        "reason": _reason(one, busy),
        "run": busy.get(one.host),
        "claim": one.claim,
        "facts": one.facts,
    }
