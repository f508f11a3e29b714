"""What the metrics of a run's analysis really were on each host, as far as its CPU or its page size decides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from agents.catalogue import CataloguePage, describe, find_derived, is_known
from fleetexp.store.store import Store

if TYPE_CHECKING:  # pandas takes half a second
    from analysis.meanings import Meanings


def meanings_of(store: Store, run_id: int, metrics: Iterable[str]) -> Meanings:
    """Return for each metric counted by perf events or in pages, or derived from such, what it was on each host.

    Of pages that is told only where hosts have them of different sizes. Of several counts behind a metric those are
    named that are not the same everywhere.
    """
    terms = {name: (name,) if (derived := find_derived(name)) is None else derived.inputs for name in metrics}
    known: dict[str, dict[str, set[str]]] = {}
    for one in store.counted_events(run_id):
        known.setdefault(one.metric, {}).setdefault(one.host, set()).add(one.meaning)
    asked = {term: describe(term).page for behind in terms.values() for term in behind if is_known(term)}
    in_pages = {term: page for term, page in asked.items() if page is not None}
    sizes = store.page_bytes(run_id) if in_pages else {}
    for term, page in in_pages.items():
        if of_host := _in_pages(page, sizes):
            known[term] = of_host
    found: dict[str, Mapping[str, str]] = {}
    for name, behind in terms.items():
        parts = [known[term] for term in behind if term in known]
        unlike = [part for part in parts if len({frozenset(meanings) for meanings in part.values()}) > 1] or parts[:1]
        hosts = sorted({host for part in unlike for host in part})
        if hosts:
            found[name] = {host: " and ".join(_words(part.get(host, set())) for part in unlike) for host in hosts}
    return found


def _in_pages(page: CataloguePage, sizes: Mapping[str, tuple[int, int]]) -> dict[str, set[str]]:
    """Say of what size the pages of each host are; nothing where they are of one size."""
    own = {host: base if page is CataloguePage.BASE else pmd for host, (base, pmd) in sizes.items()}
    if len(set(own.values())) < 2:
        return {}
    return {host: {f"{page}s of {size // 1024} KiB"} if size else set() for host, size in own.items()}


def _words(meanings: set[str]) -> str:
    return " or ".join(sorted(meanings)) or "not known"
