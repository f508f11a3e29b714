"""A first experiment for a host: a commented spec, from what the host is. Text in, text out."""

from __future__ import annotations

from agents.messages import HostFacts
from fleetexp.errors import RunError

_GIB = 2**30
_REGION_SHARE = 4  # of the memory that is free now, one part
_GIGABYTE_KIB = 1048576


def starter_spec(facts: HostFacts) -> str:
    """Write a switchback that works on this host: its largest two page sizes, or big pages against none.

    RunError where no size of transparent huge pages can be written here.
    """
    sizes = sorted(
        size.size_kib
        for size in facts.thp_sizes
        if size.size_kib >= 2048 and _knob(size.size_kib) in facts.writable_knobs
    )
    if not sizes:
        raise RunError(
            "no size of transparent huge pages can be switched here",
            where=facts.host,
            remedy=facts.not_writable_because or "'fleetexp doctor' says what works on this host",
        )
    largest = sizes[-1]
    gigabyte = largest >= _GIGABYTE_KIB
    region_gib = max(1, min(4, facts.memory_available_bytes // _REGION_SHARE // _GIB))
    small, big = ("pages-2m", "pages-1g") if gigabyte else ("small-pages", "big-pages")
    if gigabyte and 2048 in sizes:
        control = f"{{{_knob(largest)}: never, {_knob(2048)}: always}}"
        treated = f"{{{_knob(largest)}: always, {_knob(2048)}: always}}"
        what = "1 GiB pages against 2 MiB pages"
    else:
        control, treated = f"{{{_knob(largest)}: never}}", f"{{{_knob(largest)}: always}}"
        what = f"pages of {_size(largest)} against base pages"
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
  {small}: {control}
  {big}: {treated}

assignment: {{order: pairs}}   # each pair of periods in random order; 'seed: 1' draws another one
periods:
  washout: 2s            # dropped from the analysis: what the other arm left behind
  measure: 8s
  blocks: 8              # pairs; below 6 nothing is ever called significant
  sample_every: 1s

workload:                # or service: UNIT.service, or command: {{argv: [...]}}; none watches what runs anyway
  pointer_chase:
    region: {region_gib}GiB
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


def _knob(size_kib: int) -> str:
    return f"thp/{size_kib}kB/enabled"


def _size(size_kib: int) -> str:
    for unit, kib in (("GiB", 1 << 20), ("MiB", 1 << 10)):
        if size_kib % kib == 0:
            return f"{size_kib // kib}{unit}"
    return f"{size_kib}KiB"
