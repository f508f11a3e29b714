"""`fleetexp power`: the smallest effect that so many hosts show, and the hosts that an effect needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json, labelled, print_table, visible

if TYPE_CHECKING:
    from analysis.plan import MetricPlan
    from analysis.power import Spread
    from fleetexp.config import Experiment
    from fleetexp.pre_period import KnownSpread

_SIZES = (5, 10, 20, 50, 100, 200, 500)
_EFFECTS = (0.01, 0.02, 0.05, 0.10, 0.20)


def _share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read '20%' or 0.2."""
    if value is None:
        return None
    from fleetexp.config.problem import Refused
    from fleetexp.config.quantities import parse_share

    try:
        return parse_share(float(value) if "%" not in value else value)
    except (Refused, ValueError) as error:
        what = f"{error.what}: {error.remedy}" if isinstance(error, Refused) else f"{value!r} is no share"
        raise click.BadParameter(what, ctx, param) from None


@click.command(
    epilog="""
    \b
    Example:
      fleetexp power --cv 20% --hosts 100 --correlation 0.9 --effect 5.9%
      fleetexp power my.yaml --store postgresql://fleet@db/fleetexp
      fleetexp power --metric memory_used_bytes --effect 2%
    """
)
@click.argument("spec", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--metric", metavar="NAME", help="The metric, if not SPEC's primary one.")
@click.option("--run", "run_id", metavar="RUN", type=click.IntRange(min=1), help="The run whose data count.")
@click.option("--cv", metavar="SHARE", callback=_share, help="Host-to-host SD over the mean, instead of data.")
@click.option(
    "--correlation", metavar="R", type=click.FloatRange(-1, 1), help="Of a host with itself in the pre-period."
)
@click.option("--hosts", metavar="N", type=click.IntRange(min=2), help="Hosts in each arm.")
@click.option("--blocks", metavar="N", type=click.IntRange(min=2), help="Blocks of a switchback on one host instead.")
@click.option("--effect", metavar="SHARE", callback=_share, help="Relative effect to look for, such as 5.9%.")
@click.option("--alpha", metavar="SHARE", callback=_share, help="Error rate; 5%, or SPEC's.")
@click.option("--power", "wanted", metavar="SHARE", default="80%", show_default=True, callback=_share)
@store_option
@json_option
def power(
    *,
    spec: Path | None,
    metric: str | None,
    run_id: int | None,
    cv: float | None,
    correlation: float | None,
    hosts: int | None,
    blocks: int | None,
    effect: float | None,
    alpha: float | None,
    wanted: float,
    store_url: str,
    as_json: bool,
) -> None:
    """Show how small an effect so many hosts can show.

    Or how many hosts an effect needs, before anything runs.
    The spread of hosts is that of the newest run in the store with the metric,
    adjusted for the pre-period; or --cv and --correlation say it. Of a
    switchback (--blocks, or SPEC's design) the spread is that of its contrasts.
    """
    from fleetexp.config import load_experiment

    experiment = None if spec is None else load_experiment(spec)
    if cv is None and experiment is None and metric is None:
        raise click.UsageError("name a SPEC or a --metric whose data are stored, or give --cv")
    if cv is not None and cv <= 0:
        raise click.BadParameter("the spread is more than 0", param_hint="--cv")
    if effect is not None and effect <= 0:
        raise click.BadParameter("no number of hosts shows an effect of 0", param_hint="--effect")
    if cv is not None and (run_id is not None or metric is not None):
        raise click.UsageError("--run and --metric name the data that --cv replaces: give one of them")
    paired = blocks is not None or (experiment is not None and experiment.switchback and hosts is None)
    if hosts is not None and blocks is not None:
        raise click.UsageError("--hosts and --blocks exclude each other: hosts in two arms, or blocks on one host")
    level = alpha if alpha is not None else experiment.alpha if experiment is not None else 0.05
    if experiment is not None and effect is None:
        effect = experiment.metrics.expected
    if experiment is not None and paired and blocks is None:
        blocks = experiment.blocks // (2 if experiment.order == "abba" else 1)
    if cv is not None:
        from analysis.power import Spread

        spread = Spread(mean=1.0, sd=cv, correlation=correlation, hosts=0)
        source, number = "given on the command line", None
    else:
        known = _stored(experiment, metric, store_url, run_id, paired=paired)
        spread, source, number = known.spread, known.source, known.run_id
    found = _answer(
        spread,
        paired=paired,
        units=blocks if paired else hosts,
        effect=effect,
        alpha=level,
        wanted=wanted,
        ratio=_ratio(experiment),
    )
    name = metric or (experiment.metrics.primary if experiment is not None and cv is None else None)
    found = {"metric": name, "source": source, "run_id": number, **found}
    if as_json:
        emit_json(found)
        return
    _show(found)


def _ratio(experiment: Experiment | None) -> float:
    """Treated hosts per control, of the smallest treatment arm."""
    if experiment is None or experiment.switchback:
        return 1.0
    parts = experiment.ratio
    return min(part for arm, part in parts.items() if arm != experiment.control) / parts[experiment.control]


def _stored(
    experiment: Experiment | None, metric: str | None, store_url: str, run_id: int | None, *, paired: bool
) -> KnownSpread:
    """Return what the store knows; RunError where it knows nothing."""
    from fleetexp.errors import RunError
    from fleetexp.pre_period import newest_spread, reading_store

    plan = _metric_plan(experiment, metric)
    with reading_store(store_url) as store:
        known = None if store is None else newest_spread(store, plan, contrasts=paired, run_id=run_id)
    if known is None:
        what = "blocks of a switchback" if paired else "at least 4 hosts"
        where = "run " + str(run_id) if run_id is not None else "no run in the store"
        raise RunError(
            f"{where} {'does not show' if run_id is not None else 'shows'} {plan.name} on {what}",
            where="--store",
            remedy="give the spread with --cv, or run a baseline first",
        )
    return known


def _metric_plan(experiment: Experiment | None, metric: str | None) -> MetricPlan:
    from analysis.plan import MetricPlan, Role
    from fleetexp.config import analysis_plan

    if experiment is not None:
        plans = {plan.name: plan for plan in analysis_plan(experiment).metrics}
        name = metric or experiment.metrics.primary
        if name in plans:
            return plans[name]
    return MetricPlan(name=metric or "", unit="", role=Role.PRIMARY)


def _answer(
    spread: Spread, *, paired: bool, units: int | None, effect: float | None, alpha: float, wanted: float, ratio: float
) -> dict[str, Any]:
    """Everything that is shown. Effects are relative to the mean; `adjusted` is with the pre-period."""
    from analysis.errors import NotEnoughData
    from analysis.power import detectable, hosts_needed, paired_detectable, paired_power, units_needed
    from analysis.power import power as power_of

    if spread.mean == 0 or spread.sd == 0:
        raise NotEnoughData(
            "the metric's mean or its spread is 0: no relative effect can be planned", "power", "give --cv"
        )
    mean = abs(spread.mean)
    sds = {"unadjusted": spread.sd / mean}
    if spread.correlation is not None and abs(spread.correlation) < 1 and not paired:
        sds["adjusted"] = spread.adjusted_sd / mean

    def arms(control: int) -> tuple[int, int]:
        return control, max(2, round(control * ratio))

    sizes = sorted({*_SIZES, *([units] if units else [])})
    effects = sorted({*_EFFECTS, *([effect] if effect else [])})
    smallest = {
        size: {
            name: paired_detectable(sd, size, alpha, wanted) if paired else detectable(sd, arms(size), alpha, wanted)
            for name, sd in sds.items()
        }
        for size in sizes
    }
    needed = {
        wish: {
            name: [units_needed(wish, sd, alpha, wanted)]
            if paired
            else list(hosts_needed(wish, sd, alpha, wanted, ratio))
            for name, sd in sds.items()
        }
        for wish in effects
    }
    chance = None
    if units and effect:
        chance = {
            name: paired_power(effect, sd, units, alpha) if paired else power_of(effect, sd, arms(units), alpha)
            for name, sd in sds.items()
        }
    return {
        "unit": "block" if paired else "host",
        "mean": spread.mean,
        "cv": spread.sd / mean,
        "correlation": spread.correlation,
        "alpha": alpha,
        "power": wanted,
        "treated_per_control": ratio,
        "units": units,
        "effect": effect,
        "chance": chance,
        "detectable": [{"units": size, **row} for size, row in smallest.items()],
        "needed": [{"effect": wish, **row} for wish, row in needed.items()],
    }


def _show(found: dict[str, Any]) -> None:
    paired = found["unit"] == "block"
    adjusted = "adjusted" in found["detectable"][0]
    of = "of the contrasts of blocks" if paired else "from host to host"
    foretold = f", correlation {found['correlation']:.2f} with the pre-period" if adjusted else ""
    if found["metric"]:
        click.echo(labelled("metric", visible(f"{found['metric']}, mean {found['mean']:.4g}")))
    click.echo(labelled("spread", f"SD {found['cv']:.1%} of the mean {of}{foretold}".replace("%", " %")))
    click.echo(labelled("known from", visible(found["source"])))
    click.echo(
        labelled(
            "test",
            f"two-sided at {found['alpha']:.3g}, seen with a probability of {found['power']:.0%}".replace("%", " %"),
        )
    )
    noun = "blocks" if paired else "hosts in each arm" if found["treated_per_control"] == 1 else "control hosts"
    headers = [noun, "smallest effect seen", *(["with the pre-period"] if adjusted else [])]
    names = ["unadjusted", *(["adjusted"] if adjusted else [])]
    click.echo()
    print_table(
        headers,
        [
            [_mark(row["units"], found["units"]), *(_percent(row[name]) for name in names)]
            for row in found["detectable"]
        ],
        right=frozenset(range(3)),
    )
    click.echo()
    needs = (
        "blocks needed"
        if paired
        else "hosts in each arm"
        if found["treated_per_control"] == 1
        else "control + treated hosts"
    )
    print_table(
        ["effect", needs, *(["with the pre-period"] if adjusted else [])],
        [
            [_percent(row["effect"]), *(" + ".join(map(str, _sizes(row[name], found))) for name in names)]
            for row in found["needed"]
        ],
        right=frozenset(range(3)),
    )
    if found["chance"]:
        units = f"{found['units']} {'blocks' if paired else 'hosts in each arm'}"
        best = found["chance"].get("adjusted")
        more = f", with the pre-period {_chance(best)}" if best is not None else ""
        click.echo()
        said = f"an effect of {_percent(found['effect'])} on {units} is seen with a probability of "
        click.echo(labelled("answer", said + _chance(found["chance"]["unadjusted"]) + more))


def _sizes(needed: list[int], found: dict[str, Any]) -> list[int]:
    return needed if found["treated_per_control"] != 1 else needed[:1]


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %" if share < 10 else f"{share * 100:.0f} %"


def _chance(share: float) -> str:
    return "over 99 %" if share > 0.99 else f"{share * 100:.0f} %"


def _mark(size: int, asked: int | None) -> str:
    return f"> {size}" if size == asked else str(size)
