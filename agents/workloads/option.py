"""How an option of a workload is declared: its form, bounds, default, and what docs and the YAML say of it.

An option is a field of a dataclass whose name tells its unit, as everywhere in the agents: `region_bytes`,
`page_size_kib`, `timeout_seconds`. In a spec it stands without it, with the unit at the value: `region: 4GiB`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias

KIB = 1024
LARGEST_PAGE = "the largest that is enabled"
_OPTION = "fleetexp option"
_UNIT = re.compile(r"_(bytes|kib|seconds)$")

Wrong: TypeAlias = tuple[str, str, str]  # option, what, remedy


class Form(StrEnum):
    """What a value of an option is."""

    COUNT = "count"
    SIZE = "size"  # bytes
    PAGE_SIZE = "page size"  # KiB; 0: the largest that is enabled
    SECONDS = "seconds"
    FLAG = "flag"
    CHOICE = "choice"  # one of a few words
    SWITCH = "switch"  # the first of two words means yes
    TEXT = "text"
    ARGV = "argv"  # a program and its arguments
    VARIABLES = "variables"  # NAME=value words; in a spec a mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """All that is known of an option. `default` None of an option that is not `optional`: it must be given."""

    form: Form
    meaning: str
    example: object
    default: Any = None
    optional: bool = False  # None is a value
    otherwise: str = ""  # what holds where it is None
    unit: str = ""  # of a count, for people
    least: int = 0
    choices: tuple[str, ...] = ()
    pattern: str = ""  # of a text, whole
    called: str = ""  # such a text, for people
    must_be_said: bool = False  # a spec has no default for it
    must_be_sent: bool = False  # an agent has no default for it


def _field(form: Form, meaning: str, example: object, **more: Any) -> Any:  # noqa: ANN401 - of the option's own type
    return dataclasses.field(metadata={_OPTION: Option(form=form, meaning=meaning, example=example, **more)})


def count(meaning: str, example: object, *, default: int | None = None, least: int = 0, unit: str = "") -> Any:  # noqa: ANN401
    """Declare a whole number from `least`, written also as 4M."""
    return _field(Form.COUNT, meaning, example, default=default, least=least, unit=unit)


def size(meaning: str, example: str, *, default: int) -> Any:  # noqa: ANN401
    """Declare a size of memory in bytes, a base page or more."""
    return _field(Form.SIZE, meaning, example, default=default, least=4 * KIB, must_be_sent=True)


def page_size(meaning: str, *, must: bool = False) -> Any:  # noqa: ANN401
    """Declare a page size in KiB; 0 stands for the largest that is enabled, unless one must be named."""
    if must:
        return _field(Form.PAGE_SIZE, meaning, "1GiB", least=4)
    return _field(Form.PAGE_SIZE, meaning, "1GiB", optional=True, default=0, otherwise=LARGEST_PAGE)


def seconds(meaning: str, example: str, *, otherwise: str) -> Any:  # noqa: ANN401
    """Declare a time above 0, or None."""
    return _field(Form.SECONDS, meaning, example, optional=True, otherwise=otherwise)


def flag(meaning: str, example: bool, *, default: bool) -> Any:  # noqa: ANN401
    """Declare yes or no."""
    return _field(Form.FLAG, meaning, example, default=default)


def choice(meaning: str, example: str, choices: type[StrEnum], *, default: str) -> Any:  # noqa: ANN401
    """Declare one of a few words."""
    return _field(Form.CHOICE, meaning, example, choices=tuple(choices), default=default)


def switch(meaning: str, example: str, words: tuple[str, str], *, default: str, must_be_said: bool = False) -> Any:  # noqa: ANN401
    """Declare yes or no that is written as one of two words, yes first."""
    return _field(Form.SWITCH, meaning, example, choices=words, default=default, must_be_said=must_be_said)


def text(meaning: str, example: str, *, otherwise: str = "", pattern: str = "", called: str = "") -> Any:  # noqa: ANN401
    """Declare a text, or None."""
    return _field(Form.TEXT, meaning, example, optional=True, otherwise=otherwise, pattern=pattern, called=called)


def program(meaning: str, example: list[object]) -> Any:  # noqa: ANN401
    """Declare a program and its arguments."""
    return _field(Form.ARGV, meaning, example)


def variables(meaning: str, example: Mapping[str, object]) -> Any:  # noqa: ANN401
    """Declare variables of a program's environment, none by default."""
    return _field(Form.VARIABLES, meaning, example, default=())


class Options:
    """Base of the options of a workload: a frozen dataclass of fields that are declared as above."""

    __slots__ = ()

    exactly_one_of: ClassVar[tuple[str, ...]] = ()  # a spec has just one of these
    alone: ClassVar[tuple[str, ...]] = ()  # one of these may stand in the place of the mapping

    @property
    def endless(self) -> bool:
        """Whether it measures until it is stopped: its time limit is a good end then."""
        return False

    def wrong(self) -> Iterator[Wrong]:
        """Yield what does not fit together, whatever the host."""
        yield from ()

    @classmethod
    def shorthand(cls, value: str | tuple[object, ...]) -> str | None:
        """Return which of `alone` a value in the place of the mapping is; None where it is none of them."""
        return None


def options_of(options: type[Options]) -> Mapping[str, Option]:
    """Return the options that a dataclass declares, in its order."""
    return {field.name: field.metadata[_OPTION] for field in dataclasses.fields(options)}  # type: ignore[arg-type]


def written_name(name: str) -> str:
    """Return the key of an option in a spec: its unit is written at its value."""
    return _UNIT.sub("", name)
