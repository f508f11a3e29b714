"""What a retrospective analysis was told: what was changed, the metrics and their roles. Nobody drew the hosts."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.errors import BadPlan
from analysis.plan import GuardrailPlan, MetricPlan, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrospectivePlan:
    """The plan: one metric has the role primary. `changed` is what was changed, as people call it."""

    metrics: tuple[MetricPlan, ...]
    guardrails: tuple[GuardrailPlan, ...] = ()
    changed: str = "the change"
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if sum(metric.role is Role.PRIMARY for metric in self.metrics) != 1:
            raise BadPlan("not one metric is primary", "retrospective plan", "name the one that the verdict is about")
        if self.primary.better is None:
            raise BadPlan(
                f"nobody says which way {self.primary.name} is better", "retrospective plan", "name its direction"
            )
        if not 0 < self.alpha < 0.5:
            raise BadPlan(f"alpha {self.alpha} is not between 0 and 0.5", "retrospective plan", "0.05 is usual")

    @property
    def primary(self) -> MetricPlan:
        return next(metric for metric in self.metrics if metric.role is Role.PRIMARY)
