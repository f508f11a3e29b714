"""Events of the user's own, as one host's kernel is asked for them: `metrics.sources` with the key `perf`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agents.event_text import TYPE_HARDWARE, TYPE_SOFTWARE, EventText, EventTextError, parse_event
from agents.perf.cpu_kind import cpu_words
from agents.perf.pmu import DEVICES, AbsentError, Code, encode, read_terms
from agents.perf.syscall import PerfEvent, unreadable
from agents.sysroot import SysRoot

_ALIKE = ((TYPE_HARDWARE, 0), (TYPE_HARDWARE, 1))  # cycles and instructions are so on every CPU


def find_own_events(root: SysRoot, own: Mapping[str, str]) -> tuple[tuple[PerfEvent, ...], dict[str, str]]:
    """Return the events that can be asked for, of metric -> event as perf writes it, and why the others can't."""
    found: list[PerfEvent] = []
    missing: dict[str, str] = {}
    for metric, text in own.items():
        try:
            found.append(_event(root, metric, parse_event(text)))
        except AbsentError as answer:
            missing[metric] = answer.why
        except EventTextError as answer:
            missing[metric] = str(answer)
        except OSError as error:
            missing[metric] = unreadable(error, DEVICES)
    return tuple(found), missing


def _event(root: SysRoot, metric: str, asked: EventText) -> PerfEvent:
    code = Code(*asked.generic) if asked.generic is not None else encode(root, asked.pmu, _expanded(root, asked))
    alike = asked.generic is not None and (code.kind == TYPE_SOFTWARE or asked.generic in _ALIKE)
    return PerfEvent(
        name=metric,
        event=asked.label or asked.text,
        pmu=asked.pmu,
        counts="" if alike else f"{asked.text} on {cpu_words(root)}",  # a code says nothing across CPUs
        exclude_user=not asked.user,
        exclude_kernel=not asked.kernel,
        **code._asdict(),
    )


def _expanded(root: SysRoot, asked: EventText) -> Iterator[tuple[str, int]]:
    """Give the terms, names of sysfs replaced by what stands there."""
    folder = f"{DEVICES}/{asked.pmu}"
    here = root.names(DEVICES)
    if asked.pmu not in here:
        raise AbsentError(f"no PMU {asked.pmu} here", f"in /{DEVICES}: {', '.join(sorted(here)[:20]) or 'none'}")
    if root.exists(f"{folder}/cpumask"):
        raise AbsentError(f"the PMU {asked.pmu} counts for a whole package, not for each CPU", f"/{folder}/cpumask")
    for name, value in asked.terms:
        if value is not None:
            yield name, value
        elif not root.exists(f"{folder}/events/{name}"):
            yield name, 1
        elif root.exists(f"{folder}/events/{name}.scale"):
            raise AbsentError(f"{name} is counted in a unit of its own", f"/{folder}/events/{name}.scale")
        else:
            yield from read_terms(root, asked.pmu, name)
