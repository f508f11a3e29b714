"""What is understood of perf's syntax for one event, and what is refused with which remedy."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.event_text import EventText, EventTextError, parse_event

NAMES = st.from_regex(r"[a-z_][a-z0-9_-]{0,20}", fullmatch=True).map(lambda name: f"x{name}")
TERMS = st.dictionaries(NAMES, st.none() | st.integers(0, 2**64 - 1), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu/event=0x24,umask=0x3f/", EventText(text="", pmu="cpu", terms=(("event", 0x24), ("umask", 0x3F)))),
        (
            "cpu/event=36,name=l2.miss/u",
            EventText(text="", pmu="cpu", terms=(("event", 36),), label="l2.miss", kernel=False),
        ),
        (
            "cpu_core/event=0xD0,edge/k",
            EventText(text="", pmu="cpu_core", terms=(("event", 0xD0), ("edge", None)), user=False),
        ),
        (
            "cpu/config=0x1,config1=2,config2=3/uk",
            EventText(text="", pmu="cpu", terms=(("config", 1), ("config1", 2), ("config2", 3))),
        ),
        ("armv8_pmuv3_0/l2d_tlb_refill/", EventText(text="", pmu="armv8_pmuv3_0", terms=(("l2d_tlb_refill", None),))),
        ("msr/tsc/", EventText(text="", pmu="msr", terms=(("tsc", None),))),
        ("r1a8", EventText(text="", generic=(4, 0x1A8))),
        ("r1A8:k", EventText(text="", generic=(4, 0x1A8), user=False)),
        ("cycles", EventText(text="", generic=(0, 0))),
        ("cpu-cycles:u", EventText(text="", generic=(0, 0), kernel=False)),
        ("ref-cycles", EventText(text="", generic=(0, 9))),
        ("faults", EventText(text="", generic=(1, 2))),
        ("dTLB-load-misses", EventText(text="", generic=(3, 0x10003))),
        ("LLC-prefetches", EventText(text="", generic=(3, 0x202))),
    ],
)
def test_an_event_of_perf_is_understood(text: str, expected: EventText) -> None:
    found = parse_event(text)
    assert found.text == text
    for part in ("generic", "pmu", "terms", "label", "user", "kernel"):
        assert getattr(found, part) == getattr(expected, part), part


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not an event of perf"),
        ("cache-mises", "did you mean 'cache-misses'"),
        ("sched:sched_switch", "is not an event of perf"),
        ("cycles,instructions", "is not an event of perf"),
        ("{cycles,instructions}", "is not an event of perf"),
        ("cycles:", "ends in ':'"),
        ("cycles:pp", "modifier 'pp'"),
        ("cycles:uu", "modifier 'uu'"),
        ("r", "is not an event of perf"),
        ("r12345678901234567", "is not an event of perf"),
        ("cpu/event=0x24", "is not an event of perf"),
        ("cpu//", "is not a term"),
        ("cpu/event=0x24/p", "modifier 'p'"),
        ("cpu/event=0x24/:u", "modifier ':u'"),
        ("cpu/event=0x24,event=1/", "stands twice"),
        ("cpu/name=a,name=b,event=1/", "stands twice"),
        ("cpu/name=a/", "no term says which event"),
        ("cpu/event=-1/", "is not a term"),
        ("cpu/event=010/", "octal"),
        ("cpu/event=18446744073709551616/", "wider than 64 bits"),
        ("cpu/event=1,period=100000/", "for recording"),
        ("cpu/../", "is not a term"),
        ("../cpu/event=1/", "is not an event of perf"),
        ("cpu/event=1, umask=2/", "without spaces"),
        ("cpu/event=1/\n", "without spaces"),
        ("cpu/événement=1/", "without spaces"),
        ("uprobe/config1=0x1000/", "places probes"),
        ("kprobe/config1=0x1000/", "places probes"),
        ("tracepoint/config=1/", "places probes"),
        ("breakpoint/config=1/", "places probes"),
        ("intel_pt/tsc/", "traces"),
        ("r" * 600, "is not an event of perf"),
    ],
)
def test_what_is_no_event_that_is_counted_is_refused_with_a_remedy(text: str, words: str) -> None:
    with pytest.raises(EventTextError) as caught:
        parse_event(text)
    assert words in str(caught.value)
    assert caught.value.remedy


@given(pmu=NAMES, terms=TERMS, hexadecimal=st.booleans(), modifiers=st.sampled_from(["", "u", "k", "uk"]))
def test_whatever_terms_are_written_are_read_back(
    pmu: str, terms: dict[str, int | None], hexadecimal: bool, modifiers: str
) -> None:
    written = ",".join(
        name if value is None else f"{name}={value:#x}" if hexadecimal else f"{name}={value}"
        for name, value in terms.items()
    )
    found = parse_event(f"{pmu}/{written}/{modifiers}")
    assert (found.pmu, dict(found.terms)) == (pmu, terms)
    assert (found.user, found.kernel) == ("u" in modifiers or not modifiers, "k" in modifiers or not modifiers)


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=40))
def test_any_text_is_an_event_or_a_refusal(text: str) -> None:
    with contextlib.suppress(EventTextError):
        assert parse_event(text).text == text
