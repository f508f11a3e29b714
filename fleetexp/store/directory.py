"""Numbers of hosts, and which host and run a period belongs to: it never changes, so it is looked up once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from fleetexp.errors import NoSuchRun
from fleetexp.store.inserts import chunks
from fleetexp.store.tables import Host, StoredPeriod

_REMEMBERED = 100_000  # some 20 MB


@dataclass(frozen=True, slots=True)
class PeriodPlace:
    """Whose a period is."""

    run_id: int
    host: str


class Directory:
    """Remembers what it looked up. What a transaction that failed had looked up may never have been: `forget` it."""

    def __init__(self) -> None:
        self._hosts: dict[str, int] = {}
        self._periods: dict[int, PeriodPlace] = {}

    def forget(self) -> None:
        """Look everything up anew."""
        self._hosts.clear()
        self._periods.clear()

    def hosts(self, connection: Connection, names: Collection[str]) -> Mapping[str, int]:
        """Return at least the numbers of these hosts; NoSuchRun for one that no plan ever named."""
        unknown = [name for name in names if name not in self._hosts]
        if unknown:
            _make_room(self._hosts, unknown)
            unknown = [name for name in names if name not in self._hosts]
            for piece in chunks(unknown):
                statement = select(Host.name, Host.host_id).where(Host.name.in_(piece))
                self._hosts.update((found.name, found.host_id) for found in connection.execute(statement))
            for name in unknown:
                if name not in self._hosts:
                    raise NoSuchRun(
                        f"no run has a host {name!r}", name, "check the name; 'fleetexp runs' lists the runs"
                    )
        return self._hosts

    def periods(
        self, connection: Connection, period_ids: Collection[int], where: str = ""
    ) -> Mapping[int, PeriodPlace]:
        """Return at least the places of these periods; NoSuchRun for one that is not there."""
        unknown = [period_id for period_id in period_ids if period_id not in self._periods]
        if unknown:
            _make_room(self._periods, unknown)
            unknown = sorted(period_id for period_id in period_ids if period_id not in self._periods)
            for piece in chunks(unknown):
                statement = (
                    select(StoredPeriod.period_id, StoredPeriod.run_id, Host.name)
                    .join(Host, Host.host_id == StoredPeriod.host_id)
                    .where(StoredPeriod.period_id.in_(piece))
                )
                for period_id, run_id, host in connection.execute(statement):
                    self._periods[period_id] = PeriodPlace(run_id, host)
            for period_id in unknown:
                if period_id not in self._periods:
                    raise NoSuchRun(
                        f"there is no period {period_id}",
                        where or f"period {period_id}",
                        "it belongs to another database",
                    )
        return self._periods


def _make_room(known: dict[str, int] | dict[int, PeriodPlace], coming: Collection[object]) -> None:
    if len(known) + len(coming) > _REMEMBERED:
        known.clear()
