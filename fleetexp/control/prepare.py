"""What is known of a run before it starts: who takes part and who not, the plan, and why it would not start.

Whoever plans, runs or rehearses prepares here, and `launch` takes what was prepared: what is shown is what happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from agents.knobs import missing_knob_hint
from agents.messages import HostFacts, Problem, Severity
from agents.perf import probe_own_events
from agents.preflight import preflight
from agents.sysroot import FolderRoot
from analysis.quantities import counted
from fleetexp.control.central_trial import CentralTrial, refusals_of, try_queries
from fleetexp.control.conformance_gate import nonconforming
from fleetexp.control.planned_power import PlannedPower, lacking_power, planned_power
from fleetexp.domain import Approval, Design, PeriodKind, Plan
from fleetexp.earlier_runs import reading_store, with_measures
from fleetexp.errors import ConfigError, RunError
from fleetexp.experiment import Experiment
from fleetexp.experiment.schedule import host_info, left_out_of, make_plan
from fleetexp.fleets.inventory import FoundHost, Inventory, shown, sort_out
from fleetexp.simulated import is_simulated
from fleetexp.store.url import Database, StoreUrl, parse_url

_SAMPLES = 720  # of a simulated host in a run
_FEWEST_SAMPLES = 6  # of it in a measured period
_LEASE_SAMPLES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedHosts:
    """A plan over hosts that were found."""

    plan: Plan
    facts: tuple[HostFacts, ...]  # of the hosts of the plan
    left_out: Mapping[str, str]  # host -> why it can't take part whatever the spec says: held, out of reach
    by_condition: Mapping[str, int]  # condition of the population -> how many hosts it took away


@dataclass(frozen=True, kw_only=True, repr=False)
class PreparedRun:
    """A run that could be launched. `refusals` say why it would not start; nothing has been touched."""

    experiment: Experiment
    spec_text: str
    inventory: Inventory  # open: `launch` or `close` lets go of it
    store: Database
    hosts: PlannedHosts
    refused_already: tuple[RunError, ...]  # whatever it could show
    power_acknowledged: bool
    warnings: tuple[str, ...]  # what a run would do without
    central: tuple[CentralTrial, ...] = ()  # what a metrics' server has of these hosts

    @property
    def plan(self) -> Plan:
        return self.hosts.plan

    @cached_property
    def power(self) -> PlannedPower:
        """What it can show, by the store as it was when this was first asked: before it runs, `require` does."""
        return planned_power(self.experiment, self.plan, self.store, simulated=is_simulated(self.inventory.name))

    @property
    def refusals(self) -> tuple[RunError, ...]:
        """Why it would not start; nothing where it would."""
        lacking = lacking_power(self.power)
        return self.refused_already if lacking is None or self.power_acknowledged else (*self.refused_already, lacking)

    def require(self) -> None:
        """Raise the first refusal; return where there is none. What it can show is worked out only without another."""
        for refusal in self.refused_already or self.refusals:
            raise refusal

    def require_free_hosts(self) -> None:
        """Raise where another run of the store has taken a host of the plan since this was prepared."""
        for host, run_id in _busy(self.inventory, [unit.host for unit in self.plan.units], self.store).items():
            raise RunError(
                f"{host} is in run {run_id}, which took it after this run was prepared",
                where=self.experiment.name,
                remedy="prepare again: the plan is made over the hosts that are free",
            )

    def close(self) -> None:
        """Let go of what the hosts were found by, where the run is not launched."""
        self.inventory.close()

    def __repr__(self) -> str:
        plan, refused = self.plan, "; ".join(str(refusal) for refusal in self.refusals)
        what = f"{self.experiment.name}: {plan.design.value}, {counted(len(plan.units), 'host')}, {plan.seconds:.0f} s"
        return f"<PreparedRun {what}{refused and f', REFUSED: {refused}'}>"


def prepare(
    experiment: Experiment,
    spec_text: str,
    inventory: Inventory,
    store_url: StoreUrl,
    *,
    power_acknowledged: bool = False,
    preflight_root: str = "",
) -> PreparedRun:
    """Survey the hosts of an inventory and plan over them; the store is only read.

    With `preflight_root`, where the files of this one machine are, also what a run's preflight would refuse is found.
    RunError, ConfigError where the experiment does not fit these hosts, so that there is no plan to be shown.
    """
    found = inventory.survey()
    hosts = _planned(experiment, inventory, found, store_url)
    refusals = [*_refusals(hosts.plan, hosts.facts)]
    warnings = [*_warnings(hosts.plan, hosts.facts), *_never_judged_at_gates(experiment, hosts.plan)]
    if preflight_root and inventory.one_machine and not refusals:
        here = dict.fromkeys(_of_this_host(hosts, found, FolderRoot(preflight_root)))
        refusals = [RunError(one.what, one.where, one.remedy) for one in here if one.severity is Severity.ERROR]
        warnings = [f"{one.what} — {one.remedy}" for one in here if one.severity is Severity.WARNING]
    trials: tuple[CentralTrial, ...] = ()
    if not is_simulated(inventory.name):
        refusals += nonconforming(experiment, hosts.facts, store_url)
        trials = try_queries(experiment, hosts.facts)
        refusals += refusals_of(experiment, trials)
    warnings += [
        trial.text
        for trial in trials
        if trial.failure or trial.unmatched or trial.warnings or trial.shared or trial.native
    ]
    return PreparedRun(
        experiment=experiment,
        spec_text=spec_text,
        inventory=inventory,
        store=parse_url(store_url),
        hosts=hosts,
        refused_already=tuple(refusals),
        power_acknowledged=power_acknowledged,
        warnings=tuple(warnings),
        central=trials,
    )


def _planned(
    experiment: Experiment, inventory: Inventory, found: Sequence[FoundHost], store_url: StoreUrl
) -> PlannedHosts:
    _require_fitting(experiment, one_machine=inventory.one_machine)
    busy = _busy(inventory, [one.host for one in found], store_url)
    usable, left_out = sort_out(found, busy, one_machine=inventory.one_machine)
    plan = plan_over(experiment, usable, left_out, store_url)
    if is_simulated(inventory.name):
        plan = _in_virtual_time(replace(plan, sources=experiment.simulated_sources))
    by_host = {facts.host: facts for facts in usable}
    facts = tuple(by_host[unit.host] for unit in plan.units)
    return PlannedHosts(
        plan=plan,
        facts=facts,
        left_out=left_out,
        by_condition=Counter(left.condition for left in left_out_of(experiment, map(host_info, usable)).values()),
    )


def plan_over(
    experiment: Experiment, usable: Sequence[HostFacts], left_out: Mapping[str, str], store_url: StoreUrl
) -> Plan:
    """Plan over the hosts that may take part; ConfigError says also why others may not.

    Where the assignment is balanced on a metric, each host's value is read from the store's earlier runs.
    """
    try:
        return make_plan(experiment, with_measures(experiment, [host_info(facts) for facts in usable], store_url))
    except ConfigError as error:
        if not left_out:
            raise
        what = f"{error.what}; left out before: {shown(left_out)}"
        raise ConfigError(what, error.where, error.remedy, error.problems) from error


def _busy(inventory: Inventory, hosts: Collection[str], store_url: StoreUrl) -> Mapping[str, int]:
    """Return host -> the run of this store that holds it."""
    if inventory.one_machine or is_simulated(inventory.name):  # every simulation has hosts of its own
        return {}
    with reading_store(store_url) as store:
        return {} if store is None else store.hosts_busy(hosts)


def _in_virtual_time(plan: Plan) -> Plan:
    """Return a plan for hosts that are made up: nobody is there to approve, and a long one is sampled less often.

    A day of virtual time is as good with a sample every few minutes; a lease then has to last from one to the next.
    """
    plan = replace(plan, stages=tuple(replace(stage, approve=Approval.AUTO) for stage in plan.stages))
    if plan.seconds <= _SAMPLES * plan.sample_every_seconds:
        return plan
    kinds = {PeriodKind.BASELINE, PeriodKind.MEASURE}
    shortest = min(period.seconds for unit in plan.units for period in unit.periods if period.kind in kinds)
    every = max(plan.sample_every_seconds, min(plan.seconds / _SAMPLES, shortest / _FEWEST_SAMPLES))
    lease = max(plan.safety.lease_seconds, _LEASE_SAMPLES * every)
    return replace(plan, sample_every_seconds=every, safety=replace(plan.safety, lease_seconds=lease))


def _require_fitting(experiment: Experiment, *, one_machine: bool) -> None:
    if one_machine and experiment.kind is Design.PARALLEL:
        raise RunError(
            "a parallel design needs hosts of its own for each arm, and this is one machine",
            where="design",
            remedy="use 'design: switchback': every arm in turn on this host",
        )
    if one_machine and any(stage.approve == Approval.MANUAL for stage in experiment.stages):
        raise RunError(
            "a stage that waits for approval would keep this one machine changed meanwhile",
            where="stages",
            remedy="leave out 'approve: manual'",
        )


def _refusals(plan: Plan, facts: Sequence[HostFacts]) -> Iterator[RunError]:
    """Yield why no host, or too few of them, can be put on the plan's arms."""
    for knob in plan.knobs:
        if facts and not any(knob in one.knobs for one in facts):
            who = "this host does not have" if len(facts) == 1 else f"none of {len(facts)} hosts has"
            yield RunError(
                f"{who} the knob {knob}",
                where=facts[0].host if len(facts) == 1 else "arms",
                remedy=f"{instead_of(knob, facts[0])}; see 'fleetexp doctor'",
            )
    for event in plan.needed_events:
        if facts and all(reasons := [one.uncounted([event]) for one in facts]):
            who = "this host does not count" if len(facts) == 1 else f"none of {len(facts)} hosts counts"
            yield RunError(
                f"{who} {event}, which the primary metric or a guardrail needs: {', '.join(reasons[0])}",
                where=f"{facts[0].host}, metrics" if len(facts) == 1 else "metrics",
                remedy="name metrics that can be measured, or other hosts; 'fleetexp doctor' says what each counts",
            )
    unfit = {one.host: reason for one in facts if (reason := _unfit(plan, one))}
    if len(facts) == 1 and (refused := _stuck(plan, facts[0])):
        yield RunError(
            "this host's kernel settings can't be written: "
            + (facts[0].not_writable_because or "the kernel refuses it"),
            where=f"{facts[0].host}, {', '.join(refused)}",
            remedy="run as root on the machine itself, not in a container; what works here: 'fleetexp doctor', "
            "'fleetexp plan', 'fleetexp report' of a stored run, 'make quick'",
        )
    elif len(facts) > 1 and len(unfit) > plan.safety.max_failed_hosts:
        yield RunError(
            f"{len(unfit)} of {len(facts)} hosts can't be put on the arms, and at most "
            f"{plan.safety.max_failed_hosts} may fail: {shown(unfit, 3)}",
            where="population",
            remedy="leave them out with population.where or exclude, or raise safety.max_failed_hosts",
        )


def _warnings(plan: Plan, facts: Sequence[HostFacts]) -> Iterator[str]:
    """Yield which metrics some hosts will not have, and what only the hosts themselves can tell."""
    for event in plan.events:
        lacking = [(one.host, reason) for one in facts for reason in one.uncounted([event])]
        if lacking and event not in plan.needed_events:
            host, reason = lacking[0]
            yield f"{event} is not counted on {len(lacking)} of {len(facts)} hosts: {host}: {reason}"
    wanted = [*plan.events, *(source.metric for source in plan.sources if source.perf)]
    if wanted:
        yield (
            f"a CPU has few counters: how long each of {len(wanted)} wanted events is counted, each host's preflight "
            "finds out before anything is changed"
        )


def _never_judged_at_gates(experiment: Experiment, plan: Plan) -> Iterator[str]:
    """Yield the guardrails of which nothing is known before a period ends, where stages are to open by themselves."""
    if all(stage.approve == Approval.MANUAL for stage in plan.stages[:-1]):
        return
    for guardrail in experiment.metrics.guardrails:
        source = experiment.metrics.sources.get(guardrail.metric)
        if guardrail.margin is not None and source is not None and source.of_whole_periods:
            yield (
                f"the guardrail {guardrail.metric} is known only once a period has ended: no stage opens by itself, "
                "each waits for 'fleetexp resume'; a metrics' server has it at any time ('promql')"
            )


def _of_this_host(hosts: PlannedHosts, found: Sequence[FoundHost], here: FolderRoot) -> tuple[Problem, ...]:
    """Return what a run's preflight would find on this machine."""
    plan, (facts,) = hosts.plan, hosts.facts
    # A copied tree tells of a host's knobs; what runs there, and what its pages say, is not to be found here.
    workloads = [*plan.workloads.values(), *filter(None, [plan.pressure])] if here.real else []
    sources = plan.sources if here.real else ()
    return preflight(
        here,
        facts,
        plan.arms,
        workloads,
        found[0].claim,
        sources=sources,
        events=plan.events,
        needed_events=plan.needed_events,
        trace=plan.trace,
        own_events=probe_own_events(here, sources),
    )


def instead_of(knob: str, facts: HostFacts) -> str:
    """Say what to write instead of a knob that a host does not have."""
    thp = [size.size_kib for size in facts.thp_sizes]
    return missing_knob_hint(knob, facts.knobs, thp_kib=thp, hugetlb_kib=[p.size_kib for p in facts.hugetlb_pools])


def _unfit(plan: Plan, facts: HostFacts) -> str:
    """Say why a host would fail its preflight for the plan's knobs and perf events; '' where it would not."""
    if absent := [knob for knob in plan.knobs if knob not in facts.knobs]:
        return f"no {', '.join(absent)}"
    if stuck := _stuck(plan, facts):
        return f"{', '.join(stuck)} can't be written: {facts.not_writable_because or 'the kernel refuses it'}"
    lacking = facts.uncounted(plan.needed_events).items()
    return "; ".join(f"{', '.join(events)} not counted: {reason}" for reason, events in lacking)


def _stuck(plan: Plan, facts: HostFacts) -> list[str]:
    return [knob for knob in plan.knobs if knob in facts.knobs and knob not in facts.writable_knobs]


__all__ = ["PlannedHosts", "PreparedRun", "prepare"]
