"""Instants and lengths of time as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from analysis.errors import BadObservations


def instant(at: datetime | None) -> str:
    """Show an aware instant in UTC to the second; BadObservations for a naive one."""
    return "unknown" if at is None else f"{_utc(at):%Y-%m-%d %H:%M:%S} UTC"


def clock(at: datetime | None) -> str:
    """Show only the time of day, in UTC."""
    return "unknown" if at is None else f"{_utc(at):%H:%M:%S}"


def seconds_between(start: datetime, end: datetime) -> float:
    return (_utc(end) - _utc(start)).total_seconds()


def length(seconds: float) -> str:
    """Show a length of time in its two largest parts: '4 min 12 s'."""
    whole = round(seconds)
    if abs(seconds) < 10:
        return f"{round(seconds, 1):g} s"
    parts: list[str] = []
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count} {name}")
    shown = [part for part in parts[:2] if not part.startswith("0 ")]
    return " ".join(shown)


def _utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise BadObservations(
            f"an instant without a time zone: {at.isoformat()}", "report", "give aware UTC datetimes to the report"
        )
    return at.astimezone(UTC)
