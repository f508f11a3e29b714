"""Turns a report's input into its page: every sentence and table that HTML and Markdown share."""

from __future__ import annotations

from analysis.plan import Direction, Role
from analysis.report.content import ReportInput
from analysis.report.effects import EffectRow, Outcome, effect_rows, estimate_row
from analysis.report.instants import instant, length, seconds_between
from analysis.report.page import Cell, Listing, Page, Section, Table
from analysis.report.quantities import DASH, number, quantity
from analysis.report.restoration import restoration
from analysis.results import Check, Estimate, GuardrailResult, Verdict

# The longest table that a reader scrolls through; the store has the rest.
MOST_ROWS = 200

_TONES = {Outcome.BETTER: "good", Outcome.WORSE: "bad", Outcome.UNCLEAR: "quiet", Outcome.UNAVAILABLE: "quiet"}
_DECISION_TONES = {"ship": "good", "do not ship": "bad"}
_RESULTS = (Role.PRIMARY, Role.SECONDARY, Role.GUARDRAIL, Role.EXPLORATORY)


def page(content: ReportInput) -> Page:
    """Write the whole report as sections."""
    findings = content.findings
    restored = restoration(content)
    return Page(
        title=content.experiment,
        hypothesis=content.hypothesis,
        about=_about(content),
        decision=findings.decision,
        tone=_DECISION_TONES.get(findings.decision, "quiet"),
        reason=findings.reason,
        alarms=() if restored.ok is not False else restored.sentences,
        warnings=(*_reach(content), *findings.warnings),
        sections=(
            _effects(content),
            _blocks(content),
            _lifts(content),
            _guardrails(content),
            _exposure(content),
            _timeline(content),
            _excluded(content),
            _checks(content),
            _estimates(content),
            _environment(content),
            _reproduce(content),
        ),
    )


def directions(content: ReportInput) -> dict[str, Direction]:
    """Which way each metric should move, where somebody said so."""
    return {note.metric: note.better for note in content.notes if note.better is not None}


# ---------------------------------------------------------------------------- the head
def _about(content: ReportInput) -> tuple[tuple[str, str], ...]:
    hosts = len({period.host for period in content.periods})
    blocks = len({(row.host, row.block) for row in content.findings.contrasts})
    extent = [content.design]
    extent += [_count(hosts, "host")] if hosts else []
    extent += [f"{_count(blocks, 'block')} used"] if blocks else []
    ran = f"{instant(content.started_at)}"
    if content.started_at is not None and content.ended_at is not None:
        ran += f", for {length(seconds_between(content.started_at, content.ended_at))}"
    return (
        ("Run", f"{content.run_id} ({content.state.replace('_', ' ')})"),
        ("Design", ", ".join(extent)),
        ("Ran", ran),
        ("Launched by", content.launched_by),
    )


def _reach(content: ReportInput) -> tuple[str, ...]:
    hosts = {period.host for period in content.periods}
    if content.design == "switchback" and len(hosts) == 1:
        return ("Measured on one host: the intervals speak for this host, not for a fleet.",)
    return ()


# ---------------------------------------------------------------------------- effects
def _effects(content: ReportInput) -> Section:
    rows = effect_rows(content.findings, content.unavailable, directions(content))
    shown = [row for row in rows if row.role in _RESULTS]
    missing = [row for row in rows if row.outcome is Outcome.UNAVAILABLE]
    tables = [_effect_table(content, arm, shown, missing) for arm in _treatments(content, shown)]
    paragraphs = [
        "An interval is that of the relative change from the control, and a minus is a decrease. "
        "Where it holds 0, or the test does not bear it out, the row says that there is no clear change."
    ]
    if not tables:
        paragraphs = ["No effect could be estimated."]
        tables = [_unavailable_table(missing)] if missing else []
    return Section(key="effects", title="What changed", paragraphs=tuple(paragraphs), tables=tuple(tables))


def _treatments(content: ReportInput, rows: list[EffectRow]) -> list[str]:
    """The treatment arms that have rows, in the experiment's order."""
    found = dict.fromkeys(row.treatment_arm for row in rows)
    named = [arm.name for arm in content.arms if arm.name in found]
    return named + [name for name in found if name not in named]


def _effect_table(content: ReportInput, arm: str, rows: list[EffectRow], missing: list[EffectRow]) -> Table:
    mine = [row for row in rows if row.treatment_arm == arm]
    return Table(
        caption=f"{_arm(content, arm)} against {_arm(content, content.control)}",
        headers=("metric", f"{content.control} (control)", arm, _change_header(mine)),
        rows=tuple(_effect_cells(content, row) for row in mine) + tuple(_unavailable_cells(row) for row in missing),
        align="lrrl",
    )


def _change_header(rows: list[EffectRow]) -> str:
    levels = {row.level for row in rows if row.level is not None}
    return f"change [{number(100 * levels.pop())} % interval]" if len(levels) == 1 else "change [interval]"


def _effect_cells(content: ReportInput, row: EffectRow) -> tuple[Cell, ...]:
    meaning = next((note.meaning for note in content.notes if note.metric == row.metric), "")
    if row.unit:
        meaning = f"{meaning}, {row.unit}" if meaning else row.unit
    note = row.interval or "no interval"
    if row.outcome is Outcome.UNCLEAR:
        note += ", no clear change"
    tone = _TONES.get(row.outcome, "")
    return (
        Cell(text=row.metric, note=meaning, code=True),
        Cell(text=row.control),
        Cell(text=row.treatment),
        Cell(text=row.change, note=note, tone=tone),
    )


def _unavailable_cells(row: EffectRow) -> tuple[Cell, ...]:
    return (Cell(text=row.metric, code=True), Cell(text=DASH), Cell(text=DASH), Cell(text=row.change, tone="quiet"))


def _unavailable_table(rows: list[EffectRow]) -> Table:
    return Table(
        caption="Not measured",
        headers=("metric", "why"),
        rows=tuple((Cell(text=row.metric, code=True), Cell(text=row.change)) for row in rows),
        align="ll",
    )


def _arm(content: ReportInput, name: str) -> str:
    knobs = next((arm.knobs for arm in content.arms if arm.name == name), None)
    if knobs is None:
        return name
    return f"{name} ({', '.join(f'{knob} = {value}' for knob, value in knobs.items()) or 'as found'})"


# ---------------------------------------------------------------------------- blocks and lifts: the charts' words
def _blocks(content: ReportInput) -> Section:
    contrasts = content.findings.contrasts
    if not contrasts:
        return Section(
            key="blocks", title="Block by block", paragraphs=("There are no blocks to show in this design.",)
        )
    units = {row.metric: row.unit for row in content.findings.estimates}
    rows = tuple(
        (
            Cell(text=row.metric, code=True),
            Cell(text=row.treatment),
            Cell(text=row.host),
            Cell(text=str(row.block)),
            Cell(text=quantity(row.control_value, units.get(row.metric, ""))),
            Cell(text=quantity(row.treatment_value, units.get(row.metric, ""))),
        )
        for row in contrasts[:MOST_ROWS]
    )
    headers = ("metric", "arm", "host", "block", f"{content.control} (control)", "arm's value")
    values = Table(caption="Values behind the charts", headers=headers, rows=rows, align="lllrrr", folded=True)
    paragraphs = (
        "Each block holds every arm once, close together in time, so what drifts slowly touches both alike. "
        "The estimate rests on the differences within blocks.",
        *_left_off(len(contrasts)),
    )
    return Section(key="blocks", title="Block by block", paragraphs=paragraphs, tables=(values,))


def _lifts(content: ReportInput) -> Section:
    if not any(row.lift is not None and row.headline for row in content.findings.estimates):
        return Section(key="lifts", title="Against zero", paragraphs=("No relative change could be estimated.",))
    text = "Relative change of each metric with its interval. A line that crosses zero shows no clear change."
    return Section(key="lifts", title="Against zero", paragraphs=(text,))


# ---------------------------------------------------------------------------- guardrails
def _guardrails(content: ReportInput) -> Section:
    results = content.findings.guardrails
    if not results:
        return Section(key="guardrails", title="Guardrails", paragraphs=("The experiment names no guardrails.",))
    table = Table(
        caption="Limits that must hold",
        headers=("metric", "limit", "arm", "change [interval]", "verdict", "reason"),
        rows=tuple(_guardrail_cells(content, row) for row in results),
        align="llnlnl",
    )
    return Section(key="guardrails", title="Guardrails", tables=(table,))


def _guardrail_cells(content: ReportInput, result: GuardrailResult) -> tuple[Cell, ...]:
    tone = {Verdict.PASS: "good", Verdict.FAIL: "bad"}.get(result.verdict, "quiet")
    seen = Cell(text="not measured", tone="quiet")
    unit = ""
    if result.estimate is not None:
        row = estimate_row(result.estimate, content.findings.alpha)
        seen, unit = Cell(text=row.change, note=row.interval), result.estimate.unit
    return (
        Cell(text=result.plan.metric, code=True),
        Cell(text=_limit(result, unit)),
        Cell(text=result.treatment),
        seen,
        Cell(text=result.verdict.value, tone=tone),
        Cell(text=result.reason),
    )


def _limit(result: GuardrailResult, unit: str) -> str:
    plan, limits = result.plan, []
    if plan.margin is not None:
        limits.append(f"no {plan.worse.value} above {number(plan.margin * 100)} %")
    if plan.tripwire is not None:
        limits.append(f"halts at {quantity(plan.tripwire, unit)}")
    return "; ".join(limits) or "no limit given"


# ---------------------------------------------------------------------------- exposure
def _exposure(content: ReportInput) -> Section:
    if not content.exposure:
        text = "What the kernel really gave was not recorded, so assigned must not be read as received."
        return Section(key="exposure", title="Assigned is not received", paragraphs=(text,))
    table = Table(
        caption="Big pages asked for and given",
        headers=("arm", "page size", "assigned", "faulted in", "fallbacks", "given", "splits", "memory backed"),
        rows=tuple(
            (
                Cell(text=row.arm),
                Cell(text=quantity(row.page_size_kib, "KiB")),
                Cell(text=row.assigned, code=True),
                Cell(text=_counted(row.faulted_pages)),
                Cell(text=_counted(row.fallbacks)),
                Cell(text=_given(row.faulted_pages, row.fallbacks)),
                Cell(text=_counted(row.splits)),
                Cell(text=quantity(row.backed_bytes, "bytes")),
            )
            for row in content.exposure[:MOST_ROWS]
        ),
        align="lrlrrrrr",
    )
    text = (
        "A fault that finds no big page falls back to small ones without a word, and a page once given may be split. "
        "The effect above is that of being assigned; this is what was received."
    )
    return Section(
        key="exposure",
        title="Assigned is not received",
        paragraphs=(text, *_left_off(len(content.exposure))),
        tables=(table, *_role_table(content, Role.EXPOSURE, "Exposure, compared between the arms")),
    )


def _counted(value: float | None) -> str:
    return "unavailable" if value is None else number(value)


def _given(pages: float | None, fallbacks: float | None) -> str:
    if pages is None or fallbacks is None:
        return "unavailable"
    asked = pages + fallbacks
    return f"{number(100 * pages / asked)} % of {number(asked)}" if asked else "none asked for"


def _role_table(content: ReportInput, role: Role, caption: str) -> tuple[Table, ...]:
    rows = [row for row in effect_rows(content.findings) if row.role is role]
    if not rows:
        return ()
    return (
        Table(
            caption=caption,
            headers=("metric", "arm", f"{content.control} (control)", "arm's value", _change_header(rows)),
            rows=tuple(
                (cells[0], Cell(text=row.treatment_arm), *cells[1:])
                for row, cells in ((row, _effect_cells(content, row)) for row in rows)
            ),
            align="llrrl",
        ),
    )


# ---------------------------------------------------------------------------- what was done to the hosts
def _timeline(content: ReportInput) -> Section:
    changes = Table(
        caption="Every write to a knob",
        headers=("at", "host", "knob", "before", "wanted", "read back", "why", "error"),
        rows=tuple(
            (
                Cell(text=instant(row.changed_at)),
                Cell(text=row.host),
                Cell(text=row.knob, code=True),
                Cell(text=row.before, code=True),
                Cell(text=row.wanted, code=True),
                Cell(text=row.after, code=True, tone="bad" if row.error is not None else ""),
                Cell(text=row.reason),
                Cell(text=row.error or DASH, tone="bad" if row.error is not None else ""),
            )
            for row in content.knob_changes[:MOST_ROWS]
        ),
        align="nlllllll",
        folded=True,
    )
    events = Table(
        caption="Events",
        headers=("at", "host", "what", "detail"),
        rows=tuple(
            (Cell(text=instant(row.at)), Cell(text=row.host or "the run"), Cell(text=row.kind), Cell(text=row.detail))
            for row in content.events[:MOST_ROWS]
        ),
        align="nlll",
    )
    left_off = (*_left_off(len(content.knob_changes)), *_left_off(len(content.events)))
    return Section(
        key="timeline",
        title="What was done to the hosts",
        paragraphs=(*restoration(content).sentences, *left_off),
        tables=tuple(table for table in (changes, events) if table.rows),
    )


# ---------------------------------------------------------------------------- what was left out
def _excluded(content: ReportInput) -> Section:
    periods = {row.period_id: row for row in content.periods}
    rows = [(row.host, row.arm, row.block, row.reason, periods.get(row.period_id)) for row in content.findings.excluded]
    named = {row.period_id for row in content.findings.excluded}
    rows += [
        (row.host, row.arm, row.block, row.reason, row)
        for row in content.periods
        if row.state == "invalid" and row.period_id not in named
    ]
    measured = sum(1 for row in content.periods if row.kind == "measure")
    out = sum(1 for *_, period in rows if period is not None and period.kind == "measure")
    if not rows:
        text = f"Nothing: all {_count(measured, 'measured period')} were used." if measured else "Nothing."
        return Section(key="excluded", title="What was left out, and why", paragraphs=(text,))
    table = Table(
        caption="Periods not used",
        headers=("host", "arm", "block", "attempt", "started", "reason"),
        rows=tuple(
            (
                Cell(text=host),
                Cell(text=arm),
                Cell(text=str(block) if block >= 0 else DASH),
                Cell(text="unknown" if period is None else str(period.attempt)),
                Cell(text="unknown" if period is None else instant(period.started_at)),
                Cell(text=reason or "no reason was recorded"),
            )
            for host, arm, block, reason, period in rows[:MOST_ROWS]
        ),
        align="lnrrnl",
    )
    paragraphs = [f"{measured - out} of {_count(measured, 'measured period')} were used."] if measured else []
    paragraphs += _left_off(len(rows))
    return Section(key="excluded", title="What was left out, and why", paragraphs=tuple(paragraphs), tables=(table,))


# ---------------------------------------------------------------------------- can it be trusted
def _checks(content: ReportInput) -> Section:
    tables: list[Table] = []
    if content.findings.checks:
        tables.append(
            Table(
                caption="Checks of the experiment itself",
                headers=("check", "result", "p", "what was seen"),
                rows=tuple(_check_cells(row) for row in content.findings.checks),
                align="llrl",
            )
        )
    tables += _role_table(content, Role.OBSERVER, "What watching cost")
    paragraphs = () if content.findings.checks else ("No integrity check was made.",)
    return Section(key="checks", title="Integrity checks", paragraphs=paragraphs, tables=tuple(tables))


def _check_cells(check: Check) -> tuple[Cell, ...]:
    result, tone = {True: ("passed", "good"), False: ("failed", "bad"), None: ("not testable", "quiet")}[check.passed]
    return (
        Cell(text=check.name),
        Cell(text=result, tone=tone),
        Cell(text=DASH if check.p_value is None else p_text(check.p_value)),
        Cell(text=check.detail),
    )


def p_text(value: float) -> str:
    """Show a p-value; what is too small to mean anything is '< 0.001'."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _estimates(content: ReportInput) -> Section:
    alpha = content.findings.alpha
    rows = tuple(_estimate_cells(row, alpha) for row in content.findings.estimates[:MOST_ROWS])
    if not rows:
        return Section(key="estimates", title="Every estimate", paragraphs=("There are none.",))
    headers = ("metric", "arm", "role", "change [interval]", "p", "adjusted p", "n", "method", "remarks")
    table = Table(caption="Every estimate and how it was made", headers=headers, rows=rows, align="lnnlrrrll")
    text = f"Error rate {number(alpha * 100)} %. A sensitivity or subgroup row is a check, never the result."
    left_off = _left_off(len(content.findings.estimates))
    return Section(key="estimates", title="Every estimate", paragraphs=(text, *left_off), tables=(table,))


def _estimate_cells(estimate: Estimate, alpha: float) -> tuple[Cell, ...]:
    row = estimate_row(estimate, alpha)
    role = [estimate.role.value]
    role += [] if estimate.headline else ["sensitivity"]
    role += [f"stratum {estimate.stratum}"] if estimate.stratum else []
    role += [f"stage {estimate.stage}"] if estimate.stage is not None else []
    count = f"{estimate.n_control} + {estimate.n_treatment}"
    return (
        Cell(text=estimate.metric, code=True),
        Cell(text=estimate.treatment),
        Cell(text=", ".join(role)),
        Cell(text=row.change, note=row.interval),
        Cell(text=DASH if estimate.p_value is None else p_text(estimate.p_value)),
        Cell(text=DASH if estimate.p_adjusted is None else p_text(estimate.p_adjusted)),
        Cell(text=count),
        Cell(text=estimate.method, note=estimate.estimand),
        Cell(text=row.remark or DASH),
    )


# ---------------------------------------------------------------------------- where, and how again
def _environment(content: ReportInput) -> Section:
    rows = tuple((Cell(text=label), Cell(text=value)) for label, value in content.environment)
    if not rows:
        return Section(key="environment", title="Environment", paragraphs=("The hosts' facts were not recorded.",))
    table = Table(caption="Where it was measured", headers=("fact", "value"), rows=rows, align="ll")
    return Section(key="environment", title="Environment", tables=(table,))


def _reproduce(content: ReportInput) -> Section:
    versions = tuple((Cell(text=name), Cell(text=version, code=True)) for name, version in content.versions.items())
    arms = Table(
        caption="Arms",
        headers=("arm", "knobs", "workload"),
        rows=tuple(
            (
                Cell(text=arm.name, note="control" if arm.name == content.control else ""),
                Cell(text=", ".join(f"{knob} = {value}" for knob, value in arm.knobs.items()) or "as found"),
                Cell(text=arm.workload or "watched only"),
            )
            for arm in content.arms
        ),
        align="lll",
    )
    named = Table(caption="Versions", headers=("what", "version"), rows=versions, align="ll")
    listings = [
        Listing(title="Run it again", text=content.command, language="sh"),
        Listing(title="The experiment as it was read", text=content.spec, language="yaml"),
    ]
    listings += [Listing(title=row.title, text=row.sql, language="sql") for row in content.suggestions]
    return Section(
        key="reproduce",
        title="How to reproduce",
        paragraphs=(f"Randomised with seed {content.seed}; equal seeds and hosts give equal plans.",),
        tables=tuple(table for table in (arms, named) if table.rows),
        listings=tuple(item for item in listings if item.text.strip()),
    )


def _left_off(count: int) -> tuple[str, ...]:
    return (f"The table shows the first {MOST_ROWS} of {count:,} rows; the store has them all.",) * (count > MOST_ROWS)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
