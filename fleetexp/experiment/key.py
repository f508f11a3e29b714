"""What a key of the spec is for, and how a value of it is written: what the schema and docs/SPEC.md are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field
from pydantic_core import PydanticUndefined


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # annotations are hashed
class Written:
    """How a value stands in the YAML, where that differs from what it becomes.

    `schema` is JSON schema, empty where the type itself says it all; `limits`: for people, where the
    schema can't say them; `or_nothing`: the value may be left empty.
    """

    called: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    limits: str = ""
    or_nothing: bool = False


def key(
    description: str,
    example: object,
    *,
    default: Any = PydanticUndefined,  # noqa: ANN401 - of the key's own type
    otherwise: str = "",
    unit: str = "",
) -> Any:  # noqa: ANN401 - a field of pydantic
    """Declare a key with what it is for and an example; `otherwise` is what holds where None is the default."""
    said: dict[str, Any] = {"otherwise": otherwise, "unit": unit}
    given = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**given, description=description, examples=[example], json_schema_extra=said)


def exactly_one(*keys: str) -> dict[str, Any]:
    """Return the schema of a mapping that has just one of these keys."""
    return {"oneOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in keys]}
