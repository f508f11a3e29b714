"""Whether hosts have shown that a huge page size behaves on their kernel, where a spec requires it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agents.conformance.registry import SCENARIOS
from agents.conformance.verdict import PageVerdict
from agents.messages import HostFacts
from fleetexp.earlier_runs import reading_store
from fleetexp.errors import RunError
from fleetexp.experiment import Experiment
from fleetexp.fleets.inventory import shown
from fleetexp.store.records import PageSizeRecord
from fleetexp.store.url import StoreUrl

INDISPENSABLE = "allocation"  # that it could not be tried is no excuse for it
_SHOWN = 4


def nonconforming(experiment: Experiment, facts: Sequence[HostFacts], store_url: StoreUrl) -> Iterator[RunError]:
    """Yield why hosts may not run an experiment that requires a page size to behave; the store is only read."""
    size_bytes = experiment.requires.conformance
    if size_bytes is None:
        return
    size_kib = size_bytes // 1024
    with reading_store(store_url) as store:
        tried = [] if store is None else store.conformance([one.host for one in facts], size_kib)
    by_host = {(one.host, one.kernel): one for one in tried}
    unfit = {one.host: why for one in facts if (why := why_not(by_host.get((one.host, one.kernel)), one.kernel))}
    if unfit:
        yield RunError(
            f"{len(unfit)} of {len(facts)} hosts have not shown that pages of {size_kib} kB behave: {shown(unfit, 3)}",
            where="requires.conformance",
            remedy=f"run 'fleetexp conform --size {size_kib}kB' there with this store, or leave those hosts out",
        )


def why_not(record: PageSizeRecord | None, kernel: str) -> str:
    """Say what is wrong with what a host has shown under a kernel; '' where it will do."""
    if record is None:
        return f"never tried under {kernel}"
    if record.given_up:
        return f"given up in mid-trial: {record.given_up}"
    if record.open_trial:
        return "its newest trial has not ended: it goes on, was killed, or the host died of it"
    if failed := [name for name, verdict in record.verdicts.items() if verdict is PageVerdict.FAIL]:
        return f"failed: {', '.join(failed)}"
    if untried := [one.name for one in SCENARIOS if one.name not in record.verdicts]:
        return f"not tried yet: {', '.join(untried[:_SHOWN])}{', ...' if len(untried) > _SHOWN else ''}"
    if record.verdicts[INDISPENSABLE] is not PageVerdict.PASS:
        return f"{INDISPENSABLE} was skipped"
    return ""
