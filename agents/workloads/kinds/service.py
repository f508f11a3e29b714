"""A service that runs on the host anyway: `agents.workloads.service` watches it, and restarts it where asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agents.catalogue.declared import THROUGHPUT
from agents.workloads.option import Options, Wrong, switch, text
from agents.workloads.workload import Workload

_UNIT = r"[A-Za-z0-9_][A-Za-z0-9:_.\\@-]*\.(service|scope|slice)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Options):
    """A service that runs on the host anyway: watched, and restarted after a knob was written where asked for."""

    exactly_one_of = alone = ("unit", "cgroup")

    unit: str | None = text("unit of systemd", "web.service", pattern=_UNIT, called="unit")
    cgroup: str | None = text(
        "or a control group", "/system.slice/web.service", pattern="/.*[^/].*", called="control group"
    )
    restart: bool = switch(
        "whether it is restarted after its arm was applied",
        "on_apply",
        ("on_apply", "never"),
        default="never",
        must_be_said=True,
    )

    def wrong(self) -> Iterator[Wrong]:
        unit, cgroup = self.unit, self.cgroup
        if (unit is None) == (cgroup is None):
            yield "unit", "a service is one unit or one cgroup", "give exactly one of unit and cgroup"
        if unit is not None and not re.fullmatch(_UNIT, unit):
            yield "unit", f"{unit!r} is not a unit name", "write it as systemctl shows it, such as web.service"
        if cgroup is not None and (not cgroup.startswith("/") or ".." in cgroup.split("/") or not cgroup.strip("/")):
            yield "cgroup", f"{cgroup!r} is not a cgroup path", "write a path such as /system.slice/web.service"
        if self.restart and unit is None:
            yield "restart", "only a unit can be restarted", "name the unit, or set restart to never"

    @classmethod
    def shorthand(cls, value: str | tuple[object, ...]) -> str | None:
        if isinstance(value, str):
            return "cgroup" if value.startswith("/") else "unit"
        return None


WORKLOAD = Workload(name="service", options=Service, reports=(THROUGHPUT,))
