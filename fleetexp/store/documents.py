"""Frozen dataclasses to JSON documents and back, exactly: what comes out equals what went in."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")

_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_document(value: object) -> Any:  # noqa: ANN401 - JSON is anything
    """Return a dataclass as what `json` writes. Read-only mappings are written as mappings."""
    return _adapter(type(value)).dump_python(value, mode="json", fallback=dict, warnings=False)


def from_document(kind: type[T], document: object) -> T:
    """Return the dataclass that `to_document` wrote; pydantic's ValidationError where it is another."""
    value: T = _adapter(kind).validate_python(document)
    return value
