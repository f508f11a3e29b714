"""A run as the store shows it at one moment: state, stages, hosts, guardrails, what comes in and how late it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import click

from fleetexp.cli.output import console, duration, instant, labelled, visible

if TYPE_CHECKING:
    from rich.live import Live

    from fleetexp.domain import PeriodRecord
    from fleetexp.store.records import EventRecord, RunRecord
    from fleetexp.store.store import Store
    from fleetexp.store.url import Database

Rows = Sequence[tuple[str, str]]

_MOVING = frozenset({"run", "readings"})  # rows that hold a clock: they alone are no news
_SHOWN = 4  # running periods, reasons: as many as fit a screen beside the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What is being sampled now: the hosts, their readings a second, how old their newest readings are."""

    hosts: int
    readings_per_second: float
    newest_seconds: float
    behind: str  # the host whose newest reading is the oldest
    behind_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """One look at a run. `stages` are (hosts that have joined by its end, when it opened)."""

    record: RunRecord
    now: datetime
    periods: Sequence[PeriodRecord]
    stages: Sequence[tuple[int, datetime | None]]
    hosts: Mapping[str, int]  # what they are doing -> how many
    guardrails: Mapping[str, tuple[str, str]]  # metric -> the last test's verdict, and when that was
    incoming: Incoming | None
    asked: str = ""  # what is asked of the run and was not heard yet, by whom, and what that means
    audit: Sequence[EventRecord] = ()  # who launched it, paused, approved, resumed, aborted

    def as_json(self) -> dict[str, Any]:
        return {
            "stages": [{"hosts": hosts, "opened_at": at} for hosts, at in self.stages],
            "hosts": dict(self.hosts),
            "guardrails": {metric: verdict for metric, (verdict, _) in self.guardrails.items()},
            "incoming": self.incoming,
            "asked": self.asked or None,
            "audit": [{"at": one.at, "what": one.kind, "detail": one.detail} for one in self.audit],
        }


def look(store: Store, store_url: Database, record: RunRecord, now: datetime) -> RunStatus:
    """Ask the store all that is shown; StoreErrors come through."""
    from fleetexp.control.run_recovery import PEOPLE
    from fleetexp.web.pages import host_state, moment
    from fleetexp.web.run_queries import RunQueries

    queries, run_id = RunQueries(store_url), record.run_id
    audit = store.events(run_id, kinds=PEOPLE)
    guardrails: dict[str, tuple[str, str]] = {}
    for metric, _, stage, _, host, _, _, _, verdict, _ in queries.guardrails(run_id):  # the newest first
        when = "at the end" if stage is None else f"after stage {int(stage) + 1}"
        guardrails.setdefault(str(metric), (str(verdict), f"on {host}" if host else when))
    return RunStatus(
        record=record,
        now=now,
        periods=store.periods(run_id),
        stages=[(int(hosts), None if at is None else moment(at)) for _, hosts, at in queries.stages(run_id)],
        hosts=dict(Counter(host_state(row) for row in queries.hosts(run_id)).most_common()),
        guardrails=guardrails,
        audit=audit,
        asked=_asked(store.asked(run_id), record, audit, now),
        incoming=_incoming(
            [
                (host, moment(begun), int(count), moment(last))
                for host, begun, count, last in queries.rates(run_id)
                if last
            ],
            now,
        ),
    )


def _incoming(rows: Sequence[tuple[str, datetime, int, datetime]], now: datetime) -> Incoming | None:
    if not rows:
        return None
    lags = {host: max(0.0, (now - last).total_seconds()) for host, _, _, last in rows}
    took = ((count, (last - begun).total_seconds()) for _, begun, count, last in rows)
    behind = max(lags, key=lambda host: lags[host])
    return Incoming(
        hosts=len(rows),
        readings_per_second=sum(count / seconds for count, seconds in took if seconds > 0),
        newest_seconds=min(lags.values()),
        behind=behind,
        behind_seconds=lags[behind],
    )


def status_rows(seen: RunStatus) -> list[tuple[str, str]]:
    """Lay out a look as labels and texts."""
    from fleetexp.domain import Origin

    record = seen.record
    end = record.ended_at or seen.now
    took = duration(max(0.0, (end - record.started_at).total_seconds())) if record.started_at else "not started"
    reason = f": {record.reason}" if record.reason else ""
    imported = record.origin is Origin.IMPORT
    long = f"{took} of data" if imported else f"{took} of about {duration(record.plan.seconds)}"
    rows = [
        ("run", f"{record.run_id}, {record.experiment}: {long}"),
        ("state", f"{record.state.value.replace('_', ' ')}{reason}"),
        *([("asked", seen.asked)] if seen.asked else []),
        *_stages(seen),
        *_hosts(seen),
        *_periods(seen.periods),
    ]
    if (incoming := seen.incoming) is not None and not record.state.is_terminal:
        rows.append(("readings", _readings(incoming)))
    if seen.guardrails:
        said = (f"{metric} {verdict} {when}" for metric, (verdict, when) in seen.guardrails.items())
        rows.append(("guardrails", "; ".join(said)))
    if record.decision is not None:
        from analysis.wording import decision_label

        rows.append(("decision", f"{decision_label(record.decision)} — {record.decision_reason}"))
    rows += [
        ("audit", f"{instant(one.at)} UTC {one.kind.replace('_', ' ')}: {one.detail}")
        for one in seen.audit
        if one.kind != "launched"
    ]
    label, fleet = ("imported", "") if imported else ("launched", f", fleet {record.fleet}")
    rows.append((label, f"{instant(record.created_at)} UTC by {record.launched_by}{fleet}"))
    return rows


def _asked(request: tuple[str, str] | None, record: RunRecord, audit: Sequence[EventRecord], now: datetime) -> str:
    """Say what nobody has heard yet; a process that drives the run would have within seconds."""
    if request is None or record.state.is_terminal:
        return ""
    from fleetexp.control.run_requests import HEARD_WITHIN_SECONDS
    from fleetexp.domain import RunState

    how, who = request
    at = max((one.at for one in audit if one.kind == f"{how}_requested"), default=now)
    text, resume = f"{how}, by {who}", f"'fleetexp resume {record.run_id}'"
    if record.state is RunState.PAUSED:
        return f"{text}: {resume} will hear it"
    age = (now - at).total_seconds()
    if age <= HEARD_WITHIN_SECONDS:
        return f"{text}: not heard yet"
    return f"{text}: not heard in {duration(age)}, so no process seems to drive this run; {resume} takes it from here"


def _stages(seen: RunStatus) -> Iterator[tuple[str, str]]:
    if len(seen.stages) < 2:
        return
    opened = [(place, hosts, at) for place, (hosts, at) in enumerate(seen.stages, 1) if at is not None]
    total = seen.stages[-1][0]
    if not opened:
        yield "stages", f"none of {len(seen.stages)} has opened; {total} hosts by the end"
        return
    place, hosts, at = opened[-1]
    yield "stages", f"{place} of {len(seen.stages)}, opened {instant(at)} UTC; {hosts} of {total} hosts have joined"


def _hosts(seen: RunStatus) -> Iterator[tuple[str, str]]:
    if sum(seen.hosts.values()) > 1:
        yield "hosts", ", ".join(f"{count} {state}" for state, count in seen.hosts.items())


def _periods(periods: Sequence[PeriodRecord]) -> Iterator[tuple[str, str]]:
    from fleetexp.domain import PeriodKind, PeriodState

    counts = Counter(period.state for period in periods)
    done = f"{counts[PeriodState.COMPLETE]} of {len(periods)} complete"
    if counts[PeriodState.INVALID]:
        done += f", {counts[PeriodState.INVALID]} invalid"
    yield "periods", done
    running = [period for period in periods if period.state is PeriodState.RUNNING]
    for period in running[: _SHOWN if len(running) <= _SHOWN else 0]:  # of many, the counts of hosts say more
        doing = "measuring" if period.plan.kind is PeriodKind.MEASURE else period.plan.kind.value
        where = f", block {period.plan.block + 1}" if period.plan.block >= 0 else ""
        yield "now", f"{period.host}: {period.plan.arm}{where}, {doing}"
    reasons = Counter(period.reason for period in periods if period.state is PeriodState.INVALID)
    for why, times in reasons.most_common(_SHOWN):
        yield "invalid", f"{why} ({times} periods)" if times > 1 else why
    if len(reasons) > _SHOWN:
        yield "invalid", f"and {len(reasons) - _SHOWN} other reasons: 'fleetexp report' has them all"


def _readings(incoming: Incoming) -> str:
    text = f"{incoming.readings_per_second:,.1f} a second; the newest is {duration(incoming.newest_seconds)} old"
    if incoming.hosts > 1:
        text += f", that of {incoming.behind} {duration(incoming.behind_seconds)}"
    return text


def away(error: Exception) -> tuple[str, str]:
    """Say that the store does not answer, and that it is asked again."""
    return "store", f"no answer, asking again: {error}"


class WatchView(Protocol):
    """Something on which the looks at a run are shown, one after the other."""

    def show(self, rows: Rows) -> None: ...


@contextmanager
def watch_view() -> Iterator[WatchView]:
    """Open the view that fits: one picture that changes on a terminal, only what is news elsewhere."""
    screen = console()
    if not screen.is_terminal:
        yield NewsView()
        return
    from rich.live import Live

    with Live(console=screen, auto_refresh=False) as live:
        yield PictureView(live)


class NewsView:
    """The whole again whenever anything but a clock has changed."""

    def __init__(self) -> None:
        self._said: list[tuple[str, str]] = []

    def show(self, rows: Rows) -> None:
        news = [row for row in rows if row[0] not in _MOVING]
        if news == self._said:
            return
        lines = [labelled(label, visible(text)) for label, text in rows]
        click.echo("\n".join([*([""] if self._said else []), *lines]))
        self._said = news


class PictureView:
    """The same place of the screen, drawn again."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, rows: Rows) -> None:
        from rich.text import Text

        self._live.update(Text("\n".join(labelled(label, visible(text)) for label, text in rows)), refresh=True)
