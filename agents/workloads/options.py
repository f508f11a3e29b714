"""The options of a workload: read from what an agent is sent, checked, in base units."""

from __future__ import annotations

from agents.errors import WorkloadError
from agents.messages import Problem, WorkloadSpec
from agents.registry import Group, refused
from agents.workloads.fields import Fields, refusal
from agents.workloads.option import Form, Option, Options, options_of
from agents.workloads.workload import workloads


def parse_options(spec: WorkloadSpec) -> tuple[Options | None, tuple[Problem, ...]]:
    """Return the options, or None and every problem with them."""
    kind = workloads().get(spec.kind)
    if kind is None:
        remedy = refused(Group.WORKLOADS, spec.kind) or f"choose one of {', '.join(workloads())}"
        return None, (refusal(f"there is no workload {spec.kind!r}", "workload", remedy),)
    fields = Fields(spec)
    read = {name: _read(fields, name, option) for name, option in options_of(kind.options).items()}
    options = kind.options(**read)
    for problem in options.wrong():
        fields.refuse(*problem)
    problems = fields.finish()
    return (None, problems) if problems else (options, ())


def read_options(spec: WorkloadSpec) -> Options:
    """Return the options; WorkloadError with the first problem where there is one."""
    options, problems = parse_options(spec)
    if options is None:
        raise WorkloadError(problems[0].what, where=problems[0].where, remedy=problems[0].remedy)
    return options


def _read(fields: Fields, name: str, option: Option) -> object:
    default = None if option.must_be_sent else option.default
    match option.form:
        case Form.COUNT | Form.SIZE:
            return fields.count(name, default=default, least=option.least)
        case Form.PAGE_SIZE:
            return fields.page_size(name, default=default)
        case Form.SECONDS:
            return fields.seconds(name)
        case Form.FLAG:
            return fields.flag(name, default=bool(default))
        case Form.CHOICE:
            word = fields.word(name, default=default, choices=option.choices)
            return next(choice for choice in option.choices if choice == word)
        case Form.SWITCH:
            return fields.word(name, default=default, choices=option.choices) == option.choices[0]
        case Form.TEXT:
            return fields.word(name)
        case Form.ARGV | Form.VARIABLES:
            return fields.words(name, default=default)
