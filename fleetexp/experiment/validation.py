"""From a document to an experiment: pydantic's findings in the words of a spec, with key path and remedy."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agents.registry import Group, refused
from fleetexp.experiment.checks import find_problems
from fleetexp.experiment.document import Path, SpecDocument, kind_of
from fleetexp.experiment.model import Experiment
from fleetexp.experiment.problem import MOST_PROBLEMS, SpecProblem, ValueRefused, choose, nearest, raise_all
from fleetexp.experiment.sources import SourceKeys
from fleetexp.experiment.workload import OptionsSection, WorkloadSection, kinds, shorthand

_Formed = TypeVar("_Formed", bound=BaseModel)
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list, [..]",
    "dict_type": "a mapping, {key: value}",
    "model_type": "a mapping, {key: value}",
}
_BOUNDS = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "at least {min_length} entries",
    "finite_number": "a finite number",
}


def build(document: SpecDocument, *, refuse_meaning: bool = True) -> Experiment:
    """Make the experiment; ConfigError with every problem of form, or where there is none, every one of meaning."""
    problems = list(document.problems)
    data = dict(document.data)
    workload, found = _workload(document, data.pop("workload", None))
    problems += found
    if workload is not None:
        data["workload"] = workload
    experiment = formed(document, Experiment, data, problems)
    if refuse_meaning:
        raise_all(document.problem(*finding) for finding in find_problems(experiment))
    return experiment


def formed(
    document: SpecDocument, model: type[_Formed], data: Mapping[str, object], problems: Sequence[SpecProblem]
) -> _Formed:
    """Make the model of a document; ConfigError with every problem of form, those given among them."""
    made: _Formed | None = None
    found = list(problems)
    try:
        made = model.model_validate(data)
    except ValidationError as error:
        found += form_problems(document, model, error, ())
    raise_all(found)
    assert made is not None  # noqa: S101 - without a model there was a problem
    return made


def _workload(document: SpecDocument, raw: object) -> tuple[WorkloadSection | None, list[SpecProblem]]:
    here: Path = ("workload",)
    if raw is None:
        return None, []
    legal = kinds()
    if not isinstance(raw, dict):
        remedy = f"write one of {', '.join(sorted(legal))} with options"
        return None, [document.problem(here, f"{kind_of(raw)} is not a workload", remedy)]
    chosen = [key for key in raw if key in legal]
    if len(chosen) != 1:
        if chosen:
            what = f"a workload is one thing, here are {' and '.join(chosen)}"
            return None, [document.problem((*here, chosen[1]), what, "keep one")]
        first = next((key for key in raw if key != "per_arm"), "")
        path: Path = (*here, first) if first else here
        remedy = refused(Group.WORKLOADS, first) or choose(first, legal, noun="workload")
        return None, [document.problem(path, "no workload is named", remedy)]
    kind = chosen[0]
    own = raw[kind] if isinstance(raw[kind], dict) else shorthand(kind, raw[kind])
    if own is None:
        remedy = "write the options as a mapping, {option: value}"
        return None, [document.problem((*here, kind), f"{kind_of(raw[kind])} is not a set of options", remedy)]
    beside = {key: value for key, value in raw.items() if key not in {kind, "per_arm"}}
    if isinstance(raw[kind], dict) and beside:
        remedy = f"move it into {kind}"
        return None, [document.problem((*here, key), f"{key!r} stands beside {kind}", remedy) for key in beside]
    return _options(document, kind, {**own, **beside}, raw.get("per_arm"))


def _options(
    document: SpecDocument, kind: str, own: Mapping[str, Any], per_arm: object
) -> tuple[WorkloadSection | None, list[SpecProblem]]:
    here: Path = ("workload", kind)
    base, problems = _validate(document, kind, own, here)
    if per_arm is not None and not isinstance(per_arm, dict):
        what = f"{kind_of(per_arm)} names no arms"
        problems.append(document.problem(("workload", "per_arm"), what, "write {ARM: {option: value}}"))
        per_arm = None
    arms: dict[str, OptionsSection] = {}
    for arm, override in (per_arm or {}).items():
        path: Path = ("workload", "per_arm", arm)
        if not isinstance(override, dict):
            problems.append(
                document.problem(path, f"{kind_of(override)} is not a set of options", "write {option: value}")
            )
            continue
        options, found = _validate(document, kind, {**own, **override}, path)
        # What is wrong with the options of all arms has been said once, above.
        problems += [
            problem for problem in found if problem.path[len(path) :][:1] and problem.path[len(path)] in override
        ]
        if options is not None:
            arms[arm] = options
    if base is None or problems:
        return None, problems
    return WorkloadSection(kind=kind, base=base, per_arm=arms), []


def _validate(
    document: SpecDocument, kind: str, options: Mapping[str, Any], path: Path
) -> tuple[OptionsSection | None, list[SpecProblem]]:
    model = kinds()[kind]
    try:
        return model.model_validate(options), []
    except ValidationError as error:
        return None, list(form_problems(document, model, error, path))


def form_problems(
    document: SpecDocument, model: type[BaseModel], error: ValidationError, prefix: Path
) -> Iterator[SpecProblem]:
    """Yield what pydantic found in the section at `prefix`, in the words of a spec, each where the text says it."""
    details = error.errors(include_url=False)[: MOST_PROBLEMS + 1]
    unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
    meant = {(*loc[:-1], nearest(str(loc[-1]), _legal_keys(model, loc[:-1]))) for loc in unknown}
    for detail in details:
        if detail["type"] == "missing" and detail["loc"] in meant:
            continue  # it is there, misspelt: said once
        inner = detail["loc"]
        if detail["type"] != "extra_forbidden" and inner[-1:] == ("[key]",) and (*prefix, *inner) not in document.marks:
            inner = inner[:-1]  # pydantic's word for a key itself; a spec may have one that is called so
        what, remedy = _words(model, inner, detail)
        yield document.problem(_as_written(document, (*prefix, *inner)), what, remedy)


def _as_written(document: SpecDocument, path: Path) -> Path:
    """An option that stands beside a shorthand (`service: x, restart: y`) is one level up in the text."""
    beside = (path[0], *path[2:])
    return beside if path[0] == "workload" and path not in document.marks and beside in document.marks else path


def _words(model: type[BaseModel], path: Path, detail: ErrorDetails) -> tuple[str, str]:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    cause = context.get("error")
    if isinstance(cause, ValueRefused):
        return cause.what, cause.remedy
    key = path[-1] if path else ""
    if kind == "extra_forbidden":
        legal = _legal_keys(model, path[:-1])
        why = refused(Group.SOURCES, str(key)) if set(SourceKeys.model_fields) <= {*legal, "json_page"} else ""
        return f"unknown key {key!r}", why or choose(str(key), legal, noun="key")
    if kind == "missing":
        return f"the key {key!r} is missing", f"add '{key}: ...'"
    if kind in _EXPECTED:
        what = f"{kind_of(value)} stands where {_EXPECTED[kind]} is due"
        if kind == "string_type" and isinstance(value, bool):  # numbers are taken as they are written
            return what, f"quote it if it is meant: '{str(value).lower()}'"
        return what, f"write {_EXPECTED[kind]}" + (", or '' for none" if kind == "string_type" else "")
    if kind in _BOUNDS:
        bound = _BOUNDS[kind].format(**context)
        return f"{kind_of(value)} is out of bounds", f"it must be {bound}"
    return detail["msg"], "'fleetexp example' lists specs that are right"


def _legal_keys(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys of the section at `path`, following the annotations down from `model`."""
    here: object = model
    for part in path:
        # A part names a field of a section, or an entry of the tuple or dict that holds sections.
        here = _plain(here.model_fields[str(part)].annotation) if _is_section(here) else _section(here)
    return [field.alias or name for name, field in here.model_fields.items()] if _is_section(here) else []


def _is_section(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _plain(annotation: object) -> object:
    """Return the section inside Optional, the annotation itself where it is another."""
    return _section(annotation) if get_origin(annotation) in {Union, types.UnionType} else annotation


def _section(annotation: object) -> object:
    """Return the section inside Optional, tuple or dict, the annotation itself where there is none."""
    if _is_section(annotation) or get_origin(annotation) not in {Union, types.UnionType, tuple, dict}:
        return annotation
    return next((found for part in get_args(annotation) if _is_section(found := _section(part))), annotation)
