"""Options that several commands share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from fleetexp.cli.errors import JSON_WANTED
from fleetexp.fleets.fleet_names import FLEETS, installed_fleets
from fleetexp.secret import Secret
from fleetexp.store.url import clean, parse_url

if TYPE_CHECKING:
    from fleetexp.store.url import Database

DEFAULT_STORE = "sqlite:///fleetexp.db"

_OF_SIMULATION = {"host_count", "seed", "effects", "actors"}

F = TypeVar("F", bound=Callable[..., Any])


class FleetName(click.Choice[str]):
    """A fleet of ours, or of an installed package: these are looked up only for a name that is not ours."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in FLEETS and value in installed_fleets():
            return value
        return super().convert(value, param, ctx)


def store_option(function: F, *, read: Callable[[str], object] = parse_url) -> F:
    """Add --store: the database of runs. Its URL is read here, at the edge: a command is given a `Database`."""
    return click.option(
        "--store",
        "store_url",
        metavar="URL",
        envvar="FLEETEXP_STORE",
        default=DEFAULT_STORE,
        show_default=True,
        show_envvar=True,
        callback=lambda _ctx, _param, url: read(clean(url) or DEFAULT_STORE),
        help="The database of runs.",
    )(function)


def unread_store_option(function: F) -> F:
    """Add --store to a command that may not need one, and then must not stumble over its URL: it is a `Secret`."""
    return store_option(function, read=Secret)


def fleet_options(function: F) -> F:
    """Add --fleet and --address: which hosts are meant, and what is asked for them."""
    kind = click.option(
        "--fleet",
        type=FleetName(FLEETS),
        default="local",
        show_default=True,
        help="local: this host, its agent a Ray actor. inline: this host, its agent in this process. "
        "ray: the nodes of a Ray cluster. simulated: hosts in memory; nothing real is touched.",
    )
    return kind(address_option(function))


def address_option(function: F) -> F:
    """Add --address: the head of the Ray cluster."""
    return click.option(
        "--address",
        metavar="HOST:PORT",
        envvar="FLEETEXP_RAY_ADDRESS",
        default="",
        show_envvar=True,
        help="The head of the Ray cluster; its token is read from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.",
    )(function)


def power_option(function: F) -> F:
    """Add --acknowledge-power: go on although the expected effect will probably not be seen."""
    return click.option(
        "--acknowledge-power", is_flag=True, help="Run although metrics.expected is smaller than what can be seen."
    )(function)


def simulation_options(function: F, *, hosts: str = "--hosts") -> F:
    """Add --hosts, --seed, --effect and --actors: of a simulated fleet; `hosts`: the first one's name."""
    for option in (
        click.option(
            "--actors",
            metavar="N",
            type=click.IntRange(min=0),
            default=0,
            help="Spread simulated hosts over so many Ray actors; by default they are in this process.",
        ),
        click.option(
            "--effect",
            "effects",
            metavar="METRIC=PERCENT",
            multiple=True,
            help="Plant an effect of the treatment on simulated hosts, as 'throughput=+5.9%'. May be repeated.",
        ),
        click.option("--seed", metavar="N", type=click.IntRange(min=0), default=1, help="Of the simulation."),
        click.option(
            hosts,
            "host_count",
            metavar="N",
            type=click.IntRange(min=1, max=100_000),
            default=20,
            show_default=True,
            help="How many hosts to simulate.",
        ),
    ):
        function = option(function)
    return function


def preparing(function: Callable[..., None], *, hosts: str = "--hosts", preflight: bool = False) -> Callable[..., None]:
    """Add SPEC and every option that says what is to be run, where: the command is given it `prepared`."""

    @functools.wraps(function)
    def command(
        *,
        spec: Path,
        fleet: str,
        address: str,
        acknowledge_power: bool,
        host_count: int,
        seed: int,
        effects: tuple[str, ...],
        actors: int,
        root: str,
        store_url: Database,
        as_json: bool,
        **others: object,
    ) -> None:
        from fleetexp.api import prepare
        from fleetexp.simulated import WORDS

        _refuse_simulation_options(fleet)
        simulated = fleet == "simulated"
        prepared = prepare(
            spec,
            store=store_url,
            fleet=fleet,
            address=address,
            root=root,
            acknowledge_power=acknowledge_power,
            preflight=preflight,
            hosts=host_count if simulated else None,
            seed=seed if simulated else None,
            effects=effects,
            actors=actors,
        )
        if simulated:
            click.echo(f"{WORDS}: nothing real is touched, and no number below tells of a real host\n", err=as_json)
        with contextlib.closing(prepared):
            function(prepared=prepared, as_json=as_json, **others)

    named = click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
    below = root_option(store_option(json_option(command)))
    return named(fleet_options(power_option(simulation_options(below, hosts=hosts))))


def _refuse_simulation_options(fleet: str) -> None:
    """Refuse options of a simulation where the fleet is a real one: a usage error that names them."""
    if fleet == "simulated":
        return
    ctx = click.get_current_context()
    options = {one.name: one.opts[0] for one in ctx.command.params if one.name in _OF_SIMULATION}
    given = [
        option for name, option in options.items() if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: only for --fleet simulated, and this one is {fleet}")


def json_option(function: F) -> F:
    """Add --json: one JSON object on stdout, and nothing else there."""
    return click.option(
        "--json", "as_json", is_flag=True, callback=_remember, help="Print one JSON object and nothing else."
    )(function)


def root_option(function: F) -> F:
    """Add --root: where the host's files are, for a mounted image or a copied tree."""
    return click.option(
        "--root",
        metavar="FOLDER",
        default="/",
        show_default=True,
        type=click.Path(exists=True, file_okay=False),
        help="Where the host's /sys and /proc are.",
    )(function)


def metrics_page_options(function: F) -> F:
    """Add --metrics-port and --metrics-address: the run's own metrics, for a Prometheus server to fetch."""
    address = click.option(
        "--metrics-address",
        metavar="ADDRESS",
        default="127.0.0.1",
        show_default=True,
        help="Where that page is served: this machine only, unless said otherwise.",
    )
    port = click.option(
        "--metrics-port",
        metavar="PORT",
        type=click.IntRange(0, 65535),
        help="Serve the run's own metrics there as OpenMetrics (0: any free port).",
    )
    return port(address(function))


def _remember(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    ctx.meta[JSON_WANTED] = value
    return value
