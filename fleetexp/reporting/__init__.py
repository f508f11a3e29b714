"""Reports of stored runs: the facts of a run, read by queries that the report prints, in the words of the analysis.

May import store and analysis.
"""

from __future__ import annotations

from fleetexp.reporting.content import report_content
from fleetexp.reporting.document import report_document, report_schema

__all__ = ["report_content", "report_document", "report_schema"]
