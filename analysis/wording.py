"""Effects and decisions in words, the same for terminal, report and decision: words follow the sign and the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.plan import Role
from analysis.quantities import (
    MINUS,
    TIMES,
    counted,
    decimals_for,
    fixed,
    is_duration,
    number,
    percentage,
    quantity,
    scale_for,
)
from analysis.results import (
    HALVES,
    ArmDecision,
    Cause,
    Decision,
    Doubt,
    Estimate,
    EstimateKind,
    GuardrailResult,
    Interval,
    Missing,
    Overturn,
    Preference,
    Scope,
    Trade,
    TradeSide,
    Units,
    Verdict,
)

# Seconds that are a cost and not a wait: 'faster' would say something else than 'less'.
_COSTS = ("cpu", "psi", "stall", "pressure")
_MOST_MISSING = 2  # metrics whose missing values a sentence tells
NO_CLEAR_CHANGE = "no clear change"
NOT_TESTED = "not tested"  # nothing to measure the difference with


# ---------------------------------------------------------------------------- effects
@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One effect in pieces of text. Without a clear change no piece says better, faster or lower."""

    clear: bool  # the test and the interval agree that there is one
    rose: bool
    compared: str  # '34 % faster', '+12 MiB', 'no clear change', 'no estimate'
    amount: str  # '34 %', '12 MiB': without a sign
    point: str  # '−34 %', '+12 MiB'; '' without an estimate  # noqa: RUF003
    interval: str  # '[−36 %, −33 %]'; '' where there is none  # noqa: RUF003
    level: float | None  # of the interval: 0.95

    @property
    def figures(self) -> str:
        """What stands beside `compared`: the interval, after the estimate where `compared` has no number."""
        return self.interval if self.clear else f"{self.point} {self.interval}".strip()


def change_of(row: Estimate, alpha: float) -> Change:
    """Put an effect into pieces of text.

    It is clear where the p-value, adjusted where it was, is below `alpha` and the interval leaves out 0. A relative
    change is shown where there is a lift on a positive control mean.
    """
    lift = row.lift if row.control_mean is None or row.control_mean > 0 else None
    interval = row.difference_interval if lift is None else row.lift_interval
    moved = row.difference if row.difference is not None else lift
    if moved is None:
        return Change(clear=False, rose=False, compared="no estimate", amount="", point="", interval="", level=None)
    clear = moved != 0 and row.p is not None and row.p < alpha and interval is not None and leaves_out_zero(interval)
    if lift is not None:
        show = _percent(lift, interval)
        point = show(lift)
        compared = _compared(row, lift, point.lstrip(f"+{MINUS}"))
    else:
        show = _difference(row)
        point = compared = show(moved)
    return Change(
        clear=clear,
        rose=moved > 0,
        compared=compared if clear else NO_CLEAR_CHANGE if interval is not None or moved == 0 else NOT_TESTED,
        amount=point.lstrip(f"+{MINUS}"),
        point=point,
        interval="" if interval is None else interval_text(interval, show),
        level=None if interval is None else interval.level,
    )


def effect_words(row: Estimate, alpha: float) -> str:
    """Say what rose or fell, by how much, with its interval; or that no change is clear, with the numbers alone."""
    change = change_of(row, alpha)
    if not change.point:
        return f"{row.metric} could not be estimated"
    unit = "" if row.lift is not None and change.point.endswith("%") else _spelled(row)
    if not change.clear:
        return f"{row.metric}: {change.compared}, {_joined(change.point, unit, change.interval)}"
    return f"{row.metric} {'rose' if change.rose else 'fell'} by {_joined(change.amount, unit, change.interval)}"


def leaves_out_zero(interval: Interval) -> bool:
    """Whether 0 is outside the confidence set."""
    low, high = interval.low, interval.high
    if interval.excludes:
        return low is not None and high is not None and low < 0 < high
    return (low is not None and low > 0) or (high is not None and high < 0)


def interval_text(interval: Interval, show: Callable[[float], str]) -> str:
    """Write a confidence set; what is unbounded is said to be."""
    low, high = interval.low, interval.high
    if low is None and high is None:
        return "[unbounded]"
    if low is None or high is None:
        return f"[unbounded, {show(high)}]" if high is not None else f"[{show(low or 0.0)}, unbounded]"
    if interval.excludes:
        return f"[below {show(low)} or above {show(high)}]"
    return f"[{show(low)}, {show(high)}]"


def _compared(row: Estimate, lift: float, amount: str) -> str:
    timed = is_duration(row.unit) and not any(word in row.metric for word in _COSTS)
    if lift >= 1:
        return f"{1 + lift:,.1f}{TIMES} as {'long' if timed else 'much'}"
    words = ("slower", "faster") if timed else ("higher", "lower")
    return f"{amount} {words[lift < 0]}"


def _percent(lift: float, interval: Interval | None) -> Callable[[float], str]:
    ends = [] if interval is None else [end * 100 for end in (interval.low, interval.high) if end is not None]
    half_width = abs(ends[1] - ends[0]) / 2 if len(ends) == 2 else None
    decimals = decimals_for([lift * 100, *ends], half_width)
    return lambda value: percentage(value, decimals)


def _difference(row: Estimate) -> Callable[[float], str]:
    scale = scale_for(row.unit, scaled_values(row))
    values = _difference_values(row)
    largest = max((abs(value) for value in values), default=0.0)
    if not scale.spelled and 0 < largest * scale.factor < 0.1:  # not '+0.01 GiB'
        scale = scale_for(row.unit, (largest,))
    shown = [value * scale.factor for value in values]
    if len(shown) < 3 or not 0.01 <= largest * scale.factor < 1e6:
        return scale.show_difference
    decimals = decimals_for(shown, abs(shown[2] - shown[1]) / 2)
    return lambda value: fixed(value * scale.factor, decimals) + scale.difference_suffix


def scaled_values(row: Estimate) -> Sequence[float]:
    """The values that choose the one scale of a row: its means, or what is known of the difference."""
    means = [value for value in (row.control_mean, row.treatment_mean) if value is not None]
    return means or _difference_values(row)


def _difference_values(row: Estimate) -> list[float]:
    ends = () if row.difference_interval is None else (row.difference_interval.low, row.difference_interval.high)
    return [value for value in (row.difference, *ends) if value is not None]


def _spelled(row: Estimate) -> str:
    return scale_for(row.unit, scaled_values(row)).spelled


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


# ---------------------------------------------------------------------------- the trade
def trade_words(trade: Trade) -> str:
    """Say a trade: how many servers more or fewer the same work needs."""
    return f"{needed_words(trade)} servers per 1,000 needed {needed_interval(trade)}".rstrip()


def needed_words(trade: Trade) -> str:
    """Say how many servers of 1,000 are needed more or fewer: '9.9 more'."""
    return _needed(-trade.saved_per_1000)


def needed_interval(trade: Trade) -> str:
    """Write the interval of the servers needed: '[14.5 fewer, 36 more]'; '' where there is none."""
    if trade.interval is None:
        return ""
    low, high = (None if end is None else -end for end in (trade.interval.high, trade.interval.low))
    if low is not None and high is not None and low * high > 0:  # both ends more, or both fewer
        near, far = sorted((low, high), key=abs)
        return f"[{_servers(near)} to {_needed(far)}]"
    return interval_text(Interval(low=low, high=high, level=trade.interval.level), _needed)


def _needed(more: float) -> str:
    return f"{_servers(more)} {'fewer' if more < 0 else 'more'}"


def _servers(count: float) -> str:
    """Show servers of 1,000 to a tenth, or what is less as it is."""
    return number(abs(count)) if 0 < abs(count) < 0.05 else f"{abs(count):,.1f}".removesuffix(".0")


_TRADE_SIDES = {
    TradeSide.SAVES: "and fewer servers are needed",
    TradeSide.COSTS: "but more servers are needed",
    TradeSide.OPEN: "but it is not excluded that more servers are needed",
}


def _trade_clause(trade: Trade) -> str:
    told = needed_interval(trade) or "without an interval"
    return f"{_TRADE_SIDES[trade.side]}: {needed_words(trade)} per 1,000 {told}"


# ---------------------------------------------------------------------------- what is missing, for whom, how sure
def missing_words(missing: Missing) -> str:
    """Say what is missing: '16 of 40 hosts under always have no throughput'."""
    one = missing.due == 1
    units = missing.units.value.removesuffix("s") if one else missing.units.value
    where = f" in {missing.stratum}" if missing.stratum else ""
    verb = "has" if missing.lost == 1 or one else "have"
    return f"{_lost(missing)} {units} under {missing.arm}{where} {verb} no {missing.metric}"


def missing_sentence(missing: Iterable[Missing], most: int | None = None) -> str:
    """Say for each metric and stratum which arm lost most, and beside it what the others lost; '' for nothing."""
    groups: dict[tuple[str, str, Units], list[Missing]] = {}
    for one in missing:
        groups.setdefault((one.metric, one.stratum, one.units), []).append(one)
    said = []
    for group in groups.values():
        first, *rest = sorted(group, key=lambda one: one.lost / max(1, one.due), reverse=True)
        if first.lost:
            others = ", ".join(f"{one.arm}: {_lost(one)}" for one in rest)
            said.append(f"{missing_words(first)} ({others})" if others else missing_words(first))
    if most is not None and len(said) > most:
        said[most:] = [f"{len(said) - most} more such gaps"]
    return "; ".join(said)


def _lost(missing: Missing) -> str:
    return f"{number(missing.lost)} of {number(missing.due)}"


def scope_words(scope: Scope) -> str:
    """Say what a decision speaks for: hosts, strata, measured time."""
    names = f" ({', '.join(scope.host_names)})" if scope.host_names else ""
    parts = [f"{counted(scope.hosts, 'host')}{names}", f"{counted(scope.periods, 'period')}"]
    if scope.seconds:
        parts.append(f"{quantity(scope.seconds, 'seconds')} measured")
    if scope.strata:
        parts.append(f"in {', '.join(scope.strata)}")
    if scope.without:
        parts.append(f"not in {', '.join(scope.without)}")
    return ", ".join(parts)


# What is in doubt ({about}: a metric, a stratum, an arm), what stands there where nothing is named, what settles it.
_DOUBTS: Mapping[Doubt, tuple[str, str, str]] = {
    Doubt.MISSING_DATA: (
        "what is missing of {about} could turn the effect around",
        "the metrics",
        "knowing why values of {about} are missing, and measuring again",
    ),
    Doubt.STRATA_DIFFER: ("{about} do not tell the same story", "the strata", "a run of its own in each stratum"),
    Doubt.STRATUM_NOT_RULED_OUT: ("harm in {about} is not ruled out", "a stratum", "more hosts in {about}"),
    Doubt.COST_NOT_EXCLUDED: (
        "it is not excluded that more servers are needed",
        "",
        "more hosts, or a spec whose metrics.trade says what decides",
    ),
    Doubt.CARRY_OVER_UNTESTED: (
        "what an arm leaves behind for the next could not be tested",
        "",
        "more blocks, or a longer washout",
    ),
    Doubt.CARRY_OVER: (
        "it is not excluded that what an arm leaves behind for the next eats the change of {about}",
        "the metric",
        "more blocks, or a longer washout",
    ),
    Doubt.FADING: (
        "the change of {about} was smaller in the later half of the measured time",
        "the primary metric",
        "a longer run: what stays is what counts",
    ),
    Doubt.GROWING: (
        "harm to {about} was larger in the later half of the measured time, within its margin",
        "a guardrail",
        "a longer run: what stays is what counts",
    ),
    Doubt.FEW_HOSTS: ("so few hosts do not speak for others", "", "the same on more hosts"),
    Doubt.NO_GUARDRAIL: (
        "no guardrail was set",
        "",
        "guardrails: memory_used_bytes, and pressure, name what may suffer",
    ),
    Doubt.EARLY_LOOK: ("this is an early look", "", "the run to its planned end"),
}


def doubt_words(overturn: Overturn) -> str:
    """Say what could overturn a decision."""
    return _of_doubt(overturn, 0)


def settling_words(overturn: Overturn) -> str:
    """Say what would settle a doubt."""
    return _of_doubt(overturn, 2)


def _of_doubt(overturn: Overturn, place: int) -> str:
    texts = _DOUBTS[overturn.doubt]
    about = overturn.about or texts[1]
    if overturn.doubt is Doubt.STRATA_DIFFER and overturn.about:
        about = f"the strata of {overturn.about}"
    return texts[place].format(about=about)


def halves_words(rows: Sequence[Estimate]) -> str:
    """Set both halves of the measured time side by side; '' where the rows are not there."""
    figures: dict[EstimateKind, str] = {}
    for row in rows:
        if row.kind in HALVES:
            change = change_of(row, 1.0)
            unit = "" if change.point.endswith("%") else _spelled(row)
            figures[row.kind] = _joined(change.point, unit, change.interval)
    earlier, later = (figures.get(kind, "") for kind in HALVES)
    return f"{earlier} in the earlier half, {later} in the later" if earlier and later else ""


# ---------------------------------------------------------------------------- decisions
def decision_label(decision: Decision) -> str:
    """Return the words that people read: 'do not ship'."""
    return decision.value.replace("_", " ")


def decision_sentence(
    arm: ArmDecision,
    headline: Estimate | None,
    trade: Trade | None,
    rails: Sequence[GuardrailResult],
    alpha: float,
    *,
    parts: Sequence[Estimate] = (),
) -> str:
    """Write the one sentence of a decision from its parts, without a full stop.

    `headline` is the primary's row, `rails` the arm's guardrails, `parts` the primary's rows by stratum and by half of
    the time, and by half those of guarded metrics: where harm is named, or that it faded or grew, they say how much.
    """
    effect = "" if headline is None else effect_words(headline, alpha)
    about = ", ".join(arm.about)
    name = about or ("" if headline is None else headline.metric)
    why = "" if headline is None else next(iter(headline.warnings), "")
    missing = missing_sentence(arm.missing, _MOST_MISSING)
    harmed = _harmed(arm.scope, parts, alpha)
    clear = headline is not None and change_of(headline, alpha).clear
    match arm.cause:
        case Cause.BETTER | Cause.BETTER_IN_STRATA | Cause.SERVERS_SAVED:
            return _favourable(arm, effect, harmed=harmed, trade=trade, rails=rails, missing=missing)
        case Cause.WORSE:
            said = f"{effect or 'the primary metric changed'}, which is worse"
        case Cause.GUARDRAIL_FAILED:
            said = _failed(arm, rails)
        case Cause.COSTS_SERVERS | Cause.COST_NOT_EXCLUDED:
            side = TradeSide.COSTS if arm.cause is Cause.COSTS_SERVERS else TradeSide.OPEN
            cost = _TRADE_SIDES[side] if trade is None else _trade_clause(trade)
            said = f"{effect}, {cost}" if effect else cost.removeprefix("but ")
        case Cause.GUARDRAIL_OPEN:
            said = _but(effect, clear, f"harm to {about or 'a guardrail'} is not ruled out")
        case Cause.STRATUM_HARMED:
            there = " and ".join(f"in {name} {words}" for name, words in harmed) or f"{about or 'a stratum'} is harmed"
            said = _but(effect, clear, f"{there}, and no stratum shows a benefit")
        case Cause.CHECK_FAILED:
            said = "the experiment itself is in doubt" + (f": {about} failed" if about else "")
        case Cause.MISSING_DATA:
            lost = missing or f"values of {about or 'the primary metric'} are missing"
            said = _but(effect, clear, f"{lost}: {_worst_case(arm)} nothing would be gained")
        case Cause.FADED | Cause.GUARDRAIL_GROWING:
            said = _but(effect, clear, _over_time(arm, parts))
        case Cause.NOT_CLEAR:
            said = f"{effect}, but the randomisation test does not bear it out" if clear else effect or NO_CLEAR_CHANGE
        case Cause.TOO_FEW_UNITS:
            units = "so few" if headline is None else f"{headline.n_control} + {headline.n_treatment}"
            said = (why.rstrip(".") or f"{units} units are too few for a decision") + (f"; {effect}" if effect else "")
        case Cause.NOT_TESTED:
            said = "no test could be made" + (f": {why.rstrip('.')}" if why else "") + (f"; {effect}" if effect else "")
        case Cause.NOT_MEASURED:
            said = f"the primary metric {name} was not measured" if name else "the primary metric was not measured"
        case Cause.MIXED_MEANINGS:
            shared, *things = arm.about or ("the primary metric",)
            said = f"hosts counted different things as {shared}" + (f": {'; '.join(things)}" if things else "")
        case Cause.RESOLUTION:
            said = f"{name or 'the primary metric'} never left one bucket of its histogram: the arms are not told apart"
        case Cause.NOT_RANDOMISED | Cause.NO_PRIMARY:
            said = _NOTHING_TO_JUDGE[arm.cause]
        case Cause.NO_DIRECTION:
            said = f"the plan does not say which way {name or 'the primary metric'} is better"
    if missing and arm.cause is not Cause.MISSING_DATA:
        said += f"; {missing}"
    return said


_NOTHING_TO_JUDGE = {
    Cause.NOT_RANDOMISED: "nobody drew which host got which arm, so no difference can be put down to it",
    Cause.NO_PRIMARY: "no primary metric was named",
}


def _over_time(arm: ArmDecision, parts: Sequence[Estimate]) -> str:
    """Say that it faded, or that harm grew, with both halves' numbers where they are there."""
    faded = "it faded, and the later half of the measured time alone does not show it"
    grew = f"harm to {', '.join(arm.about) or 'a guardrail'} grew, and the later half of the measured time alone "
    said = faded if arm.cause is Cause.FADED else f"{grew}does not rule it out"
    halves = [(name, halves_words([row for row in parts if row.metric == name])) for name in arm.about]
    told = [words if len(halves) == 1 else f"{name} {words}" for name, words in halves if words]
    return f"{said}: {'; '.join(told)}" if told else said


def _favourable(
    arm: ArmDecision,
    effect: str,
    *,
    harmed: Sequence[tuple[str, str]],
    trade: Trade | None,
    rails: Sequence[GuardrailResult],
    missing: str,
) -> str:
    scope = arm.scope
    said = effect or "the primary metric is better"
    if arm.cause is Cause.SERVERS_SAVED:
        saved = "fewer servers are needed" if trade is None else trade_words(trade)
        said = f"{saved}; {effect}" if effect else saved
    if arm.decision is Decision.BETTER_HERE:
        names = f"{'host' if scope.hosts == 1 else 'hosts'} {_listed(scope.host_names)}"
        here = names if scope.host_names else counted(scope.hosts, "host")
        said += f" on {here} only, which {'does' if scope.hosts == 1 else 'do'} not speak for a fleet"
    said += f", and {_rails_words(rails)}"
    if trade is not None and arm.cause is not Cause.SERVERS_SAVED:
        said += f", {_trade_clause(trade)}"
    if scope.strata or scope.without:
        said += f"; ship in {', '.join(scope.strata)}" if scope.strata else "; not everywhere"
        out = [f"in {name}, where {words}" for name, words in harmed]
        unsure = [name for name in scope.without if name not in scope.harmed]
        out += [f"in {', '.join(unsure)}, where harm is not ruled out"] if unsure else []
        said += f"; not {', nor '.join(out)}" if out else ""
    said += f"; {missing}" if missing else ""
    told = {Doubt.NO_GUARDRAIL, Doubt.FEW_HOSTS} if arm.decision is Decision.BETTER_HERE else {Doubt.NO_GUARDRAIL}
    told |= {Doubt.COST_NOT_EXCLUDED} if trade is not None else set()
    told |= {Doubt.STRATUM_NOT_RULED_OUT} if scope.without else set()
    doubts = [doubt_words(one) for one in arm.overturn if one.doubt not in told]
    return said + (f"; still open: {', and '.join(doubts)}" if doubts else "")


def _worst_case(arm: ArmDecision) -> str:
    losers = {one.arm == arm.arm for one in arm.missing if one.lost}
    if losers == {True}:
        return "had they done as badly as the worst,"
    return "had they done as well as the best," if losers == {False} else "in the worst case"


def _but(effect: str, clear: bool, more: str) -> str:
    return f"{effect}, {'but' if clear else 'and'} {more}" if effect else more


def _harmed(scope: Scope, strata: Sequence[Estimate], alpha: float) -> list[tuple[str, str]]:
    """Name the strata where harm was shown, each with what was seen there."""
    rows = {row.stratum: row for row in strata if row.kind is EstimateKind.STRATUM}
    return [(name, effect_words(rows[name], alpha) if name in rows else "harm is shown") for name in scope.harmed]


def _rails_words(rails: Sequence[GuardrailResult]) -> str:
    own = [rail for rail in rails if not rail.built_in]
    still = [rail.plan.metric for rail in rails if rail.verdict is not Verdict.PASS]
    if still:
        return f"harm to {', '.join(dict.fromkeys(still))} is not ruled out"
    if not own:
        return "no guardrail was set"
    return f"every guardrail passed ({', '.join(dict.fromkeys(rail.plan.metric for rail in own))})"


def _failed(arm: ArmDecision, rails: Sequence[GuardrailResult]) -> str:
    failed = [rail for rail in rails if rail.verdict is Verdict.FAIL]
    if not failed:
        return f"a guardrail failed: {', '.join(arm.about)}" if arm.about else "a guardrail failed"
    return "; ".join(f"guardrail {rail.plan.metric}: {rail.reason.rstrip('.')}" for rail in failed)


def preference_sentence(preference: Preference, rows: Sequence[Estimate], alpha: float) -> str:
    """Say which treatment is preferred over which, or that they are not told apart, with what was seen of each pair.

    `rows` may hold anything: the primary's PAIRWISE ones are used.
    """
    pairs = [row for row in rows if row.kind is EstimateKind.PAIRWISE and row.role is Role.PRIMARY and not row.stratum]
    if preference.arm is None:
        named = set(preference.over)
        mine = [row for row in pairs if {row.treatment, row.control} <= named]
        start = f"{_listed(preference.over)} are not told apart"
    else:
        mine = [row for row in pairs if preference.arm in {row.treatment, row.control}]
        mine = [row for row in mine if {row.treatment, row.control} & set(preference.over)]
        start = f"{preference.arm} is preferred over {_listed(preference.over)}"
    several = len(mine) > 1 or any(row.treatment != preference.arm for row in mine)
    said = "; ".join(_pair_words(row, alpha, named=several) for row in mine)
    return f"{start}: {said}" if said else start


def _pair_words(row: Estimate, alpha: float, *, named: bool) -> str:
    change = change_of(row, alpha)
    said = effect_words(row, alpha) if change.clear else _joined(row.metric, change.figures)
    return f"{said} under {row.treatment} against {row.control}" if named else said


def choice_sentence(arms: Sequence[ArmDecision], preference: Preference | None) -> str:
    """Say in one line which of several arms to take, without a full stop."""
    good = [one.arm for one in arms if one.decision.is_favourable]
    plain = [one.arm for one in arms if one.decision is Decision.SHIP]
    told = preference.sentence if preference is not None else ""
    if not good:
        bad = all(one.decision is Decision.DO_NOT_SHIP for one in arms)
        start = "take none of them" if bad else "none of them is shown to be worth taking"
    elif preference is not None and preference.arm in good:
        start = f"take {preference.arm}"
    elif len(good) == 1:
        start = f"take {good[0]}"
    elif len(plain) == 1:
        start = f"take {plain[0]}, the only one to ship without a limit"
    else:
        start = f"take any of {_listed(good)}"
    return f"{start}; {told}" if told else start


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
