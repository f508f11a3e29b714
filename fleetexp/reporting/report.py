"""A run's report as an object: a page, Markdown, and what a notebook shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.report import ReportInput, render_html, render_markdown
from analysis.report.notebook import report_fragment
from analysis.results import Findings
from fleetexp.reporting.content import report_content
from fleetexp.reporting.retrospective import retrospective_report
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from analysis.retrospective.verdicts import RetrospectiveFindings


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What a run found. `html` is one file that needs nothing else, as `fleetexp report --html` writes it."""

    content: ReportInput

    @property
    def findings(self) -> Findings:
        """The findings, their sentence marked where the run was simulated."""
        return self.content.findings

    @property
    def html(self) -> str:
        return render_html(self.content)

    @property
    def markdown(self) -> str:
        return render_markdown(self.content)

    def __repr__(self) -> str:
        return f"<Report of run {self.content.run_id}: {self.findings.reason}>"

    def _repr_html_(self) -> str:
        return report_fragment(self.content)


def render_report(store: Store, run_id: int) -> Report | RetrospectiveFindings:
    """Return the report of a run; of a rollout that nobody randomised its verdict, in the same forms.

    RunError where it has not been analysed, NoSuchRun where there is none, BadPlan where an import lacks what a verdict
    needs.
    """
    verdict = retrospective_report(store, run_id)
    return Report(report_content(store, run_id)) if verdict is None else verdict
