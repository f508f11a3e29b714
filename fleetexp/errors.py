"""Errors of the orchestrator's side. Every one says what failed, where, and the remedy, and survives a pickle.

FleetexpError
├── ConfigError          the experiment's YAML can't be used, or doesn't fit the hosts; nothing was touched
├── RunError             the run can't be started, resumed or stopped as asked
├── DataRefused          measurements that somebody brought can't be used; nothing of them was stored
└── StoreError           the database didn't take or give what was asked; nothing is half-written
    ├── BadStoreUrl          the URL names no database that fleetexp can use
    ├── WrongSchema          the database has another schema version than this fleetexp
    ├── StoreDamaged         the file is not a database, or a damaged one
    ├── StoreLocked          another writer held the database for too long
    ├── StoreFull            the disk is full, or the database has reached its limit
    ├── StoreUnreachable     no server answers, or the connection broke in mid-work
    ├── QueryRefused         the SQL of a reader is wrong, tries to write, or asks for too much
    │   └── QueryTooLong         it took longer than it may
    └── NoSuchRun            the database holds no such run
"""

from __future__ import annotations

__all__ = [
    "BadStoreUrl",
    "ConfigError",
    "DataRefused",
    "FleetexpError",
    "NoSuchRun",
    "QueryRefused",
    "QueryTooLong",
    "RunError",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnreachable",
    "WrongSchema",
]

PROBLEMS_SHOWN = 20  # in the text of a ConfigError; `problems` has them all


class FleetexpError(Exception):
    """Base of every error on this side; `what` failed, `where`, and the `remedy`."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        remedy = f" — {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}{remedy}"


class ConfigError(FleetexpError):
    """The spec can't be used. `problems` lists each thing found as one line: file:line:column key: what — remedy."""

    def __init__(self, what: str, where: str = "", remedy: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(what, where, remedy)
        self.args = (what, where, remedy, problems)
        self.problems = problems

    def __str__(self) -> str:
        head = FleetexpError.__str__(self)
        if len(self.problems) < 2:
            return head
        more = len(self.problems) - PROBLEMS_SHOWN
        rest = (f"and {more} more",) if more > 0 else ()
        return "\n  ".join((head, *self.problems[:PROBLEMS_SHOWN], *rest))


class RunError(FleetexpError):
    """The run can't be started, resumed or stopped as asked."""


class DataRefused(FleetexpError):
    """Measurements that somebody brought can't be used; nothing of them was stored."""


class StoreError(FleetexpError):
    """The database didn't take or give what was asked. What one call writes is in whole, or not at all."""


class BadStoreUrl(StoreError):
    """The URL names no database that fleetexp can use."""


class WrongSchema(StoreError):
    """The database has another schema version than this fleetexp; it was not touched."""


class StoreDamaged(StoreError):
    """The file is not a database, or a damaged one."""


class StoreLocked(StoreError):
    """Another writer held the database for longer than the bounded wait; the same write may be tried again."""


class StoreFull(StoreError):
    """The disk is full, or the database has reached its limit; the same write may be tried again once there is room."""


class StoreUnreachable(StoreError):
    """No server answers, or the connection broke; the same write may be tried again: nothing is doubled."""


class QueryRefused(StoreError):
    """The SQL of a reader is wrong, tries to write, or asks for too much."""


class QueryTooLong(QueryRefused):
    """The question took longer than it may, its answer's way to the reader included."""

    @classmethod
    def after(cls, timeout_seconds: float, where: str) -> QueryTooLong:
        """Return what is said of a question that was cut off."""
        return cls(
            f"the query took longer than {timeout_seconds:g} s",
            where,
            "name a run, a metric, a host in its WHERE, or give it more time with --timeout",
        )


class NoSuchRun(StoreError):
    """The database holds no such run, period or host."""
