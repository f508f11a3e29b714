"""The workload of a spec: one kind with its options, the same for every arm but for what `per_arm` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, create_model
from pydantic_core import PydanticUndefined

from agents.messages import Scalar, WorkloadSpec
from agents.secret_words import command_holds_a_secret, holds_a_secret, names_a_secret
from agents.workloads.kinds.service import Service
from agents.workloads.option import Form, Option, options_of, written_name
from agents.workloads.options import parse_options
from agents.workloads.workload import Workload as Declared
from agents.workloads.workload import workloads
from fleetexp.experiment.key import Written, exactly_one, key
from fleetexp.experiment.names import Text, check_word, text_like
from fleetexp.experiment.problem import ValueRefused
from fleetexp.experiment.quantities import SIZE_WRITTEN, Count, Duration, Size, format_size, parse_size

Sent: TypeAlias = Scalar | tuple[Scalar, ...]


class Section(BaseModel):
    """A mapping of a spec: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def parse_page_size(value: object) -> int:
    """Return bytes; ValueRefused unless the size is a power of two of at least 4 KiB."""
    size = parse_size(value)
    if size < 4096 or size & (size - 1):
        raise ValueRefused(f"{value!r} is not a page size", "write a power of two such as '4KiB', '2MiB' or '1GiB'")
    return size


PageSize = Annotated[
    int,
    BeforeValidator(parse_page_size),
    PlainSerializer(format_size, when_used="json-unless-none"),
    SIZE_WRITTEN,
]
VARIABLE_WRITTEN = Written(called="name", schema={"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"})
_FROM_A_FILE = "let the program read it from a file of the host"


def split_argv(value: object) -> object:
    """Return a command's words; ValueRefused where they are one text, which only a shell would take apart."""
    if isinstance(value, str):
        raise ValueRefused("a command is a list of words: no shell reads it", f"write [{', '.join(value.split())}]")
    return value


def _without_secrets(words: tuple[str, ...]) -> tuple[str, ...]:
    if command_holds_a_secret(words):
        raise ValueRefused("a command must not hold a password or a token: the spec is kept in the store", _FROM_A_FILE)
    return words


def _no_secret(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if value and (names_a_secret(name) or holds_a_secret(value)):
            raise ValueRefused(f"{name} holds a password or a token, and the spec is kept in the store", _FROM_A_FILE)
    return variables


Argv = Annotated[tuple[Text, ...], BeforeValidator(split_argv), Field(min_length=1), AfterValidator(_without_secrets)]
Variables = Annotated[dict[Annotated[str, VARIABLE_WRITTEN], Text], AfterValidator(_no_secret)]


class OptionsSection(Section):
    """The options of a workload as a spec writes them, made from what its module declares."""

    workload: ClassVar[Declared]

    def sent(self) -> Iterator[tuple[str, Sent]]:
        """Yield what an agent is told: names with units, values in them; nothing of an option that was left out."""
        for name, option in options_of(self.workload.options).items():
            value = getattr(self, written_name(name))
            if option.form is Form.PAGE_SIZE:
                yield name, (value or 0) // 1024
            elif option.form is Form.VARIABLES and value:
                yield name, tuple(f"{variable}={text}" for variable, text in sorted(value.items()))
            elif option.form is not Form.VARIABLES and value is not None:
                yield name, value


@cache
def kinds() -> Mapping[str, type[OptionsSection]]:
    """Return the section of every kind of workload, by its name."""
    return {name: _section(workload) for name, workload in workloads().items()}


def _section(workload: Declared) -> type[OptionsSection]:
    options = workload.options
    keys: dict[str, Any] = {written_name(name): _key(option) for name, option in options_of(options).items()}
    section = create_model(options.__name__, __base__=OptionsSection, __doc__=options.__doc__, **keys)
    section.workload = workload
    if options.exactly_one_of:
        section.model_config["json_schema_extra"] = exactly_one(*options.exactly_one_of)
    return section


def _key(option: Option) -> tuple[object, Any]:
    """Return the type of a key, and the key."""
    kind: Any = value_type(option)
    default: Any = None if option.optional else option.default
    if option.form is Form.VARIABLES:
        default = dict
    elif not option.optional and (default is None or option.must_be_said):
        default = PydanticUndefined
    elif option.choices:
        default = str(default)
    said = key(option.meaning, option.example, default=default, otherwise=option.otherwise, unit=option.unit)
    return kind | None if option.optional else kind, said


def value_type(option: Option) -> object:
    """Return the type of an option's value as a spec writes it, with what is checked of it."""
    match option.form:
        case Form.COUNT:
            return Annotated[Count, Field(ge=option.least)] if option.least else Count
        case Form.CHOICE | Form.SWITCH:
            return Annotated[str, *check_word(*map(str, option.choices))]
        case Form.TEXT if option.pattern:
            return Annotated[Text, text_like(option.called, option.pattern)]
        case form:
            return _TYPES[form]


_TYPES: Mapping[Form, object] = {
    Form.SIZE: Size,
    Form.PAGE_SIZE: PageSize,
    Form.SECONDS: Duration,
    Form.FLAG: bool,
    Form.TEXT: Text,
    Form.ARGV: Argv,
    Form.VARIABLES: Variables,
}


class WorkloadSection(Section):
    """What runs, or is watched, in every period: options for all arms, and whole options for arms of their own."""

    kind: str
    base: OptionsSection
    per_arm: dict[str, OptionsSection] = Field(default_factory=dict)

    @property
    def reports(self) -> tuple[str, ...]:
        """The metrics that it is known to report before it runs."""
        kind = self.base.workload
        return () if kind.run is None else tuple(reported.name for reported in kind.reports)

    @property
    def is_service(self) -> bool:
        """Whether it runs anyway: only sources tell what it does."""
        return issubclass(self.base.workload.options, Service)

    @property
    def never_restarted(self) -> bool:
        """Whether it is a service whose memory does not see its arm."""
        options, _ = parse_options(WorkloadSpec(kind=self.kind, options=dict(self.base.sent())))
        return isinstance(options, Service) and not options.restart

    def for_arm(self, arm: str) -> WorkloadSpec:
        options = self.per_arm.get(arm, self.base)
        return WorkloadSpec(kind=self.kind, options=dict(options.sent()))

    def as_spec(self) -> dict[str, Any]:
        """Write the workload in the language of the spec."""
        out: dict[str, Any] = {self.kind: self.base.model_dump(mode="json", exclude_none=True)}
        if self.per_arm:
            # Nothing is left out here: an arm may take back what the others have.
            own = {arm: options.model_dump(mode="json") for arm, options in self.per_arm.items()}
            out["per_arm"] = own
        return out


def shorthand(kind: str, value: object) -> dict[str, Any] | None:
    """Read `service: web.service` and `command: [argv]` as options; None where the value is not a shorthand."""
    if value is None:
        return {}
    options = workloads()[kind].options
    name = options.shorthand(value) if isinstance(value, str | tuple) else None
    return None if name is None else {written_name(name): value}
