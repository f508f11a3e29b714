"""A first experiment for a host: a commented spec, from what the host is. Text in, text out."""

from __future__ import annotations

from agents.messages import HostFacts
from agents.page_sizes import GIGABYTE_KIB
from fleetexp.errors import RunError

_GIB, _KIB = 2**30, 2**10
_LARGEST_REGION_BYTES = 4 * _GIB
_REGION_SHARE = 4  # of the memory that is free now, one part


def starter_spec(facts: HostFacts) -> str:
    """Write a switchback that works on this host: its largest two page sizes, or big pages against none.

    RunError where no size of transparent huge pages is known, can be written here, or fits the memory.
    """
    sizes = _sizes(facts)
    largest, pmd = sizes[-1], facts.thp_pmd_kib
    region = _size(_region_bytes(facts, largest) // _KIB)
    small, big = ("pages-2m", "pages-1g") if largest == GIGABYTE_KIB else ("small-pages", "big-pages")
    knob, also, note = facts.thp_switch(largest), "", ""
    what = f"pages of {_size(largest)} against base pages"
    if largest > pmd and pmd in sizes:
        also = f", {facts.thp_switch(pmd)}: always"
        what = f"pages of {_size(largest)} against pages of {_size(pmd)}"
    control, treated = f"{{{knob}: never{also}}}", f"{{{knob}: always{also}}}"
    if knob == "thp/enabled":
        note = "  # Linux before 6.8 has one switch for the whole host: every program on it is treated\n"
    dtlb = any(event.available and event.event == "dtlb_load_misses" for event in facts.perf_events)
    secondary = "fault_seconds, dtlb_load_misses_per_kilo_instruction" if dtlb else "fault_seconds"
    why = "" if dtlb else "  # dTLB misses can't be counted on this host; 'fleetexp doctor' says why"
    return f"""\
# Written by 'fleetexp init' for {facts.host}: Linux {facts.kernel}, {facts.cpus} CPUs, \
{facts.memory_total_bytes / _GIB:.0f} GiB.
# {what}, on this one host. See it first: fleetexp plan FILE. Then: fleetexp run FILE
name: first-look
hypothesis: {what} make random access faster on this host

# One kernel can't hold two arms at once, so they alternate in time: 'parallel' is for pools of hosts.
design: switchback
control: {small}
arms:                    # knobs are named as 'fleetexp doctor --json' lists them; what an arm leaves out stays as found
{note}  {small}: {control}
  {big}: {treated}

assignment: {{order: pairs}}   # each pair of periods in random order; 'seed: 1' draws another one
periods:
  washout: 2s            # dropped from the analysis: what the other arm left behind
  measure: 8s
  blocks: 8              # pairs; below 6 nothing is ever called significant
  sample_every: 1s

workload:                # or service: UNIT.service, or command: {{argv: [...]}}; none watches what runs anyway
  pointer_chase:
    region: {region}
    dereferences: 4M
    page_size: {_size(largest)}

metrics:
  primary: access_nanoseconds_per_dereference    # one; it decides
  secondary: [{secondary}]{why}
  guardrails:            # past a tripwire the host is put back at once; harm beyond a margin forbids to ship
    - {{metric: oom_kills, tripwire: 1}}

safety:
  lease: 30s             # not heard from for so long, the host undoes itself
  on_drift: invalidate   # somebody else wrote a knob: measure that block again (or: halt, reapply)
"""


def _sizes(facts: HostFacts) -> list[int]:
    """Return the sizes in KiB, of a PMD and larger, that can be switched here, ascending; RunError for none."""
    if facts.thp_top_level and not facts.thp_pmd_kib:
        raise RunError(
            "page size not known: the host does not say how large its huge pages are",
            where=facts.host,
            remedy="there is no hpage_pmd_size here; write the experiment by hand, with thp/enabled in its arms",
        )
    known = [size.size_kib for size in facts.thp_sizes if size.size_kib >= facts.thp_pmd_kib]
    sizes = sorted(size for size in known if facts.thp_switch(size) in facts.writable_knobs)
    if not sizes:
        raise RunError(
            "no size of transparent huge pages can be switched here",
            where=facts.host,
            remedy=(known and facts.not_writable_because) or "'fleetexp doctor' says what works on this host",
        )
    return sizes


def _region_bytes(facts: HostFacts, page_kib: int) -> int:
    """Return how much memory to work on: whole pages, a part of what is free now; RunError where no page fits."""
    page, available = page_kib * _KIB, facts.memory_available_bytes or facts.memory_total_bytes // 2
    share = min(_LARGEST_REGION_BYTES, available // _REGION_SHARE) if available else _GIB
    step = max(page, _GIB) if share >= _GIB else page
    region = max(page, share // step * step)
    if available and region > available // 2:
        raise RunError(
            f"a page of {_size(page_kib)} is more than half of the memory that is available",
            where=facts.host,
            remedy="free memory, or try a host with more",
        )
    return region


def _size(size_kib: int) -> str:
    for unit, kib in (("GiB", 1 << 20), ("MiB", 1 << 10)):
        if size_kib % kib == 0:
            return f"{size_kib // kib}{unit}"
    return f"{size_kib}KiB"
