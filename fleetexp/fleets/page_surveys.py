"""Asking the hosts of a fleet what huge pages would do for their processes; reads only, and every host at once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from agents.survey.figures import PageSurvey, SurveyPages
from agents.timeouts import timeout_factor
from fleetexp.errors import RunError
from fleetexp.fleets.inventory import Inventory, shown

_SETTLING_SECONDS = 60.0 * timeout_factor()  # beyond what the survey itself may take: an agent starts, a reply travels
_SIMULATED = "simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSurvey:
    """The surveys of the hosts that answered, by name, and why the others have none."""

    surveys: tuple[PageSurvey, ...] = ()
    without: dict[str, str] = field(default_factory=dict)


def survey_fleet(inventory: Inventory, asked: SurveyPages, pools: Collection[str] = ()) -> FleetSurvey:
    """Survey every host of these pools, all where none is named. A host that is in a run is surveyed too.

    RunError where there is nothing to survey: simulated hosts have no processes, no host is of these pools, or none
    answers; of a single host its own error.
    """
    if inventory.name == _SIMULATED:
        raise RunError("simulated hosts have no processes", "--fleet simulated", "survey real hosts: --fleet ray")
    found = [one for one in inventory.survey() if not pools or one.labels.get("pool") in pools]
    if not found:
        where = f"--pool {', '.join(pools)}" if pools else f"--fleet {inventory.name}"
        raise RunError("no host is there to survey", where, "see 'fleetexp hosts' and docs/DEPLOY.md")
    without = {one.host: one.unusable or "it gave no facts" for one in found if one.facts is None}
    reachable = [one.host for one in found if one.facts is not None]
    surveys: dict[str, PageSurvey] = {}
    refused: dict[str, Exception] = {}
    if reachable:
        fleet = inventory.open(reachable, "survey")
        try:
            for host in reachable:
                fleet.send(host, asked, asked.at_most_seconds + _SETTLING_SECONDS)
            while len(surveys) + len(refused) < len(reachable):
                for answer in fleet.receive(1.0):
                    if isinstance(answer.reply, PageSurvey):
                        surveys[answer.host] = answer.reply
                    else:
                        refused[answer.host] = answer.error or TypeError(f"it answered {type(answer.reply).__name__}")
        finally:
            fleet.close()
    without |= {host: str(error) for host, error in refused.items()}
    if not surveys:
        if len(found) == len(refused) == 1:
            raise next(iter(refused.values()))
        raise RunError("no host could be surveyed", shown(without), "see 'fleetexp hosts'")
    return FleetSurvey(surveys=tuple(surveys[host] for host in sorted(surveys)), without=without)
