"""What an experiment could do on a host, and why not where it can't: drawn from its facts, nothing is tried."""

from __future__ import annotations

from dataclasses import dataclass

from agents.messages import HostFacts
from agents.page_sizes import GIGABYTE_KIB
from fleetexp.cli.output import size


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing that works here, or does not; `reason` says why not, or on what condition."""

    name: str
    works: bool
    reason: str = ""
    kind: str = "run"  # 'run': an experiment; 'see': a measurement


def capabilities(facts: HostFacts) -> tuple[Capability, ...]:
    """Judge what works on this host, the most wanted first."""
    return (
        _switchback(facts),
        _hugetlb(facts),
        _gigabyte_thp(facts),
        _dtlb(facts),
        Capability(
            name="memory pressure",
            works=facts.pressure_available,
            reason=facts.pressure_missing_because,
            kind="see",
        ),
        Capability(
            name="causes of splits",
            works=facts.splits_traceable,
            reason=facts.splits_not_traceable_because or "not known",
            kind="see",
        ),
        Capability(
            name="per-cgroup counters",
            works=facts.cgroup_version is not None,
            reason=f"cgroup v{facts.cgroup_version}" if facts.cgroup_version else "no cgroup memory controller",
            kind="see",
        ),
    )


def _not_writable(facts: HostFacts) -> str:
    return facts.not_writable_because or "the kernel's settings can't be written here"


def _switchback(facts: HostFacts) -> Capability:
    pmd, base = facts.thp_pmd_kib, facts.base_page_bytes
    name = f"switchback of {size(base / 1024) if base else 'base pages'} against {size(pmd) if pmd else 'huge pages'}"
    if not facts.thp_top_level and not facts.thp_sizes:
        return Capability(name=name, works=False, reason="this kernel has no transparent huge pages")
    if not pmd:
        return Capability(name=name, works=False, reason="page size not known: there is no hpage_pmd_size")
    if not any(one.size_kib == pmd for one in facts.thp_sizes):
        return Capability(name=name, works=False, reason=f"this kernel has no hugepages-{pmd}kB")
    switch = facts.thp_switch(pmd)
    if switch not in facts.writable_knobs:
        return Capability(name=name, works=False, reason=_not_writable(facts))
    return Capability(name=name, works=True, reason="by thp/enabled" if switch == "thp/enabled" else "")


def _hugetlb(facts: HostFacts) -> Capability:
    name = "hugetlb 1G"
    if not any(pool.size_kib == GIGABYTE_KIB for pool in facts.hugetlb_pools):
        pools = ", ".join(size(pool.size_kib) for pool in facts.hugetlb_pools)
        reason = f"pools here are of {pools}" if pools else "this host has no hugetlb pools"
        return Capability(name=name, works=False, reason=reason)
    if f"hugetlb/{GIGABYTE_KIB}kB/nr_hugepages" not in facts.writable_knobs:
        return Capability(name=name, works=False, reason=_not_writable(facts))
    return Capability(name=name, works=True, reason="as far as whole gigabytes are free")


def _gigabyte_thp(facts: HostFacts) -> Capability:
    name = "1 GB THP"
    if not any(one.size_kib == GIGABYTE_KIB for one in facts.thp_sizes):
        return Capability(name=name, works=False, reason=f"this kernel has no hugepages-{GIGABYTE_KIB}kB")
    if f"thp/{GIGABYTE_KIB}kB/enabled" not in facts.writable_knobs:
        return Capability(name=name, works=False, reason=_not_writable(facts))
    return Capability(name=name, works=True)


def _dtlb(facts: HostFacts) -> Capability:
    events = [one for one in facts.perf_events if one.event.startswith("dtlb")]
    name = "dTLB misses"
    if any(one.available for one in events):
        return Capability(name=name, works=True, kind="see")
    reason = events[0].reason if events else "no such event was found"
    return Capability(name=name, works=False, reason=f"unavailable: {reason or 'no reason was given'}", kind="see")
