"""`fleetexp power`: the smallest effect that a design decides on, and the hosts or blocks that an effect needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json, labelled, print_table, visible

if TYPE_CHECKING:
    from analysis.plan import MetricPlan
    from analysis.power import Spread
    from analysis.rule_power import Shape
    from fleetexp.earlier_runs import KnownSpread
    from fleetexp.experiment import Experiment
    from fleetexp.store.url import Database

_SIZES = (5, 10, 20, 50, 100, 200, 500)
Values: TypeAlias = tuple[float, ...]
_EFFECTS = (0.01, 0.02, 0.05, 0.10, 0.20)


def _share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read '20%' or 0.2."""
    if value is None:
        return None
    from fleetexp.experiment.problem import ValueRefused
    from fleetexp.experiment.quantities import parse_share

    try:
        return parse_share(float(value) if "%" not in value else value)
    except (ValueRefused, ValueError) as error:
        what = f"{error.what}: {error.remedy}" if isinstance(error, ValueRefused) else f"{value!r} is not a share"
        raise click.BadParameter(what, ctx, param) from None


@click.command(
    epilog="""
    \b
    Example:
      fleetexp power --cv 20% --hosts 100 --correlation 0.9 --effect 5.9%
      fleetexp power my.yaml --store postgresql://fleet@db/fleetexp
      fleetexp power --cv 20% --hosts 12 --arms 3 --looks 3 --strata 2
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
@click.option("--arms", metavar="N", type=click.IntRange(min=2), help="Arms, the control included; 2, or SPEC's.")
@click.option(
    "--looks", metavar="N", type=click.IntRange(1, 50), help="Planned looks, the last included; 1, or SPEC's."
)
@click.option("--strata", metavar="N", type=click.IntRange(min=1), help="Strata of equal size.  [default: 1]")
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
    arms: int | None,
    looks: int | None,
    strata: int | None,
    effect: float | None,
    alpha: float | None,
    wanted: float,
    store_url: Database,
    as_json: bool,
) -> None:
    """Show how small an effect so many hosts can show.

    Or how many hosts an effect needs, before anything runs. The power is that
    of the whole decision: its tests at the last of the planned looks, for each
    treatment, and no stratum with harm as large as the gain.

    The spread of hosts is that of the newest run in the store with the metric,
    adjusted for the pre-period; or --cv and --correlation say it. Of a
    switchback (--blocks, or SPEC's design) the spread is that of its contrasts.
    """
    from fleetexp.experiment import load_experiment

    experiment = None if spec is None else load_experiment(spec)
    if cv is None and experiment is None and metric is None:
        raise click.UsageError("name a SPEC or a --metric whose data are stored, or give --cv")
    if cv is not None and cv <= 0:
        raise click.BadParameter("the spread is more than 0", param_hint="--cv")
    if effect is not None and effect <= 0:
        raise click.BadParameter("no number of hosts shows an effect of 0", param_hint="--effect")
    if correlation is not None and not abs(correlation) < 1:
        raise click.BadParameter("no pre-period foretells hosts without error", param_hint="--correlation")
    if alpha is not None and not 0 < alpha < 0.5:
        raise click.BadParameter("it is above 0 and below 50 %, such as 5%", param_hint="--alpha")
    level = alpha or (0.05 if experiment is None else experiment.alpha)
    if wanted is None or not level < wanted < 1:
        raise click.BadParameter(f"it is above alpha, {level:.3g}, and below 1, such as 80%", param_hint="--power")
    if cv is not None and (run_id is not None or metric is not None):
        raise click.UsageError("--run and --metric name the data that --cv replaces: give one of them")
    paired = blocks is not None or (experiment is not None and experiment.switchback and hosts is None)
    if hosts is not None and blocks is not None:
        raise click.UsageError("--hosts and --blocks exclude each other: hosts in two arms, or blocks on one host")
    if paired and strata is not None:
        raise click.UsageError("--strata is for hosts in arms: every host of a switchback sees every arm")
    if experiment is not None and effect is None:
        effect = experiment.metrics.expected
    if experiment is not None and paired and blocks is None:
        from fleetexp.control.planned_power import units_of

        blocks = units_of(experiment)
    if cv is not None:
        from analysis.power import Spread

        spread, source, number = Spread(mean=1.0, sd=cv, correlation=correlation, hosts=0), "the command line", None
    else:
        known = _stored(experiment, metric, store_url, run_id, paired=paired)
        spread, source, number = known.spread, f"{known.source}{known.doubt}", known.run_id
    found = _answer(
        spread,
        _shape(experiment, paired=paired, arms=arms, looks=looks, strata=strata, alpha=alpha),
        units=blocks if paired else hosts,
        effect=effect,
        wanted=wanted,
        ratio=_ratio(experiment),
    )
    name = metric or (experiment.metrics.primary if experiment is not None and cv is None else None)
    found = {"metric": name, "source": source, "run_id": number, **found}
    if as_json:
        emit_json(found)
        return
    _show(found)


def _shape(
    experiment: Experiment | None,
    *,
    paired: bool,
    arms: int | None,
    looks: int | None,
    strata: int | None,
    alpha: float | None,
) -> Shape:
    """Everything of the design but its size: from the options, else from SPEC. Looks are taken as evenly spaced."""
    from analysis.rule_power import ParallelShape, SwitchbackShape

    given = {"arms": 2, "looks": 1, "alpha": 0.05}
    if experiment is not None:
        given = {"arms": len(experiment.arm_names), "looks": len(experiment.stages) or 1, "alpha": experiment.alpha}
    looks = looks or int(given["looks"])
    comparisons, fractions = (arms or int(given["arms"])) - 1, tuple((look + 1) / looks for look in range(looks))
    level = given["alpha"] if alpha is None else alpha
    if paired:
        return SwitchbackShape(blocks=1, comparisons=comparisons, fractions=fractions, alpha=level)
    return ParallelShape(strata=((1, 1),) * (strata or 1), comparisons=comparisons, fractions=fractions, alpha=level)


def _ratio(experiment: Experiment | None) -> float:
    """Treated hosts per control, of the smallest treatment arm."""
    if experiment is None or experiment.switchback:
        return 1.0
    parts = experiment.ratio
    return min(part for arm, part in parts.items() if arm != experiment.control) / parts[experiment.control]


def _stored(
    experiment: Experiment | None, metric: str | None, store_url: Database, run_id: int | None, *, paired: bool
) -> KnownSpread:
    """Return what the store knows; RunError where it knows nothing."""
    from fleetexp.earlier_runs import newest_spread, reading_store
    from fleetexp.errors import RunError

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
    from fleetexp.experiment import analysis_plan

    if experiment is not None:
        plans = {plan.name: plan for plan in analysis_plan(experiment).metrics}
        name = metric or experiment.metrics.primary
        if name in plans:
            return plans[name]
    return MetricPlan(name=metric or "", unit="", role=Role.PRIMARY)


def _answer(
    spread: Spread, design: Shape, *, units: int | None, effect: float | None, wanted: float, ratio: float
) -> dict[str, Any]:
    """Everything that is shown. Effects are relative to the mean; `adjusted` is with the pre-period."""
    from analysis.errors import NotEnoughData
    from analysis.rule_power import (
        FEWEST_VALUES,
        SwitchbackShape,
        obstacle,
        obstacle_words,
        rule_detectable,
        rule_power,
    )

    if spread.mean == 0 or spread.sd == 0:
        raise NotEnoughData(
            "the metric's mean or its spread is 0: no relative effect can be planned", "power", "give --cv"
        )
    sd, paired = spread.sd / abs(spread.mean), isinstance(design, SwitchbackShape)
    values = spread.values if len(spread.values) >= FEWEST_VALUES else ()
    designs: dict[str, Shape] = {"unadjusted": design}
    if not isinstance(design, SwitchbackShape) and spread.correlation is not None and abs(spread.correlation) < 1:
        designs["adjusted"] = replace(design, correlation=spread.correlation)
    sizes = sorted({*_SIZES, *([units] if units else [])})
    effects = sorted({*_EFFECTS, *([effect] if effect else [])})
    smallest = [
        {
            "units": size,
            **{name: rule_detectable(sd, _sized(of, size, ratio), wanted, values) for name, of in designs.items()},
            "obstacle": obstacle(_sized(design, size, ratio)),
            "why": obstacle_words(_sized(design, size, ratio)),
        }
        for size in sizes
    ]
    needed = [
        {
            "effect": wish,
            **{name: _needed(of, sd, wish, ratio=ratio, wanted=wanted, values=values) for name, of in designs.items()},
        }
        for wish in effects
    ]
    chance = None
    if units and effect:
        chance = {name: rule_power(effect, sd, _sized(of, units, ratio), values) for name, of in designs.items()}
    return {
        "unit": "block" if paired else "host",
        "mean": spread.mean,
        "cv": sd,
        "correlation": spread.correlation,
        "alpha": design.alpha,
        "treatments": design.comparisons,
        "looks": len(design.fractions),
        "strata": 1 if isinstance(design, SwitchbackShape) else len(design.strata),
        "power": wanted,
        "treated_per_control": ratio,
        "units": units,
        "effect": effect,
        "chance": chance,
        "detectable": smallest,
        "needed": needed,
    }


def _sized(design: Shape, size: int, ratio: float) -> Shape:
    """The design with so many control hosts, or blocks."""
    from analysis.rule_power import SwitchbackShape

    if isinstance(design, SwitchbackShape):
        return replace(design, blocks=size)
    return design.resized(size, max(1, round(size * ratio)))


def _needed(design: Shape, sd: float, effect: float, *, ratio: float, wanted: float, values: Values) -> list[int]:
    from analysis.rule_power import SwitchbackShape, rule_blocks_needed, rule_hosts_needed

    if isinstance(design, SwitchbackShape):
        return [rule_blocks_needed(effect, sd, design, wanted, values)]
    return list(rule_hosts_needed(effect, sd, design, ratio, wanted, values))


def _show(found: dict[str, Any]) -> None:
    paired = found["unit"] == "block"
    adjusted = "adjusted" in found["detectable"][0]
    even = found["treated_per_control"] == 1
    of = "of the contrasts of blocks" if paired else "from host to host"
    foretold = f", correlation {found['correlation']:.2f} with the pre-period" if adjusted else ""
    if found["metric"]:
        click.echo(labelled("metric", visible(f"{found['metric']}, mean {found['mean']:.4g}")))
    click.echo(labelled("spread", f"SD {found['cv']:.1%} of the mean {of}{foretold}".replace("%", " %")))
    click.echo(labelled("known from", visible(found["source"])))
    click.echo(labelled("rule", _rule(found)))
    click.echo(labelled("power", f"of the whole decision: {_chance(found['power'])}"))
    names = ["unadjusted", *(["adjusted"] if adjusted else [])]
    noun = "blocks" if paired else "hosts in each arm" if even else "control hosts"
    click.echo()
    print_table(
        [noun, "smallest effect seen", *(["with the pre-period"] if adjusted else [])],
        [[_mark(row["units"], found["units"]), *(_effect(row[name]) for name in names)] for row in found["detectable"]],
        right=frozenset(range(3)),
    )
    whys = [row["why"] for row in found["detectable"] if row["why"]]
    if whys:
        click.echo()
    for why in whys:
        click.echo(labelled("no decision", why))
    click.echo()
    needs = "blocks needed" if paired else "hosts in each arm" if even else "control + treated hosts"
    print_table(
        ["effect", needs, *(["with the pre-period"] if adjusted else [])],
        [
            [_percent(row["effect"]), *(" + ".join(map(str, row[name][:1] if even else row[name])) for name in names)]
            for row in found["needed"]
        ],
        right=frozenset(range(3)),
    )
    if found["chance"]:
        click.echo()
        click.echo(labelled("answer", _said(found, noun)))


def _said(found: dict[str, Any], noun: str) -> str:
    """The probability that was asked for, or why there is none."""
    row = next(row for row in found["detectable"] if row["units"] == found["units"])
    if row["why"]:
        return f"power 0, whatever the effect: cannot decide, {row['why']}"
    best = found["chance"].get("adjusted")
    more = "" if best is None else f", with the pre-period {_chance(best)}"
    said = f"an effect of {_percent(found['effect'])} on {found['units']} {noun} is seen with a probability of "
    return said + _chance(found["chance"]["unadjusted"]) + more


def _rule(found: dict[str, Any]) -> str:
    """What has to agree for an effect to be seen."""
    from analysis.inference import FEW_UNITS

    few = "blocks" if found["unit"] == "block" else "hosts in an arm"
    said = f"t-test, and with fewer than {FEW_UNITS} {few} the randomisation test too; alpha {found['alpha']:.3g}"
    if found["treatments"] > 1:
        said += f" over {found['treatments']} treatments"
    if found["looks"] > 1:
        said += f", at the last of {found['looks']} looks"
    if found["strata"] > 1:
        said += f"; in none of {found['strata']} strata harm as large as the gain"
    return said


def _effect(share: float | None) -> str:
    return "none" if share is None else _percent(share)


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %" if share < 10 else f"{share * 100:.0f} %"


def _chance(share: float) -> str:
    return "over 99 %" if share > 0.99 else f"{share * 100:.0f} %"


def _mark(size: int, asked: int | None) -> str:
    return f"> {size}" if size == asked else str(size)
