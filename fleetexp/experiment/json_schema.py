"""The JSON schema of a spec, from the models that read it: what an editor offers, explains and marks.

It says what a spec may look like. What hangs together across keys (a control that is one of the arms, a metric that
comes from somewhere) only reading it can tell: `fleetexp plan`.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fleetexp.experiment.key import Written
from fleetexp.experiment.model import Experiment
from fleetexp.experiment.workload import OptionsSection, WorkloadSection, kinds

Schema = dict[str, Any]

_PLAIN: Mapping[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_NOTHING: Schema = {"type": "null"}


def experiment_schema() -> Schema:
    """Return the schema of a whole spec, in JSON schema of draft 7, which editors know best."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "An experiment of fleetexp",
        **section_schema(Experiment),
    }


def schema_text() -> str:
    """Write the schema as a file: docs/experiment.schema.json is that text."""
    return json.dumps(experiment_schema(), indent=1, ensure_ascii=False) + "\n"


def section_schema(model: type[BaseModel]) -> Schema:
    """Return the schema of a mapping: its keys, each with what it is for and an example; no other key."""
    extra = model.model_config.get("json_schema_extra")
    return {
        "type": "object",
        "properties": {name: key_schema(field) for name, field in keys_of(model).items()},
        "required": [name for name, field in keys_of(model).items() if field.is_required()],
        "additionalProperties": False,
        **(extra if isinstance(extra, dict) else {}),
    }


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the keys of a section as they are written."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def key_schema(field: FieldInfo) -> Schema:
    """Return the schema of one key."""
    return {
        "description": field.description,
        "examples": field.examples,
        **value_schema(field.annotation, field.metadata),
    }


def value_schema(annotation: object, metadata: Sequence[object] = ()) -> Schema:
    """Return the schema of a value by its type, what stands beside it in Annotated, and the bounds there."""
    if get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        return value_schema(inner, (*own, *metadata))
    beside = flat(metadata)
    written = [one for one in beside if isinstance(one, Written)]
    schema = dict(next((one.schema for one in reversed(written) if one.schema), {}) or _of_type(annotation))
    for bound in beside:
        schema = _bounded(schema, bound)
    return {"anyOf": [schema, _NOTHING]} if any(one.or_nothing for one in written) else schema


def flat(metadata: Sequence[object]) -> list[object]:
    """Return what stands in Annotated, with what pydantic's Field holds taken out of it."""
    return [part for one in metadata for part in (one.metadata if isinstance(one, FieldInfo) else (one,))]


def _of_type(annotation: object) -> Schema:
    arguments = get_args(annotation)
    if annotation is WorkloadSection:
        return _workload()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return section_schema(annotation)
    origin = get_origin(annotation)
    if origin in {Union, types.UnionType}:
        return {"anyOf": [_NOTHING if one is types.NoneType else value_schema(one) for one in arguments]}
    if origin is tuple:
        return {"type": "array", "items": value_schema(arguments[0])}
    if origin is dict:
        written = next((one for one in reversed(flat(get_args(arguments[0])[1:])) if isinstance(one, Written)), None)
        limits = {"propertyNames": dict(written.schema)} if written else {}
        return {"type": "object", "additionalProperties": value_schema(arguments[1]), **limits}
    return {"type": _PLAIN[annotation]}


def _bounded(schema: Schema, bound: object) -> Schema:
    """Return the schema with a bound of its number, or of a list's length; text with a unit has none here."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_bounded(one, bound) for one in schema["anyOf"]]}
    limit: Schema = {}
    match bound:
        case annotated_types.Ge():
            limit = {"minimum": bound.ge}
        case annotated_types.Gt():
            limit = {"exclusiveMinimum": bound.gt}
        case annotated_types.Le():
            limit = {"maximum": bound.le}
        case annotated_types.Lt():
            limit = {"exclusiveMaximum": bound.lt}
        case annotated_types.MinLen():
            return {**schema, "minItems": bound.min_length} if schema.get("type") == "array" else schema
    return {**schema, **limit} if schema.get("type") in ("integer", "number") else schema


def _workload() -> Schema:
    """Return the schema of a workload: one kind with its options, alone or beside it, or in short."""
    return {"anyOf": [form for kind, model in kinds().items() for form in _forms(kind, model)]}


def _forms(kind: str, model: type[OptionsSection]) -> Iterator[Schema]:
    options = section_schema(model)
    some = {"type": "object", "properties": options["properties"], "additionalProperties": False}
    per_arm = {
        "description": "arm -> the options that differ in it",
        "anyOf": [{"type": "object", "additionalProperties": some}, _NOTHING],
    }
    forms: list[tuple[Schema, Schema, set[str]]] = [  # what stands at the kind, what beside it, and what must
        (options, {}, set()),
        (_NOTHING, options["properties"], set(options["required"])),
    ]
    if alone := model.workload.options.alone:
        forms.append((_alone(model, alone), options["properties"], set(options["required"]) - set(alone)))
    for value, beside, needed in forms:
        yield {
            "type": "object",
            "properties": {**beside, kind: {"description": model.__doc__, **value}, "per_arm": per_arm},
            "required": [kind, *sorted(needed)],
            "additionalProperties": False,
        }


def _alone(model: type[OptionsSection], names: Sequence[str]) -> Schema:
    """Return the schema of an option that stands in the place of the mapping."""
    schemas = [key_schema(model.model_fields[name]) for name in names]
    if len(schemas) == 1:
        return schemas[0]
    return {"anyOf": [next(one for one in schema["anyOf"] if one != _NOTHING) for schema in schemas]}
