"""Every key of a spec as a page for people, from the models that read it: docs/SPEC.md is that text."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fleetexp.experiment.json_schema import flat, keys_of
from fleetexp.experiment.key import Written
from fleetexp.experiment.model import Experiment
from fleetexp.experiment.quantities import format_duration, format_share, format_size
from fleetexp.experiment.workload import WorkloadSection, kinds

_HEAD = """\
# The keys of an experiment

This page is generated from `fleetexp/experiment`; a test keeps it current. To write it again:

    python -c 'from fleetexp.experiment.spec_page import render_spec as r; print(r(), end="")' > docs/SPEC.md

`fleetexp schema` is the same for editors, and `fleetexp init` points yours at it. A key that is not here is an error
that names the nearest one. Only `true` and `false` are switches: `on`, `yes` and `no` are words.

| type | is written | is not |
|---|---|---|
| duration | `500ms`, `10s`, `1h30m`, `2d` | a number without a unit, `1:30` |
| size | `4GiB`, `4G`, `2048kB`: powers of 1024 | a number without a unit; `4GB`, which may be either |
| count | `4000000`, `4_000_000`, `4M`: k, M, G are powers of 1000 | a fraction |
| share | `10%`, `0.1` | a number above 1: `150%` says it without doubt |
| text | a word, a sentence; a number is taken as it is written | `true`, a list |
| name | up to 63 letters, digits, `-`, `_`, `.`; a letter or digit first | with a space |
| knob | `thp/2048kB/enabled`, `hugetlb/1048576kB/nr_hugepages`, `sysctl/vm.NAME`; `doctor --json` lists them | |
| knob value | a word or a whole number, as the kernel is told it | `true` |
| metric | small letter first, then letters, digits, `_`; [METRICS.md](METRICS.md) lists those that hosts have | |
"""
_SHORT = """
In short: `workload: {service: UNIT.service, restart: never}`, `workload: {command: [PROGRAM, ARGUMENT]}`. Options that
differ in one arm stand beside the kind, under `per_arm`: `per_arm: {thp-1g: {page_size: 1GiB}}`.
"""
_TYPES: Mapping[object, str] = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}
_FORMATS: Mapping[str, Any] = {"duration": format_duration, "size": format_size, "share": format_share}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def render_spec() -> str:
    """Write the page: each section with its keys, their types, defaults, units and examples."""
    page = [line for path, model in sections() for line in _section(path, model)]
    return "\n".join([_HEAD, *page, _SHORT.lstrip("\n")])


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield every mapping of a spec with the path of its keys: '', 'stages[]', 'metrics.sources.NAME', ..."""
    yield from _sections("", Experiment)
    yield from ((f"workload.{kind}", model) for kind, model in kinds().items())


def _sections(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in keys_of(model).items():
        below = _below(field.annotation, f"{path}.{name}".lstrip("."))
        if below is not None:
            yield from _sections(*below)


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    keys = keys_of(model)
    yield f"## `{path}`\n" if path else "## The experiment\n"
    if model is not Experiment:
        yield f"{(model.__doc__ or '').strip()}\n".replace("\n\n    ", "\n\n").replace("\n    ", "\n")
    yield "| key | means | type | default | unit | example |\n|---|---|---|---|---|---|"
    for name, field in keys.items():
        cells = (f"`{name}`", field.description or "", _type(field), _default(field), _unit(field), _example(field))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _below(annotation: object, path: str) -> tuple[str, type[BaseModel]] | None:
    """Return the section that a key holds, and how its keys are reached; None for a plain value, and the workload."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if annotation is WorkloadSection else (path, annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated or origin in {Union, types.UnionType}:
        return next((found for one in arguments if (found := _below(one, path)) is not None), None)
    if origin is tuple:
        return _below(arguments[0], f"{path}[]")
    return _below(arguments[1], f"{path}.NAME") if origin is dict else None


def _written(field: FieldInfo) -> list[Written]:
    """Return what stands beside a key's type, and that inside an Optional one."""
    beside = flat(field.metadata)
    if get_origin(field.annotation) in {Union, types.UnionType}:
        for one in get_args(field.annotation):
            beside += flat(get_args(one)[1:]) if get_origin(one) is Annotated else []
    return [one for one in beside if isinstance(one, Written)]


def _type(field: FieldInfo) -> str:
    return _named(field.annotation, field.metadata)


def _named(annotation: object, metadata: Sequence[object] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _named(arguments[0], (*arguments[1:], *metadata))
    beside = flat(metadata)
    written = [one for one in beside if isinstance(one, Written)]
    called = next((one for one in reversed(written) if one.called), None)
    limits = [one.limits for one in written if one.limits]
    limits += [f"{word} {getattr(one, name)}" for one in beside for name, word in _BOUNDS.items() if _has(one, name)]
    if called is not None:
        words = ", ".join(f"`{word}`" for word in called.schema.get("enum", ()))
        return ", ".join([words or called.called, *limits])
    if origin in {Union, types.UnionType}:
        return _named(next(one for one in arguments if one is not types.NoneType), metadata)
    if origin is tuple:
        return f"list of {_named(arguments[0])}"
    if origin is dict:
        return f"{_named(arguments[0])} -> {_named(arguments[1])}"
    return ", ".join([_TYPES.get(annotation, "mapping, see below"), *limits])


def _has(bound: object, name: str) -> bool:
    return isinstance(bound, annotated_types.BaseMetadata) and hasattr(bound, name)


def _extra(field: FieldInfo, name: str) -> str:
    extra = field.json_schema_extra
    return str(extra[name]) if isinstance(extra, dict) else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    if otherwise := _extra(field, "otherwise"):
        return otherwise
    default = field.get_default(call_default_factory=True)
    if default in (None, PydanticUndefined, "", (), {}) or isinstance(default, BaseModel):
        return ""
    write = next((_FORMATS[one.called] for one in _written(field) if one.called in _FORMATS), None)
    return f"`{write(default)}`" if write else _yaml(default)


def _unit(field: FieldInfo) -> str:
    return _extra(field, "unit") or next((one.unit for one in _written(field) if one.unit), "")


def _example(field: FieldInfo) -> str:
    return _yaml((field.examples or [None])[0])


def _yaml(value: object) -> str:
    return f"`{yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).split(chr(10))[0]}`"
