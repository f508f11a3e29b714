"""The report as JSON, and the schema that it keeps to."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from analysis.report.content import ReportInput
from fleetexp.store.documents import to_document

SCHEMA_NAME = "fleetexp-report-2"


def report_document(content: ReportInput) -> dict[str, Any]:
    """Return everything a report says as what `json` writes; unknown is null, instants are ISO 8601 in UTC."""
    document: dict[str, Any] = to_document(content)
    return {"schema": SCHEMA_NAME, **document}


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `report_document`, made from the types themselves."""
    schema = TypeAdapter(ReportInput).json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "fleetexp report"
    schema["properties"] = {"schema": {"const": SCHEMA_NAME}, **schema["properties"]}
    schema["required"] = ["schema", *schema["required"]]
    return schema
