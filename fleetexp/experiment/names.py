"""Names in a spec, and words of which only a few are legal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from fleetexp.experiment.document import WrittenFloat, WrittenInt, kind_of
from fleetexp.experiment.key import Written
from fleetexp.experiment.problem import ValueRefused, choose

_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_METRIC_NAME = "[a-z][A-Za-z0-9_]{0,99}"


def as_written(value: object) -> object:
    """Return a number as the text that was written for it; anything else as it is."""
    return value.text if isinstance(value, WrittenInt | WrittenFloat) else value


def check_name(name: str) -> str:
    """Return the name of an experiment or arm; ValueRefused where it could not be a file's name."""
    if not re.fullmatch(_NAME, name):
        raise ValueRefused(
            f"{name!r} is not a name", "use up to 63 letters, digits, '-', '_' and '.', a letter or digit first"
        )
    return name


def check_metric_name(name: str) -> str:
    """Return the name of a metric; ValueRefused where no metric could be called that."""
    if not re.fullmatch(_METRIC_NAME, name):
        raise ValueRefused(f"{name!r} is not a name of a metric", "use letters, digits and '_', a small letter first")
    return name


def check_word(*legal: str, further: Callable[[], Iterable[str]] = tuple) -> tuple[BeforeValidator, Written]:
    """Make a validator for one of a few words that names the nearest; `further` ones are asked for if it is none."""

    def check(value: object) -> object:
        if value in legal and isinstance(value, str):
            return value
        every = (*legal, *further())
        if value in every and isinstance(value, str):
            return value
        raise ValueRefused(
            f"{kind_of(value)} is not legal here", choose(value if isinstance(value, str) else "", every)
        )

    return BeforeValidator(check), Written(called="one of", schema={"enum": list(legal)})


def text_like(called: str, pattern: str, *, numbers: Mapping[str, object] | None = None) -> Written:
    """Return how text of a form is written; `numbers`: the bounds of those whose text has that form too."""
    text = {"type": "string", "pattern": f"^(?:{pattern})$"}
    schema = text if numbers is None else {"anyOf": [text, {"type": "number", **numbers}]}
    return Written(called=called, schema=schema)


Text = Annotated[str, BeforeValidator(as_written), Written(called="text", schema={"type": ["string", "number"]})]
Name = Annotated[Text, AfterValidator(check_name), text_like("name", _NAME, numbers={"minimum": 0})]
MetricName = Annotated[
    str,
    AfterValidator(check_metric_name),
    Written(called="metric", schema={"type": "string", "pattern": f"^{_METRIC_NAME}$"}),
]
