"""The instants that pages give for their values: in the unit of the format, of now, each new."""

from __future__ import annotations

from datetime import UTC, datetime

from agents.metric_sources.unreadable import Unreadable

OUTDATED_SECONDS = 60.0  # older at a single reading: no period would take it
FUTURE_SECONDS = 1.0  # an instant on a page may be so far ahead: the clock of the writer is another
_AROUND_SECONDS = 366 * 86400.0  # further away it is not an instant of this experiment, whatever its unit
_UNITS = {1e9: "nanoseconds", 1e6: "microseconds", 1e3: "milliseconds", 1.0: "seconds"}
_REMEDY = "let the exporter write its instants in {unit} of now, or none"


def check_instant(seconds: float, *, now_seconds: float, written_as: float) -> None:
    """Raise Unreadable for an instant that a page can't mean: beyond the calendar, or in another unit than its own.

    `seconds` are since 1970; `written_as` is how many of the page's own units make one.
    """
    if abs(seconds - now_seconds) <= _AROUND_SECONDS:
        return
    written, own = seconds * written_as, _UNITS[written_as]
    meant = [unit for many, unit in _UNITS.items() if abs(written / many - now_seconds) <= _AROUND_SECONDS]
    why = f"it looks like {meant[0]}" if meant else "it is far from now"
    what = f"the page gives its value the instant {written:.17g}, in {own} by its format: {why}"
    raise Unreadable(what, _REMEDY.format(unit=own))


def check_age(seconds: float, *, oldest_seconds: float, now_seconds: float, since: str) -> None:
    """Raise Unreadable for an instant that is to come, or before `oldest_seconds`, which `since` names."""
    if seconds > now_seconds + FUTURE_SECONDS:
        what = f"the page says that its value is of {_written(seconds)}, which is to come"
        raise Unreadable(what, "set the clocks of this host and of the writer")
    if seconds < oldest_seconds:
        what = f"the page says that its value is of {_written(seconds)}, {since}"
        raise Unreadable(what, "let the exporter give present values, or none of its own instants")


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
