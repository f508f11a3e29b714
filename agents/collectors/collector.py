"""What a collector is: metrics, and how they are read on a host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.catalogue.declared import Collected
from agents.catalogue.metric import Metric
from agents.collectors.notes import Notes
from agents.collectors.sources import ParsedFile, Parser, Source
from agents.sysroot import SysRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector(Collected):
    """A reader of files of its own, declared at the top of its module.

    `open` returns what adds its metrics to a sample, nothing where this host does not have them and `Notes` say why.
    `rare`: too dear for each sample, or the same all through a period: read at its boundaries, after all the others.
    """

    open: Callable[[SysRoot, Notes], Sequence[Source]]
    rare: bool = False


def collector_of(path: str, parse: Parser, metrics: Sequence[Metric], *, rare: bool = False) -> Collector:
    """Declare a collector that reads one file; `path` is relative to the root, `parse` adds metrics from its bytes."""
    names = tuple(metric.name for metric in metrics)
    return Collector(
        metrics=tuple(metrics), open=lambda root, notes: [ParsedFile(root, path, parse, names, notes)], rare=rare
    )
