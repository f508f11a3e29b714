"""What the metrics of a run's analysis really were on each host, as far as the CPU decides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from agents.catalogue import find_derived
from fleetexp.store.records import CountedRecord

if TYPE_CHECKING:  # pandas takes half a second
    from analysis.meanings import Meanings


def meanings_of(counted: Iterable[CountedRecord], metrics: Iterable[str]) -> Meanings:
    """Return for each metric that is counted by perf events, or derived from some, what it was on each host.

    Of several events behind a metric those are named that are not the same everywhere.
    """
    known: dict[str, dict[str, set[str]]] = {}
    for one in counted:
        known.setdefault(one.metric, {}).setdefault(one.host, set()).add(one.meaning)
    found: dict[str, Mapping[str, str]] = {}
    for name in metrics:
        derived = find_derived(name)
        parts = [known[term] for term in (derived.inputs if derived is not None else (name,)) if term in known]
        unlike = [part for part in parts if len({frozenset(meanings) for meanings in part.values()}) > 1] or parts[:1]
        hosts = sorted({host for part in unlike for host in part})
        if hosts:
            found[name] = {host: " and ".join(_words(part.get(host, set())) for part in unlike) for host in hosts}
    return found


def _words(meanings: set[str]) -> str:
    return " or ".join(sorted(meanings)) or "not known"
