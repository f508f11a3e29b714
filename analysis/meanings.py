"""Metrics that hosts measured differently under one name: taken apart, never averaged.

Two CPUs may count different events as dTLB misses. An effect on their mean is an effect on nothing: each meaning is a
metric of its own, for the hosts that have it, and the name that they share is not estimated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import pandas as pd

from analysis.frame import metric_label
from analysis.guardrails import with_guardrail_metrics
from analysis.plan import AnalysisPlan, MetricPlan, Role

Meanings: TypeAlias = Mapping[str, Mapping[str, str]]  # metric -> host -> what it is there, '' where that is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenApart:
    """Observations and plan with a metric for each meaning; `mixed` are the names that have several, by label."""

    rows: pd.DataFrame
    plan: AnalysisPlan
    mixed: Mapping[str, tuple[str, ...]]

    def sentences(self) -> Iterator[str]:
        for label, meanings in self.mixed.items():
            yield f"{label}: not estimated, {mixed_words(meanings)}"


def mixed_words(meanings: tuple[str, ...]) -> str:
    """Say that hosts measured different things."""
    return f"hosts counted different things under this name: {'; '.join(meanings)}"


def taken_apart(rows: pd.DataFrame, plan: AnalysisPlan, meanings: Meanings) -> TakenApart:
    """Add a metric for each meaning of those that the hosts of `rows` measured differently."""
    mixed: dict[str, tuple[str, ...]] = {}
    parts: list[pd.DataFrame] = []
    metrics: list[MetricPlan] = []
    for metric in with_guardrail_metrics(plan):
        of_host = _by_host(metric, meanings)
        if not of_host:
            continue
        own = rows[rows["metric"] == metric.name]
        said = own["host"].map({host: of_host.get(host) or "not known" for host in own["host"].unique()})
        names = tuple(sorted(said.unique()))
        if len(names) < 2:
            continue
        mixed[metric_label(metric)] = names
        for name in names:
            part = f"{metric.name} ({name})"
            parts.append(own[said == name].assign(metric=part))
            metrics.append(replace(metric, name=part, role=Role.EXPLORATORY))
    if not mixed:
        return TakenApart(rows=rows, plan=plan, mixed={})
    rows = pd.concat([rows, *parts], ignore_index=True)
    return TakenApart(rows=rows, plan=replace(plan, metrics=(*plan.metrics, *metrics)), mixed=mixed)


def _by_host(metric: MetricPlan, meanings: Meanings) -> dict[str, str]:
    """What the metric, or its two parts, are on each host of which something is known."""
    parts = [meanings.get(name, {}) for name in (metric.name, metric.denominator) if name is not None]
    hosts = {host for part in parts for host in part}
    return {host: ", per ".join(filter(None, (part.get(host, "") for part in parts))) for host in hosts}
