"""The map of a host: what works, what does not, and why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from agents.knob_restore import KnobDrift
from agents.messages import CountedEvent, EventSupport, HostFacts, ThpSize
from agents.perf.multiplexing import Turns
from agents.recovery import ClaimStanding, ClaimStatus
from fleetexp.cli.capabilities import capabilities
from fleetexp.cli.doctor import claim_line
from fleetexp.cli.doctor_screen import doctor_lines

FREE = "free: no run holds this host"


def screen(facts: HostFacts, *, short: bool = False, claim: str = FREE) -> str:
    return "\n".join(doctor_lines(facts, claim, short=short, columns=80))


def verdicts(facts: HostFacts) -> dict[str, str]:
    """The lines under 'what works here', by what they are about."""
    lines = screen(facts, short=True).split("what works here\n")[1].splitlines()
    joined = "".join(line.replace("  ", "\n", 1) if line[2] != " " else f" {line.strip()}" for line in lines)
    name_and_verdict = (line.split(": ", 1) for line in joined.strip().splitlines())
    return {name: verdict for name, verdict in name_and_verdict}  # noqa: C416 - dict() hides that each has two parts


def test_a_usual_guest_fits_one_screen_of_80_columns(make_facts: Callable[..., HostFacts]) -> None:
    lines = screen(make_facts()).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_sizes_stand_under_what_they_do_now(make_facts: Callable[..., HostFacts]) -> None:
    text = screen(make_facts())
    assert "always (by inherit): 2M; never: 16K 32K 64K 128K 256K 512K 1M" in text


def test_a_size_without_an_anonymous_knob_is_for_shmem_only(
    make_facts: Callable[..., HostFacts], make_thp: Callable[..., ThpSize]
) -> None:
    sizes = (make_thp(8, "", ""), make_thp(2048, "madvise"))
    assert "madvise: 2M; shmem only: 8K" in screen(make_facts(thp_sizes=sizes))


def test_what_is_in_brackets_of_a_reason_is_left_to_json(make_facts: Callable[..., HostFacts]) -> None:
    events = (
        EventSupport(
            event="dtlb_walk_cycles", available=False, reason="no such event (a.walk in sys/x)", brief="no such event"
        ),
        EventSupport(
            event="dtlb_store_walk_cycles",
            available=False,
            reason="no such event (b.walk in sys/x)",
            brief="no such event",
        ),
    )
    assert "dtlb_walk_cycles, dtlb_store_walk_cycles: no such event\n" in screen(make_facts(perf_events=events))


def test_what_one_name_really_counts_here_is_said(make_facts: Callable[..., HostFacts]) -> None:
    misses = CountedEvent(
        event="l2_dtlb_misses", encoding="type=0x4,config=0xf045", pmu="cpu", counts="loads and stores together"
    )
    generic = CountedEvent(event="dTLB-store-misses", encoding="type=0x3,config=0x10103", pmu="")
    walks = CountedEvent(event="walk_1g", encoding="type=0x4,config=0x8045", pmu="cpu")
    events = (
        EventSupport(event="dtlb_load_misses", available=True, counted=misses),
        EventSupport(event="dtlb_store_misses", available=True, counted=generic),
        EventSupport(event="dtlb_walks_1g", available=True, counted=walks),
        EventSupport(event="dtlb_walks_small", available=False, reason="AMD Zen 3 has no such event"),
    )
    text = " ".join(screen(make_facts(perf_events=events)).split())
    assert "dtlb_load_misses: l2_dtlb_misses (cpu type=0x4,config=0xf045; loads and stores together)" in text
    assert "dtlb_store_misses: dTLB-store-misses (generic type=0x3,config=0x10103)" in text
    assert "on request dtlb_walks_1g" in text
    assert "dtlb_walks_small" not in text


def test_how_long_each_event_is_counted_is_said_where_it_was_tried(make_facts: Callable[..., HostFacts]) -> None:
    names = ("cycles", "instructions", "page_faults")
    facts = make_facts(perf_events=tuple(EventSupport(event=name, available=True) for name in names))

    def said(**shares: float) -> str:
        turns = Turns(shares=shares, apart=())
        return " ".join(" ".join(doctor_lines(facts, FREE, short=False, columns=80, turns=turns)).split())

    assert "turns the CPU has counters for all 2 hardware events at once" in said(cycles=1.0, instructions=0.99)
    some = said(cycles=1.0, instructions=0.5, page_faults=1.0)
    assert "1 of 2 hardware events share the CPU's counters: instructions is counted 50% of the time" in some
    assert "  turns" not in screen(facts)


def test_why_nothing_more_can_be_asked_for_is_said_once(make_facts: Callable[..., HostFacts]) -> None:
    brief = "no table of events has this CPU"
    why = f"{brief} (GenuineIntel family 6 model 0x9e)"
    events = (
        EventSupport(event="cycles", available=True),
        EventSupport(event="dtlb_walks", available=False, reason=why, brief=brief),
        EventSupport(event="itlb_walks", available=False, reason=why, brief=brief),
    )
    assert screen(make_facts(perf_events=events)).count("none: no table of events has this CPU\n") == 1


def test_a_usual_guest_can_switch_back_and_has_hugetlb_but_no_gigabyte_thp(
    make_facts: Callable[..., HostFacts],
) -> None:
    found = verdicts(make_facts())
    assert found["switchback of 4K against 2M"] == "yes"
    assert found["hugetlb 1G"].startswith("yes")
    assert found["1 GB THP"] == "no, this kernel has no hugepages-1048576kB"
    assert found["dTLB misses"] == "unavailable: ENOENT: the hypervisor hides it"


def test_a_patched_kernel_can_run_gigabyte_thp(
    make_facts: Callable[..., HostFacts], make_thp: Callable[..., ThpSize]
) -> None:
    facts = make_facts(
        thp_sizes=(make_thp(2048), make_thp(1048576, "always")),
        writable_knobs=("thp/2048kB/enabled", "thp/1048576kB/enabled"),
    )
    assert verdicts(facts)["1 GB THP"] == "yes"


def test_where_gigabyte_thp_exists_the_readers_that_split_it_are_a_warning(
    make_facts: Callable[..., HostFacts], make_thp: Callable[..., ThpSize]
) -> None:
    sizes = (make_thp(2048), make_thp(1048576, "always"))
    text = " ".join(screen(make_facts(thp_sizes=sizes, page_splitting_readers=("smem", "atop"))).split())
    assert "WARNING reading smaps, smaps_rollup, numa_maps or pagemap" in text
    assert "known to do so: smem, atop" in text
    assert "No program known to do so runs" in " ".join(screen(make_facts(thp_sizes=sizes)).split())
    assert "WARNING" not in screen(make_facts(page_splitting_readers=("smem",)))


def test_numa_balancing_is_named_as_a_splitter_where_gigabyte_thp_exists(
    make_facts: Callable[..., HostFacts], make_thp: Callable[..., ThpSize]
) -> None:
    sizes = (make_thp(2048), make_thp(1048576, "always"))
    text = screen(make_facts(thp_sizes=sizes, numa_nodes=2, numa_balancing=True))
    assert "2 nodes, balancing on: it splits 1 GB pages" in text
    assert "splits 1 GB pages within" not in screen(make_facts(numa_nodes=2, numa_balancing=True))


def test_without_root_every_verdict_says_why(make_facts: Callable[..., HostFacts]) -> None:
    facts = make_facts(writable_knobs=(), not_writable_because="not root (uid 1000)")
    found = verdicts(facts)
    assert found["switchback of 4K against 2M"] == "no, not root (uid 1000)"
    assert found["hugetlb 1G"] == "no, not root (uid 1000)"
    assert "NONE can be written: not root (uid 1000)" in screen(facts)


def test_gigabyte_thp_that_cannot_be_written_is_no(
    make_facts: Callable[..., HostFacts], make_thp: Callable[..., ThpSize]
) -> None:
    facts = make_facts(thp_sizes=(make_thp(1048576),), writable_knobs=(), not_writable_because="read-only sysfs")
    assert verdicts(facts)["1 GB THP"] == "no, read-only sysfs"
    assert verdicts(facts)["switchback of 4K against 2M"] == "no, this kernel has no hugepages-2048kB"


def test_some_knobs_refused_are_named(make_facts: Callable[..., HostFacts]) -> None:
    text = " ".join(screen(make_facts(writable_knobs=("thp/enabled",))).split())
    assert "1 of 5 can be written; not hugetlb/1048576kB/nr_hugepages, hugetlb/2048kB/nr_hugepages, thp/2048kB" in text


def test_an_area_for_gigantic_pages_stands_with_the_pools(make_facts: Callable[..., HostFacts]) -> None:
    kept = " ".join(screen(make_facts(hugetlb_cma="4G", cma_total_bytes=4 * 2**30)).split())
    assert "booted with hugetlb_cma=4G (CMA 4" in kept
    assert "the kernel kept none" in screen(make_facts(hugetlb_cma="4G"))
    assert "hugetlb_cma" not in screen(make_facts(cma_total_bytes=2**20))


def test_a_host_with_nothing_says_so_and_guesses_nothing(make_facts: Callable[..., HostFacts]) -> None:
    facts = make_facts(
        thp_sizes=(),
        hugetlb_pools=(),
        perf_events=(),
        cgroup_version=None,
        pressure_available=False,
        pressure_missing_because="/proc/pressure/memory: ENOENT",
        splits_not_traceable_because="this kernel was built without kprobes (CONFIG_KPROBE_EVENTS)",
        thp_pmd_kib=0,
        virtualisation="",
        numa_balancing=None,
        cpu_model="",
        thp_top_level="",
        thp_defrag="",
        knobs={},
        writable_knobs=(),
    )
    text, found = screen(facts), verdicts(facts)
    assert "bare metal" in text
    assert "x86_64; bare metal" in text
    assert "balancing unknown" in text
    assert "none: this kernel has no transparent huge pages" in text
    assert "no pools" in text
    assert found["hugetlb 1G"].startswith("no, ")
    assert found["dTLB misses"] == "unavailable: no such event was found"
    assert found["memory pressure"] == "/proc/pressure/memory: ENOENT"
    assert found["causes of splits"] == "this kernel was built without kprobes (CONFIG_KPROBE_EVENTS)"
    assert found["per-cgroup counters"] == "no cgroup memory controller"


def test_bare_metal_with_a_pmu_counts_dtlb_misses(make_facts: Callable[..., HostFacts]) -> None:
    facts = make_facts(perf_events=(EventSupport(event="dtlb_load_misses", available=True),), virtualisation="")
    assert verdicts(facts)["dTLB misses"] == "available"
    assert "missing" not in screen(facts)


def test_taint_managers_and_claim_are_shown(make_facts: Callable[..., HostFacts]) -> None:
    text = screen(make_facts(kernel_taint=512, other_managers=("tuned",)), claim="held by run 3 of root@web-17 pid 9")
    assert "TAINTED (512)" in text
    assert "tuned: may write the same knobs" in text
    assert "held by run 3 of root@web-17 pid 9" in text


def test_a_host_name_cannot_drive_the_terminal(make_facts: Callable[..., HostFacts]) -> None:
    assert "\x1b" not in screen(make_facts(host="evil\x1b[2J"))


def test_an_arm_host_with_64k_pages_is_asked_for_512m(
    make_facts: Callable[..., HostFacts], make_thp: Callable[..., ThpSize]
) -> None:
    facts = make_facts(
        base_page_bytes=65536,
        thp_pmd_kib=524288,
        thp_sizes=(make_thp(524288, "always"),),
        knobs={"thp/524288kB/enabled": "always"},
        writable_knobs=("thp/524288kB/enabled",),
    )
    assert capabilities(facts)[0].name == "switchback of 64K against 512M"
    assert capabilities(facts)[0].works


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (ClaimStanding.HELD, "held by run 3 of root@web-17 pid 9: 2 knobs changed, lease 12 s"),
        (
            ClaimStanding.UNDOING,
            "left by run 3 of root@web-17 pid 9: its guardian is putting it back, 2 knobs changed still",
        ),
        (ClaimStanding.DEAD, "LEFT BEHIND by run 3 of root@web-17 pid 9: 2 knobs changed — put it right with"),
        (ClaimStanding.REBOOTED, "left by run 3 of root@web-17 pid 9 before the last boot, which undid it"),
    ],
)
def test_a_claim_is_described_by_how_it_stands(standing: ClaimStanding, words: str) -> None:
    status = ClaimStatus(
        claim="c",
        run="3",
        owner="root@web-17 pid 9",
        claimed_at=datetime(2026, 11, 23, tzinfo=UTC),
        standing=standing,
        lease_remaining_seconds=12.0,
        agent_alive=False,
        guardian_pid=None,
        guardian_alive=False,
        guardian_detail="",
        changed=(KnobDrift(knob="a", wanted="x", actual="y"), KnobDrift(knob="b", wanted="x", actual="y")),
    )
    assert claim_line(status).startswith(words)


def test_a_host_that_nobody_holds_is_free() -> None:
    assert claim_line(None).startswith("free")
