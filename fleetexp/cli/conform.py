"""`fleetexp conform`: does a huge page size behave on this kernel?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fleetexp.cli.options import json_option, store_option

if TYPE_CHECKING:
    from agents.conformance.verdict import ScenarioResult, Trial
    from fleetexp.store.store import Store
    from fleetexp.store.url import Database

FORMATS = ("text", "tap", "json")


@click.command(
    epilog="""
    \b
    Example:
      fleetexp conform --list
      fleetexp conform --size 2MiB
      fleetexp conform --size 1GiB --only allocation --only swap --format tap
    """
)
@click.option("--size", metavar="SIZE", help="The page size: 2MiB, 64KiB, 1048576kB.")
@click.option("--only", metavar="NAME", multiple=True, help="Only this scenario. May be repeated.")
@click.option("--list", "as_list", is_flag=True, help="List the scenarios, and run none.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="What is printed."
)
@click.option(
    "--time-limit",
    "limit_seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    help="For each scenario; by default 30 s, and 60 s for each GiB of a page.",
)
@store_option
@json_option
def conform(
    *,
    size: str | None,
    only: tuple[str, ...],
    as_list: bool,
    form: str,
    limit_seconds: float | None,
    store_url: Database,
    as_json: bool,
) -> None:
    """Try a huge page size on this kernel, scenario by scenario.

    Each scenario runs in a process of its own, checks its data and the kernel's
    counters, and passes, fails or is skipped, with the reason. The size is set
    to 'madvise' meanwhile; whatever happens, this host's settings are put back.
    A kernel with faults may crash, hang or lose data: try it where nothing of
    value runs. Exit code 1 where a scenario failed, 3 where the kernel itself
    complained and the host was given up. Verdicts are stored as they come: a
    spec may require them (requires: {conformance: 1048576kB}).
    """
    from agents.conformance.registry import SCENARIOS

    form = "json" if as_json else form
    if as_list:
        _print_list(form)
        return
    if size is None:
        raise click.UsageError("--size says which page size is tried: --size 2MiB, or --list for the scenarios")
    known = {scenario.name: scenario for scenario in SCENARIOS}
    if strange := [name for name in only if name not in known]:
        raise click.UsageError(f"no scenario is called {', '.join(strange)}: there are {', '.join(known)}")
    chosen = [scenario for scenario in SCENARIOS if not only or scenario.name in only]

    import contextlib

    from agents.conformance.runner import conform as run
    from fleetexp.cli.conform_output import exit_code, listener
    from fleetexp.process_identity import this_process
    from fleetexp.store.store import open_store

    size_kib = _size_kib(size)
    out = listener(form, chosen)
    with contextlib.ExitStack() as opened:
        stored: list[tuple[Store, int]] = []

        def begun(trial: Trial) -> None:
            store = open_store(store_url)  # once the host is held: who may not try leaves no database behind
            opened.callback(store.close)
            stored.append((store, store.begin_conformance(trial, this_process())))

        def told(result: ScenarioResult) -> None:
            store, number = stored[0]
            store.record_conformance(number, result)
            out.told(result)

        found = run(size_kib, chosen, owner=this_process(), limit_seconds=limit_seconds, begun=begun, told=told)
        store, number = stored[0]
        store.end_conformance(number, found.ended_at, found.given_up)
    out.ended(found)
    click.get_current_context().exit(exit_code(found))


def _size_kib(text: str) -> int:
    from fleetexp.experiment.problem import ValueRefused
    from fleetexp.experiment.quantities import parse_size

    try:
        return parse_size(text) // 1024
    except ValueRefused as error:
        raise click.UsageError(f"--size: {error.what}: {error.remedy}") from error


def _print_list(form: str) -> None:
    from agents.conformance.registry import SCENARIOS
    from fleetexp.cli.output import emit_json, print_table

    if form == "json":
        emit_json({"scenarios": [{"name": one.name, "asks": one.asks} for one in SCENARIOS]})
    else:
        print_table(("scenario", "asks"), [(one.name, one.asks) for one in SCENARIOS])
