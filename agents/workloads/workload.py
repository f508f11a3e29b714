"""What a workload is: a name, options, what it measures, and how it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from agents.catalogue.declared import Reporter, reporters
from agents.sysroot import SysRoot
from agents.workloads.emit import Emit
from agents.workloads.option import Options, options_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload(Reporter):
    """A kind of workload, declared at the top of its module.

    `run` measures in a process of its own until it is done or ended, and says so through `Emit`; None for what is not
    ours: a program of the user's, a service that runs anyway. These may report metrics that nobody has declared.
    """

    options: type[Options]
    run: Callable[[Any, SysRoot, Emit], None] | None = None


@cache
def workloads() -> Mapping[str, Workload]:
    """Return every kind of workload by its name; the first that has a name keeps it, and fleetexp's own come first."""
    kinds: dict[str, Workload] = {}
    for one in reporters():
        if isinstance(one, Workload) and one.name not in kinds:
            try:
                options_of(one.options)
            except (KeyError, TypeError) as error:  # of a user's package: the others go on
                log.warning("the workload %s is left out, its options are declared otherwise: %r", one.name, error)
                continue
            kinds[one.name] = one
    return kinds
