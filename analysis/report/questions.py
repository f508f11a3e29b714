"""The questions that reviewers of big pages ask of every rollout, each answered from the data or said to be open."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from analysis.plan import Role
from analysis.quantities import number, quantity
from analysis.report.content import ExposureRow, ReportInput
from analysis.report.effects import EffectOutcome, EffectRow, effect_rows
from analysis.report.page import Cell, ReportSection, Table
from analysis.report.tables import directions
from analysis.results import Estimate, EstimateKind, Verdict
from analysis.wording import effect_words

_MEMORY = ("memory_used_bytes", "cgroup_memory_bytes")
_TABLES = ("page_table_bytes", "cgroup_page_table_bytes", "nr_page_table_pages")
_HARM = ("oom", "psi", "p99", "latency", "pswp", "pgscan", "compact")
# Page walks by the size of the page that they ended at, and in which form they say it best.
_WALKS = re.compile(r"(?:dtlb|dtlb_load|dtlb_store)_walks_(?:4k|2m|1g)(_share|_per_kilo_instruction|)(?: \(.*\))?")
_FORMS = ("_share", "_per_kilo_instruction", "")
_CAUSES_NAMED = 5
DOSES = {EstimateKind.COMPLIERS, EstimateKind.DOSE_RESPONSE}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAnswer:
    """One question with what the data say; `open` where they don't, and then `text` says why."""

    question: str
    text: str
    open: bool = False
    see: str = ""  # key of the section with the numbers


def questions(content: ReportInput) -> ReportSection:
    """Answer the six questions, each from the data or as 'not measured, because ...'."""
    rows = tuple(
        (
            Cell(text=answer.question),
            Cell(
                text=f"Not measured, because {answer.text}" if answer.open else answer.text,
                tone="quiet" if answer.open else "",
            ),
        )
        for answer in answers(content)
    )
    table = Table(caption="Asked of every rollout of big pages", headers=("question", "answer"), rows=rows, align="ll")
    return ReportSection(key="questions", title="What reviewers ask", tables=(table,))


def answers(content: ReportInput) -> tuple[QuestionAnswer, ...]:
    """Return the answers, in the order in which the kernel's reviewers asked."""
    treated = [row for row in content.exposure if row.arm != content.control]
    return (
        _splits(content, treated),
        _latency(content),
        _success(content, treated),
        _memory(content),
        _gain_with_backing(content),
        _harm(content),
    )


def _splits(content: ReportInput, treated: list[ExposureRow]) -> QuestionAnswer:
    question = "How often do big pages split, and why?"
    parts = []
    for row in treated:
        seconds = content.host_seconds.get(row.arm)
        if row.splits is not None and seconds:
            rate = number(row.splits / (seconds / 3600))
            size = quantity(row.page_size_kib, "KiB")
            parts.append(f"{row.arm}, {size}: {number(row.splits)} pages split, {rate} per host and hour")
    for mappings in content.mapping_splits:
        seconds = content.host_seconds.get(mappings.arm)
        if mappings.arm != content.control and seconds:
            rate = number(mappings.splits / (seconds / 3600))
            what = f"{number(mappings.splits)} mappings split ({mappings.metric})"
            parts.append(f"{mappings.arm}: {what}, {rate} per host and hour")
    if not parts:
        return QuestionAnswer(question=question, text="no counter of splits was read under a treated arm.", open=True)
    why = _why_split(content)
    if not why:
        because = content.split_causes or "no tracing was set up on these hosts"
        why = f"Why they split was not measured: {because}."
    return QuestionAnswer(question=question, text=f"{'; '.join(parts)}. {why}", see="kernel")


def _why_split(content: ReportInput) -> str:
    """Name the most frequent causes under the treated arms, with their programs; '' where none was traced."""
    rows = sorted((row for row in content.caused_splits if row.arm != content.control), key=lambda row: -row.splits)
    if not rows:
        return ""
    parts = []
    for row in rows[:_CAUSES_NAMED]:
        lost = "" if row.seconds_lost is None else f", {quantity(row.seconds_lost, 'seconds')} lost"
        program = row.program or "others"
        parts.append(f"{row.cause.replace('_', ' ')} by {program} {number(row.splits)} ({row.arm}{lost})")
    more = len(rows) - len(parts)
    return f"Why, as traced: {'; '.join(parts)}{f'; {more} more' if more > 0 else ''}."


def _latency(content: ReportInput) -> QuestionAnswer:
    question = "How long does getting one take?"
    rows = [row for row in content.latencies if row.arm != content.control] or list(content.latencies)
    traced = _fault_stalls(content)
    if not rows and not traced:
        text = "no workload here times its faults; 'page_fault' does, and 'pointer_chase' times the region's."
        return QuestionAnswer(question=question, text=text, open=True)
    parts = [
        f"{row.arm}: median {quantity(row.p50, row.unit)}, 99 % below {quantity(row.p99, row.unit)}, "
        f"worst {quantity(row.maximum, row.unit)} ({row.metric})"
        for row in rows
    ]
    parts += traced
    return QuestionAnswer(question=question, text=f"{'; '.join(parts)}.", see="kernel")


def _fault_stalls(content: ReportInput) -> list[str]:
    """Say of each arm and function what all programs together waited, as traced."""
    parts = []
    waited = [row for row in content.stalls if row.seconds_lost is not None and row.longest_seconds is not None]
    for arm, function in dict.fromkeys((row.arm, row.function) for row in waited):
        rows = [row for row in waited if (row.arm, row.function) == (arm, function)]
        calls, lost = sum(row.calls for row in rows), sum(row.seconds_lost or 0.0 for row in rows)
        longest = max(row.longest_seconds or 0.0 for row in rows)
        parts.append(
            f"{arm}, {function.replace('_', ' ')} as traced: {number(calls)} calls, "
            f"{quantity(lost / calls, 'seconds')} each, none longer than {quantity(longest, 'seconds')}"
        )
    return parts


def _success(content: ReportInput, treated: list[ExposureRow]) -> QuestionAnswer:
    question = "How often is there one, when memory is scarce or fragmented?"
    parts = [
        f"{row.arm}, {quantity(row.page_size_kib, 'KiB') if row.page_size_kib else 'largest size'}: "
        f"{number(100 * row.given / row.asked)} % of {number(row.asked)} asked for"
        for row in content.supplies
    ]
    for row in () if parts else treated:
        asked = (row.faulted_pages or 0.0) + (row.fallbacks or 0.0)
        if row.faulted_pages is None or row.fallbacks is None or asked == 0:
            continue
        size = quantity(row.page_size_kib, "KiB")
        parts.append(f"{row.arm}, {size}: {number(100 * row.faulted_pages / asked)} % of {number(asked)} asked for")
    if not parts:
        return QuestionAnswer(question=question, text="no big page was asked for under a treated arm.", open=True)
    bands = len({(row.circumstance, row.least) for row in content.successes})
    more = "" if bands > 1 else " All in one range of free memory: how it does when memory is scarce stays open."
    return QuestionAnswer(question=question, text=f"{'; '.join(parts)}.{more}", see="kernel")


def _memory(content: ReportInput) -> QuestionAnswer:
    question = "How much more memory does it take, and how much goes to page tables?"
    used, tables = _of(content, _MEMORY), _of(content, _TABLES)
    if not used:
        text = "memory in use is not a metric of this experiment; name memory_used_bytes as a guardrail."
        return QuestionAnswer(question=question, text=text, open=True)
    said = [_change(row) for row in used]
    said += [_change(row) for row in tables] or ["page tables were no metric of this experiment (page_table_bytes is)"]
    return QuestionAnswer(question=question, text=f"{'; '.join(said)}.", see="effects")


def _gain_with_backing(content: ReportInput) -> QuestionAnswer:
    question = "Does the gain come with the backing, or would smaller big pages do?"
    rows = [row for row in content.findings.estimates if row.kind in DOSES]
    sizes = {row.page_size_kib for row in content.exposure if row.backed_bytes}
    against = (
        "Two sizes were compared above."
        if len(sizes) > 1
        else "Whether a smaller size would do takes an arm with that size."
    )
    walks = _walks_by_size(content)
    if walks:
        against = f"Page walks by the size of the page: {'; '.join(map(_change, walks))}. {against}"
        if not rows:
            return QuestionAnswer(question=question, text=against, see="effects")
    if not rows:
        if content.design == "switchback":
            text = "a switchback gives every period its whole dose; it takes hosts that received different amounts. "
            return QuestionAnswer(question=question, text=text + against, open=True)
        return QuestionAnswer(question=question, text=f"no host's backing was read. {against}", open=True)
    said = [_per_dose(row, content.findings.alpha) for row in rows]
    return QuestionAnswer(question=question, text=f"{'; '.join(said)}. {against}", see="doses")


def _walks_by_size(content: ReportInput) -> list[EffectRow]:
    """Return how page walks by page size changed, where they were counted: as shares of all walks if there are any."""
    rows = effect_rows(content.findings, better=directions(content))
    by_form = [[row for row in rows if (m := _WALKS.fullmatch(row.metric)) and m[1] == form] for form in _FORMS]
    return next(filter(None, by_form), [])


def per_readable_dose(row: Estimate) -> Estimate:
    """Return an effect per byte as one per GiB: nobody receives a byte."""
    if not row.unit.endswith(" per bytes"):
        return row
    interval = row.difference_interval
    return replace(
        row,
        unit=row.unit.removesuffix("bytes") + "GiB",
        difference=None if row.difference is None else row.difference * 2**30,
        difference_interval=None
        if interval is None
        else replace(
            interval,
            low=None if interval.low is None else interval.low * 2**30,
            high=None if interval.high is None else interval.high * 2**30,
        ),
    )


def _per_dose(row: Estimate, alpha: float) -> str:
    how = "observational" if row.kind is EstimateKind.DOSE_RESPONSE else "by assignment"
    return f"{row.treatment}: {effect_words(per_readable_dose(row), alpha)} ({how})"


def _harm(content: ReportInput) -> QuestionAnswer:
    question = "Does anything else get hurt?"
    rails = content.findings.guardrails
    failed = [rail.plan.metric for rail in rails if rail.verdict is Verdict.FAIL]
    unsure = [rail.plan.metric for rail in rails if rail.verdict is Verdict.INCONCLUSIVE]
    passed = [rail.plan.metric for rail in rails if rail.verdict is Verdict.PASS]
    worse = [
        row
        for row in effect_rows(content.findings, better=directions(content))
        if row.outcome is EffectOutcome.WORSE and row.role is not Role.GUARDRAIL
    ]
    watched = [row.metric for row in content.findings.estimates if any(word in row.metric for word in _HARM)]
    if not rails and not watched:
        text = "no guardrail was named, and neither OOM kills nor pressure nor tail latency were metrics."
        return QuestionAnswer(question=question, text=text, open=True)
    said = [f"guardrail failed: {_names(failed)}"] if failed else []
    said += [f"harm not ruled out: {_names(unsure)}"] if unsure else []
    said += [f"harm ruled out: {_names(passed)}"] if passed else []
    said += [f"worse as well: {'; '.join(_change(row) for row in worse)}"] if worse else []
    text = ". ".join(part[0].upper() + part[1:] for part in said)
    return QuestionAnswer(question=question, text=f"{text}." if text else "Nothing that was watched.", see="guardrails")


def _of(content: ReportInput, metrics: Iterable[str]) -> list[EffectRow]:
    rows = effect_rows(content.findings, better=directions(content))
    for name in metrics:
        if found := [row for row in rows if row.metric == name]:
            return found
    return []


def _change(row: EffectRow) -> str:
    between = " " if row.is_clear else ", "
    return f"{row.treatment_arm}, {row.metric}: {row.change}{between}{row.figures}".rstrip(" ,")


def _names(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
