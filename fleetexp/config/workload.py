"""The workload of a spec: one kind with its options, the same for every arm but for what `per_arm` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from agents.messages import Scalar, WorkloadSpec
from agents.secret_words import command_holds_a_secret, holds_a_secret, names_a_secret
from agents.workloads.options import UNIT
from fleetexp.config.key import Written, exactly_one, key
from fleetexp.config.names import Text, check_word, text_like
from fleetexp.config.problem import Refused
from fleetexp.config.quantities import SIZE_WRITTEN, Count, Duration, Size, format_size, parse_size

Options = Mapping[str, Scalar | tuple[Scalar, ...]]


class Section(BaseModel):
    """A mapping of a spec: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def parse_page_size(value: object) -> int:
    """Return bytes; Refused unless the size is a power of two of at least 4 KiB."""
    size = parse_size(value)
    if size < 4096 or size & (size - 1):
        raise Refused(f"{value!r} is no page size", "write a power of two such as '4KiB', '2MiB' or '1GiB'")
    return size


PageSize = Annotated[
    int,
    BeforeValidator(parse_page_size),
    PlainSerializer(format_size, when_used="json-unless-none"),
    SIZE_WRITTEN,
]
UNIT_WRITTEN = text_like("unit", UNIT.pattern)
CGROUP_WRITTEN = text_like("control group", "/.*[^/].*")
VARIABLE_WRITTEN = Written(called="name", schema={"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"})
LARGEST = "the largest that is enabled"
_FROM_A_FILE = "let the program read it from a file of the host"
Backing = Annotated[str, *check_word("anonymous", "hugetlb")]


def _page_size_kib(size: int | None) -> int:
    return 0 if size is None else size // 1024


class PointerChase(Section):
    """Random dependent dereferences in a region, after faulting it in."""

    kind: ClassVar[str] = "pointer_chase"
    region: Size = key("memory that is worked on", "4GiB", default=2**30)
    dereferences: Annotated[Count, Field(ge=1)] = key("of one repeat", "4M", default=4_000_000)
    backing: Backing = key("where the pages come from", "hugetlb", default="anonymous")
    page_size: PageSize | None = key("region is aligned to it", "1GiB", default=None, otherwise=LARGEST)
    repeats: Count = key("0: until the period ends", 10, default=0)
    pretouch: bool = key("touch small pages once before: fresh memory of a guest is slow at first", False, default=True)
    madvise: bool = key("ask with MADV_HUGEPAGE", True, default=False)
    seed: Count = key("of the order of dereferences", 7, default=0)

    def options(self) -> Options:
        return {
            "region_bytes": self.region,
            "dereferences": self.dereferences,
            "backing": self.backing,
            "page_size_kib": _page_size_kib(self.page_size),
            "repeats": self.repeats,
            "pretouch": self.pretouch,
            "madvise": self.madvise,
            "seed": self.seed,
        }


class PageFault(Section):
    """The latency of each big-page fault over a region."""

    kind: ClassVar[str] = "page_fault"
    region: Size = key("memory that is worked on", "4GiB", default=2**30)
    page_size: PageSize | None = key("of the pages that are faulted in", "1GiB", default=None, otherwise=LARGEST)
    backing: Backing = key("where the pages come from", "hugetlb", default="anonymous")
    repeats: Count = key("passes over the region; 0: until the period ends", 10, default=1)
    pretouch: bool = key("touch small pages once before: fresh memory of a guest is slow at first", False, default=True)
    madvise: bool = key("ask with MADV_HUGEPAGE", True, default=False)

    def options(self) -> Options:
        return {
            "region_bytes": self.region,
            "page_size_kib": _page_size_kib(self.page_size),
            "backing": self.backing,
            "repeats": self.repeats,
            "pretouch": self.pretouch,
            "madvise": self.madvise,
        }


class Acquire(Section):
    """Ask for big pages, count what is granted, give them back."""

    kind: ClassVar[str] = "acquire"
    pages: Annotated[Count, Field(ge=1)] = key("how many are asked for", 4, unit="pages")
    page_size: PageSize = key("of the pages", "1GiB")
    backing: Backing = key("where the pages come from", "hugetlb", default="anonymous")
    repeats: Count = key("0: until the period ends", 10, default=1)
    madvise: bool = key("ask with MADV_HUGEPAGE", True, default=False)

    def options(self) -> Options:
        return {
            "pages": self.pages,
            "page_size_kib": _page_size_kib(self.page_size),
            "backing": self.backing,
            "repeats": self.repeats,
            "madvise": self.madvise,
        }


def split_argv(value: object) -> object:
    """Return a command's words; Refused where they are one text, which only a shell would take apart."""
    if isinstance(value, str):
        raise Refused("a command is a list of words: no shell reads it", f"write [{', '.join(value.split())}]")
    return value


def _without_secrets(words: tuple[str, ...]) -> tuple[str, ...]:
    if command_holds_a_secret(words):
        raise Refused("a command must not hold a password or a token: the spec is kept in the store", _FROM_A_FILE)
    return words


def _no_secret(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if value and (names_a_secret(name) or holds_a_secret(value)):
            raise Refused(f"{name} holds a password or a token, and the spec is kept in the store", _FROM_A_FILE)
    return variables


Argv = Annotated[tuple[Text, ...], BeforeValidator(split_argv), Field(min_length=1), AfterValidator(_without_secrets)]


class Command(Section):
    """A program of the user's own, which prints its measurements."""

    kind: ClassVar[str] = "command"
    argv: Argv = key("program and arguments, one word each; no shell reads them", ["/opt/bench", "--rate", 500])
    timeout: Duration | None = key("after which it is ended", "5m", default=None, otherwise="its period's end")
    user: Text | None = key("who runs it", "nobody", default=None, otherwise="the agent's")
    env: Annotated[dict[Annotated[str, VARIABLE_WRITTEN], Text], AfterValidator(_no_secret)] = key(
        "variables beside a small clean environment, no secrets: the spec is stored", {"THREADS": 4}, default=dict
    )
    capture: Annotated[str, *check_word("metrics", "none")] = key(
        "whether its output is read as measurements", "none", default="metrics"
    )

    def options(self) -> Options:
        out: dict[str, Scalar | tuple[Scalar, ...]] = {"argv": self.argv, "capture": self.capture}
        if self.timeout is not None:
            out["timeout_seconds"] = self.timeout
        if self.user is not None:
            out["user"] = self.user
        if self.env:
            out["env"] = tuple(f"{name}={value}" for name, value in sorted(self.env.items()))
        return out


class Service(Section):
    """A service that runs on the host anyway: watched, and restarted after a knob was written where asked for."""

    kind: ClassVar[str] = "service"
    model_config = ConfigDict(json_schema_extra=exactly_one("unit", "cgroup"))

    unit: Annotated[Text, UNIT_WRITTEN] | None = key("unit of systemd", "web.service", default=None)
    cgroup: Annotated[Text, CGROUP_WRITTEN] | None = key(
        "or a control group", "/system.slice/web.service", default=None
    )
    restart: Annotated[str, *check_word("on_apply", "never")] = key(
        "whether it is restarted after its arm was applied", "on_apply"
    )

    def options(self) -> Options:
        out: dict[str, Scalar | tuple[Scalar, ...]] = {"restart": self.restart}
        if self.unit is not None:
            out["unit"] = self.unit
        if self.cgroup is not None:
            out["cgroup"] = self.cgroup
        return out


AnyOptions = PointerChase | PageFault | Acquire | Command | Service
KINDS: Mapping[str, type[AnyOptions]] = {
    model.kind: model for model in (PointerChase, PageFault, Acquire, Command, Service)
}


class Workload(Section):
    """What runs, or is watched, in every period: options for all arms, and whole options for arms of their own."""

    kind: str
    base: AnyOptions
    per_arm: dict[str, AnyOptions] = Field(default_factory=dict)

    def for_arm(self, arm: str) -> WorkloadSpec:
        options = self.per_arm.get(arm, self.base)
        return WorkloadSpec(kind=self.kind, options=options.options())

    def as_spec(self) -> dict[str, Any]:
        """Write the workload in the language of the spec."""
        out: dict[str, Any] = {self.kind: self.base.model_dump(mode="json", exclude_none=True)}
        if self.per_arm:
            # Nothing is left out here: an arm may take back what the others have.
            own = {arm: options.model_dump(mode="json") for arm, options in self.per_arm.items()}
            out["per_arm"] = own
        return out


def shorthand(kind: str, value: object) -> dict[str, Any] | None:
    """Read `service: web.service` and `command: [argv]` as options; None where the value is no shorthand."""
    if value is None:
        return {}
    if kind == "service" and isinstance(value, str):
        return {"cgroup" if value.startswith("/") else "unit": value}
    if kind == "command" and isinstance(value, str | tuple):
        return {"argv": value}
    return None
