"""The templates' environment: escaped, strict about names, every printed value passed through one function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def strict_environment(finalize: Callable[[object], object]) -> Environment:
    """Build an environment over the report's templates; `finalize` sees each value before it is escaped."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
