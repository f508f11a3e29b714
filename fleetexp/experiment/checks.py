"""What must agree between the parts of a spec. Each check yields (key path, what, remedy)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from itertools import pairwise
from typing import TypeAlias
from urllib.parse import urlsplit

from agents.catalogue import FOR_A_SERVICE, find_foreign, owner_of
from agents.workloads.host_pages import Backing
from agents.workloads.memory import RegionOptions
from agents.workloads.option import KIB
from agents.workloads.options import parse_options
from analysis.assignment_method import own_methods
from fleetexp.experiment.document import Path
from fleetexp.experiment.knob_names import pool_of
from fleetexp.experiment.metrics import analysis_plan, better, known, nearest_metrics, worse
from fleetexp.experiment.model import Experiment, Stage
from fleetexp.experiment.population import parse_conditions
from fleetexp.experiment.problem import choose
from fleetexp.experiment.quantities import format_duration, format_size
from fleetexp.experiment.sources import source_problems

Finding: TypeAlias = tuple[Path, str, str]

FEWEST_BLOCKS = 6
ABBA_ARMS = 2


def find_problems(experiment: Experiment) -> Iterator[Finding]:
    """Yield everything for which the experiment must not start."""
    yield from _population(experiment)
    yield from _arms(experiment)
    yield from _switchback(experiment) if experiment.switchback else _parallel(experiment)
    yield from _holdout(experiment)
    yield from _stages(experiment)
    yield from _periods(experiment)
    yield from _workload(experiment)
    yield from _metrics(experiment)
    yield from _guardrails(experiment)
    yield from _trade(experiment)


def warnings_of(experiment: Experiment) -> tuple[str, ...]:
    """Return what is legal and unwise."""
    out = []
    if experiment.switchback and experiment.blocks < FEWEST_BLOCKS:
        out.append(
            f"{experiment.blocks} blocks can't show an effect: nothing is called significant below {FEWEST_BLOCKS}; "
            f"set periods.blocks to {FEWEST_BLOCKS} or more"
        )
    if experiment.switchback and experiment.periods.washout == 0:
        out.append("without a washout one arm's memory is measured under the next; set periods.washout")
    if experiment.workload is not None and experiment.workload.never_restarted:
        out.append(
            "the service is never restarted: memory that it has already faulted in doesn't see the arm; "
            "set workload.restart to on_apply"
        )
    return tuple(out)


def _population(experiment: Experiment) -> Iterator[Finding]:
    for label, text in experiment.population.where.items():
        try:
            parse_conditions(text, label)
        except ValueError as error:
            yield ("population", "where", label), str(error), "only of 'kernel' a version may hold words; else use '=='"


def _arms(experiment: Experiment) -> Iterator[Finding]:
    arms = experiment.arms
    if experiment.control not in arms:
        yield (
            ("control",),
            f"no arm is called {experiment.control!r}, and one must be the control",
            f"call an arm 'control', or name one: 'control: ARM'; {choose(experiment.control, arms, noun='arm')}",
        )
    if len(arms) < 2:
        yield ("arms",), "there is nothing to compare", "write the control and at least one other arm"
    first_to_do: dict[Hashable, str] = {}
    for arm in arms:
        if (first := first_to_do.setdefault(_what_it_does(experiment, arm), arm)) != arm:
            yield ("arms", arm), f"the arm does just what {first!r} does", "set a knob differently, or drop the arm"


def _what_it_does(experiment: Experiment, arm: str) -> Hashable:
    workload = experiment.workload_for(arm)
    options = () if workload is None else tuple(sorted(workload.options.items()))
    return tuple(sorted(experiment.arms[arm].items())), options


def _switchback(experiment: Experiment) -> Iterator[Finding]:
    assignment = experiment.assignment
    for key in ("ratio", "method", "balance", "accept", "largest_difference", "max_draws"):
        if getattr(assignment, key):
            yield ("assignment", key), "a switchback gives every arm to every host", f"drop {key}"
    if experiment.order == "abba":
        if len(experiment.arms) != ABBA_ARMS:
            yield ("assignment", "order"), f"abba takes two arms, here are {len(experiment.arms)}", "use 'pairs'"
        if experiment.blocks % 2:
            what = f"abba takes blocks two by two, {experiment.blocks} is odd"
            yield ("periods", "blocks"), what, f"write {experiment.blocks + 1}"


def _parallel(experiment: Experiment) -> Iterator[Finding]:
    assignment, periods = experiment.assignment, experiment.periods
    for name in assignment.ratio or ():
        if name not in experiment.arms:
            yield ("assignment", "ratio", name), f"no arm is called {name!r}", choose(name, experiment.arms, noun="arm")
    if assignment.ratio is not None and (missing := [arm for arm in experiment.arms if arm not in assignment.ratio]):
        yield ("assignment", "ratio"), f"no part is given for {', '.join(missing)}", "name every arm, the control too"
    yield from _balance(experiment)
    if assignment.order is not None:
        yield ("assignment", "order"), "order belongs to a switchback", "drop it"
    for key in ("measure", "blocks"):
        if getattr(periods, key) is not None:
            remedy = "drop it: a parallel design measures while its stages hold"
            yield ("periods", key), f"{key} belongs to a switchback", remedy
    if not experiment.stages:
        remedy = "write for example 'stages: [{hosts: 2, hold: 10m}, {share: 100%, hold: 24h}]'"
        yield ("stages",), "a parallel design grows in stages, and there are none", remedy


def _balance(experiment: Experiment) -> Iterator[Finding]:
    """What the methods that look at hosts need, and what the others can't use."""
    assignment, method = experiment.assignment, experiment.method
    if method.balances and not assignment.balance:
        remedy = "write for example 'balance: [memory]', or the name of a metric of an earlier run"
        yield ("assignment", "method"), f"{method.name} needs something to balance", remedy
    if not method.balances and assignment.balance:
        use = " or ".join(name for name, one in own_methods().items() if one.balances)
        yield ("assignment", "balance"), f"{method.name} balances nothing", f"use method: {use}, or drop it"
    for name, times in Counter(assignment.balance).items():
        if times > 1:
            yield ("assignment", "balance"), f"{name} stands {times} times", "name it once"
    if not method.by_rule:
        for key in ("accept", "largest_difference", "max_draws"):
            if getattr(assignment, key) is not None:
                yield ("assignment", key), f"{key} belongs to rerandomise", "drop it, or write method: rerandomise"
    elif assignment.accept is not None and assignment.largest_difference is not None:
        yield (
            ("assignment", "accept"),
            "a draw is accepted by one rule, here are two",
            "keep accept or largest_difference",
        )
    if method.paired and len(set(experiment.ratio.values())) > 1:
        yield ("assignment", "ratio"), "matched hosts come to one of each arm", "drop ratio, or use method: rerandomise"


def _holdout(experiment: Experiment) -> Iterator[Finding]:
    assignment = experiment.assignment
    if assignment.holdout_salt is not None and assignment.holdout is None:
        yield ("assignment", "holdout_salt"), "a salt without a holdout holds nobody out", "write 'holdout: 10%' too"


def _stages(experiment: Experiment) -> Iterator[Finding]:
    for index, stage in enumerate(experiment.stages):
        if (stage.hosts is None) == (stage.share is None):
            yield ("stages", index), "a stage has either hosts or share", "write '{hosts: 2, hold: 10m}'"
        elif not experiment.switchback and stage.hold <= experiment.sample_every_seconds:
            what = f"the stage holds for {format_duration(stage.hold)}, no longer than one sample takes"
            yield ("stages", index, "hold"), what, f"hold for more than {_every(experiment)}"
    for index, (before, after) in enumerate(pairwise(experiment.stages), start=1):
        if (size := _not_larger(before, after)) is not None:
            yield ("stages", index, size), "the stage is no larger than the one before it", "let stages grow"


def _not_larger(before: Stage, after: Stage) -> str | None:
    if before.hosts is not None and after.hosts is not None and after.hosts <= before.hosts:
        return "hosts"
    if before.share is not None and after.share is not None and after.share <= before.share:
        return "share"
    return None


def _periods(experiment: Experiment) -> Iterator[Finding]:
    every = experiment.sample_every_seconds
    lengths = {"baseline": experiment.periods.baseline}
    if experiment.switchback:
        lengths["measure"] = experiment.measure_seconds
    for key, seconds in lengths.items():
        if 0 < seconds <= every:
            what = f"{format_duration(seconds)} is no longer than one sample takes ({_every(experiment)})"
            yield ("periods", key), what, "lengthen the period, or shorten sample_every"


def _every(experiment: Experiment) -> str:
    return format_duration(experiment.sample_every_seconds)


def _workload(experiment: Experiment) -> Iterator[Finding]:
    workload = experiment.workload
    if workload is None:
        return
    for arm in workload.per_arm:
        if arm not in experiment.arms:
            yield ("workload", "per_arm", arm), f"no arm is called {arm!r}", choose(arm, experiment.arms, noun="arm")
    for arm, knobs in experiment.arms.items():
        path: Path = ("workload", "per_arm", arm) if arm in workload.per_arm else ("workload", workload.kind)
        # What the agent would refuse on every host is refused here already, in its words.
        options, problems = parse_options(workload.for_arm(arm))
        if isinstance(options, RegionOptions):
            page_bytes = options.page_size_kib * KIB
            if options.region_bytes < page_bytes:
                what = f"the region of {format_size(options.region_bytes)} is smaller than one page"
                yield (*path, "region"), what, f"make it at least {format_size(page_bytes)}"
            yield from _pool(options, arm, dict(knobs), path)
        for problem in problems:
            yield path, problem.what, problem.remedy


def _pool(options: RegionOptions, arm: str, knobs: dict[str, str], path: Path) -> Iterator[Finding]:
    if options.backing is not Backing.HUGETLB:
        return
    if not options.page_size_kib:
        yield (*path, "page_size"), "hugetlb needs to know its page size", "write for example 'page_size: 1GiB'"
        return
    for knob, value in knobs.items():
        size_kib = pool_of(knob)
        if size_kib != options.page_size_kib or not value.isdigit():
            continue
        needed = -(-options.region_bytes // (options.page_size_kib * KIB))
        if int(value) < needed:
            what = f"a pool of {value} pages can't hold a region of {format_size(options.region_bytes)}"
            yield ("arms", arm, knob), what, f"write {needed} or more"


def _metrics(experiment: Experiment) -> Iterator[Finding]:
    metrics = experiment.metrics
    named: list[tuple[Path, str]] = [(("metrics", "primary"), metrics.primary)]
    named += [(("metrics", "secondary", index), name) for index, name in enumerate(metrics.secondary)]
    named += [(("metrics", "guardrails", index, "metric"), g.metric) for index, g in enumerate(metrics.guardrails)]
    for path, name in named:
        yield from _metric(experiment, path, name)
    if metrics.primary in metrics.secondary:
        path = ("metrics", "secondary", metrics.secondary.index(metrics.primary))
        yield path, f"{metrics.primary} is the primary metric already", "name it once"
    for name, times in Counter(metrics.secondary).items():
        if times > 1:
            yield ("metrics", "secondary"), f"{name} stands {times} times", "name it once"
    yield from _sources(experiment)
    yield from _server(experiment)
    used = {name for _, name in named} | set(metrics.sources)
    for name in metrics.better:
        if name not in used:
            yield ("metrics", "better", name), f"{name} is not a metric of this experiment", choose(name, used)
    if better(experiment, metrics.primary) is None and (
        not experiment.workload or _reported(experiment, metrics.primary)
    ):
        yield (
            ("metrics", "primary"),
            f"which way is better for {metrics.primary}?",
            f"write 'better: {{{metrics.primary}: decrease}}' (or increase) under metrics",
        )


def _sources(experiment: Experiment) -> Iterator[Finding]:
    names = frozenset(experiment.metrics.sources)
    found = {name: find_foreign(name, reporter=FOR_A_SERVICE, sources=names) for name in names}
    yield from source_problems(
        experiment.metrics.sources,
        measure_seconds=experiment.measure_seconds if experiment.switchback else None,
        taken={name: owned for name, owned in found.items() if owned is not None},
        service=experiment.workload is not None and experiment.workload.is_service,
    )


def _server(experiment: Experiment) -> Iterator[Finding]:
    server, queries = experiment.metrics.server, experiment.central_queries
    path: Path = ("metrics", "server")
    if server is None:
        for query in queries:
            where: Path = ("metrics", "sources", query.metric, "promql")
            yield where, "no server is named to be asked", "write 'server: {url: https://...}' under metrics"
        return
    if not queries:
        yield path, "no source asks it", "give one: 'sources: {p99: {promql: ..., by: instance}}', or leave it out"
    if (server.user is None) != (server.password is None):
        yield path, "basic authentication needs both user and password", "give both, or none"
    if server.user is not None and server.bearer is not None:
        yield (*path, "bearer"), "a token and a password are two ways to say who asks", "keep one"
    if (server.certificate is None) != (server.private_key is None):
        yield path, "mutual TLS needs both certificate and private_key", "give both, or none"
    if server.url.startswith("http://") and (server.bearer or server.password) and not _on_loopback(server.url):
        yield (*path, "url"), "a secret would go over the network in the clear", "write https://"
    shortest = experiment.measure_seconds if experiment.switchback else None
    for query in queries:
        needed = query.lookback_seconds + query.step_seconds
        if shortest is not None and needed > shortest:
            what = (
                f"it looks back {format_duration(query.lookback_seconds)}: no instant of a measured period is its own"
            )
            remedy = f"measure for more than {format_duration(needed)}, or shorten range and step"
            yield ("metrics", "sources", query.metric, "promql"), what, remedy


def _on_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _reported(experiment: Experiment, name: str) -> bool:
    return not list(_metric(experiment, (), name))


def _metric(experiment: Experiment, path: Path, name: str) -> Iterator[Finding]:
    """A metric must come from somewhere: the host's counters, a source, or this experiment's workload."""
    workload = experiment.workload
    kind = workload.kind if workload else None
    if name in experiment.metrics.sources or (kind == "command" and owner_of(name) is None):
        return
    metric = known(name)
    if metric is None:
        close = nearest_metrics(experiment, name)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        yield path, f"no metric is called {name!r}", f"{hint}A metric of your own is declared under metrics.sources"
        return
    from_workloads = metric.reporters
    if from_workloads and (workload is None or workload.is_service or workload.kind not in from_workloads):
        what = f"{name} is reported by {' or '.join(from_workloads)}, and the workload here is {kind or 'none'}"
        may_be_declared = find_foreign(name, reporter=FOR_A_SERVICE) is None
        own = "declare it under metrics.sources" if may_be_declared else "give one of your own another name"
        yield path, what, f"choose another metric or workload, or {own}"


def _guardrails(experiment: Experiment) -> Iterator[Finding]:
    seen: set[tuple[str, bool]] = set()
    for index, guardrail in enumerate(experiment.metrics.guardrails):
        path: Path = ("metrics", "guardrails", index)
        if (guardrail.margin is None) == (guardrail.tripwire is None):
            yield path, "a guardrail has either a margin or a tripwire", "write 'margin: 10%' or 'tripwire: 1'"
        elif worse(experiment, guardrail) is None:
            yield path, f"which way is worse for {guardrail.metric}?", "write 'worse: increase' (or decrease)"
        if (key := (guardrail.metric, guardrail.margin is None)) in seen:
            yield path, f"{guardrail.metric} has a guardrail of this kind already", "keep one of them"
        seen.add(key)


def _trade(experiment: Experiment) -> Iterator[Finding]:
    trade = experiment.metrics.trade
    if trade is None:
        return
    planned = [metric.name for metric in analysis_plan(experiment).metrics]
    for key, name in (("throughput", trade.throughput), ("memory", trade.memory)):
        if name not in planned:
            what = f"{name} is not estimated in this experiment"
            yield ("metrics", "trade", key), what, "name it as primary, secondary or guardrail too"
