"""Running scenarios on this host: under a claim, each by itself; where the kernel is sick, the host is given up."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agents.claim import HostClaim, take_claim
from agents.collectors.kernel_log import SICK_TAINTS, KernelLog, taint_names
from agents.conformance.counters import read_counters
from agents.conformance.process import ScenarioProcess, Try
from agents.conformance.scenario import Scenario
from agents.conformance.verdict import (
    Conformance,
    Outcome,
    PageCheck,
    PageVerdict,
    ScenarioResult,
    Trial,
    VerdictCause,
    judge,
)
from agents.errors import UnknownKnob
from agents.knobs import find_knob
from agents.messages import Arm, HostEventKind
from agents.node_identity import here
from agents.numbers import whole_number
from agents.page_sizes import THP, sizes_in, thp_sizes, thp_switch
from agents.recovery import boot_id, incomplete
from agents.sysroot import FolderRoot, SysRoot

RUN = "conformance"  # what the claim is called by
LEASE_SECONDS = 60.0
_TRIES = 5  # of a scenario whose counters rose by more than it did
_IDLE_SECONDS = 0.5
_TOP, _DEFRAG = "thp/enabled", "thp/defrag"
_SICK = frozenset({HostEventKind.KERNEL_OOPS, HostEventKind.BAD_PAGE})


def conform(
    size_kib: int,
    scenarios: Sequence[Scenario],
    *,
    owner: str,
    lease_seconds: float = LEASE_SECONDS,
    limit_seconds: float | None = None,
    begun: Callable[[Trial], None] = lambda trial: None,
    told: Callable[[ScenarioResult], None] = lambda result: None,
) -> Conformance:
    """Run scenarios with pages of one size on this machine; `begun` and `told` hear what is known, at once.

    This size is set to `madvise` meanwhile, by a claim whose guardian puts back what was found, whatever happens here.
    `limit_seconds`: for each scenario, instead of its own.

    Raises UnknownKnob where this kernel has no such size, what `take_claim` raises (not root: KnobNotWritable), and
    RestoreIncomplete where something could not be put back.
    """
    root = FolderRoot()
    switch = size_switch(root, size_kib)
    knobs = [knob for knob in dict.fromkeys((switch, _TOP, _DEFRAG)) if _has(root, knob)]
    claim = take_claim(root, run=RUN, owner=owner, knobs=knobs, lease_seconds=lease_seconds)
    results: list[ScenarioResult] = []
    health = KernelHealth(root)
    given_up = ""
    try:
        trial = _trial(root, size_kib)
        begun(trial)
        runner = _Runner(root, size_kib, claim, switch, health=health, limit_seconds=limit_seconds)
        for scenario in scenarios:
            if given_up:
                result = _skipped(scenario, f"the host was given up: {given_up}")
            else:
                result, given_up = runner.result(scenario)
            results.append(result)
            told(result)
    finally:
        health.close()
        _put_back(claim)
    return Conformance(trial=trial, ended_at=root.clock.now(), results=tuple(results), given_up=given_up)


def _trial(root: SysRoot, size_kib: int) -> Trial:
    return Trial(
        host=here({}).host,
        kernel=platform.release(),
        architecture=platform.machine(),
        boot_id=boot_id(root),
        size_kib=size_kib,
        begun_at=root.clock.now(),
    )


def size_switch(root: SysRoot, size_kib: int) -> str:
    """Return the knob of a size of anonymous pages; UnknownKnob, with the sizes there are, where there is none."""
    listed = sizes_in(root, THP)
    here = [size for size in thp_sizes(root) if not listed or root.exists(f"{THP}/hugepages-{size}kB/enabled")]
    if size_kib not in here:
        raise UnknownKnob(
            f"this kernel has no transparent huge pages of {size_kib} kB",
            where=f"/{THP}",
            remedy=f"choose one of {', '.join(f'{size}kB' for size in here) or 'none'}, or boot a kernel that has it",
        )
    return thp_switch(root, size_kib)


def _has(root: SysRoot, knob: str) -> bool:
    try:
        find_knob(root, knob)
    except UnknownKnob:
        return False
    return True


def _put_back(claim: HostClaim) -> None:
    changes = claim.revert()
    if not all(change.ok for change in changes):
        claim.leave()
        raise incomplete(changes, RUN)
    claim.release()


def _skipped(scenario: Scenario, detail: str) -> ScenarioResult:
    return ScenarioResult(
        name=scenario.name,
        verdict=PageVerdict.SKIP,
        cause=VerdictCause.GIVEN_UP,
        detail=detail,
        seconds=0.0,
        attempts=0,
    )


class _Runner:
    """Tries scenarios under a claim."""

    def __init__(
        self,
        root: SysRoot,
        size_kib: int,
        claim: HostClaim,
        switch: str,
        *,
        health: KernelHealth,
        limit_seconds: float | None,
    ) -> None:
        self._root = root
        self._size_kib = size_kib
        self._limit_seconds = limit_seconds
        self._claim = claim
        self._health = health
        self._complaint = ""
        self._names = {"own": switch, "top": _TOP, "defrag": _DEFRAG}
        self._renew_every = claim.lease_remaining_seconds / 4
        self._renewed = time.monotonic()
        self._usual = {"own": "madvise"}
        if _DEFRAG in claim.found:
            self._usual["defrag"] = "madvise"

    def result(self, scenario: Scenario) -> tuple[ScenarioResult, str]:
        """Try a scenario until its counters are its own; returns also why the host is given up, or ''.

        A host that is given up has its settings back by then.
        """
        attempts = 0
        while True:
            attempts += 1
            tried = self._try(scenario)
            exceeded = any(check.outcome is Outcome.EXCEEDED for check in tried.checks)
            if self._heard() or tried.stuck or tried.cause is not VerdictCause.NONE or not exceeded:
                break
            if attempts == _TRIES:
                tried.checks = self._less_what_others_do(tried)
                break
        complaint = self._complaint
        if tried.stuck and not complaint:
            self._claim.revert()
        given_up = complaint or ("a process hangs in the kernel" if tried.stuck else "")
        verdict, cause, detail = _verdict(tried)
        if complaint:
            verdict, cause = PageVerdict.FAIL, VerdictCause.KERNEL
            detail = f"{complaint}; {detail}" if detail else complaint
        result = ScenarioResult(
            name=scenario.name,
            verdict=verdict,
            cause=cause,
            detail=detail,
            seconds=tried.seconds,
            attempts=attempts,
            checks=tuple(tried.checks),
            before=tried.before,
            after=tried.after,
        )
        return result, given_up

    def _try(self, scenario: Scenario) -> Try:
        self._claim.ensure_guardian()
        self._apply(self._usual)
        process = ScenarioProcess(scenario, self._size_kib, self._limit_seconds)
        self._claim.guard_process(process.pid)
        try:
            return process.run(self._apply, self._tick)
        finally:
            self._claim.unguard_process(process.pid)

    def _apply(self, knobs: Mapping[str, str]) -> None:
        self._claim.apply(Arm(name=RUN, knobs={self._names[name]: value for name, value in knobs.items()}))

    def _tick(self) -> bool:
        """Keep the claim; False once the kernel has complained."""
        if time.monotonic() > self._renewed + self._renew_every:
            self._claim.renew()
            self._renewed = time.monotonic()
        return not self._heard()

    def _heard(self) -> str:
        """Return what the kernel has complained of: then its settings are put back before anything else is done."""
        if not self._complaint and (complaint := self._health.complaint()):
            self._complaint = complaint
            self._claim.revert()
        return self._complaint

    def _less_what_others_do(self, tried: Try) -> list[PageCheck]:
        """Return the checks, UNCLEAR where a counter that rose by too much rises while nothing is done here, too."""
        before = read_counters(self._root, self._size_kib)
        deadline = time.monotonic() + max(_IDLE_SECONDS, tried.seconds)
        while (left := deadline - time.monotonic()) > 0:
            self._tick()
            time.sleep(min(left, 1.0))
        after = read_counters(self._root, self._size_kib)
        moved = {name for name, count in before.items() if after.get(name, count) != count}
        return [
            replace(check, outcome=Outcome.UNCLEAR)
            if check.outcome is Outcome.EXCEEDED and check.counter in moved
            else check
            for check in tried.checks
        ]


def _verdict(tried: Try) -> tuple[PageVerdict, VerdictCause, str]:
    verdict, cause, detail = judge(tried.checks)
    if verdict is PageVerdict.FAIL:  # what was seen before it died counts
        return verdict, cause, f"{detail}; {tried.detail}" if tried.detail else detail
    if tried.cause is not VerdictCause.NONE:
        return PageVerdict.SKIP if tried.not_tried else PageVerdict.FAIL, tried.cause, tried.detail
    return verdict, cause, detail


class KernelHealth:
    """What the kernel complains of from now on."""

    def __init__(self, root: SysRoot) -> None:
        self._root = root
        self._log = KernelLog(root)
        self._taints = self._sick_taints()

    def complaint(self) -> str:
        """Return what the kernel has complained of since the last call, '' where it has not."""
        said = [message for kind, message in self._log.events() if kind in _SICK]
        found = self._sick_taints()
        if taints := found & ~self._taints:
            said.append(f"the kernel is tainted: {', '.join(taint_names(taints))}")
        self._taints = found
        return "; ".join(said[:3])

    def _sick_taints(self) -> int:
        try:
            return whole_number(self._root.read("proc/sys/kernel/tainted")) & SICK_TAINTS
        except (OSError, ValueError):
            return 0

    def close(self) -> None:
        self._log.close()


__all__ = ["LEASE_SECONDS", "RUN", "conform", "size_switch"]
