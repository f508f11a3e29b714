"""The schema that editors read agrees with what the loader takes and refuses; docs/SPEC.md and the shipped schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from fleetexp.errors import ConfigError
from fleetexp.experiment import experiment_to_json, load_experiment, parse_experiment
from fleetexp.experiment.document import read_document
from fleetexp.experiment.json_schema import experiment_schema, keys_of, schema_text, value_schema
from fleetexp.experiment.problem import ValueRefused
from fleetexp.experiment.quantities import (
    Count,
    Duration,
    Share,
    Size,
    parse_count,
    parse_duration,
    parse_share,
    parse_size,
)
from fleetexp.experiment.spec_page import render_spec, sections

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases" / "config"
GOOD = [*sorted((CASES / "good").glob("*.yaml")), *sorted((ROOT / "configs").glob("*.yaml"))]
BAD = sorted((CASES / "bad").glob("*.yaml"))
VALIDATOR = jsonschema.Draft7Validator(experiment_schema())

# What no schema of shapes can know: the loader says it.
BOUNDS_OF_TEXT_WITH_A_UNIT = {
    "alpha-too-large",
    "duration-too-long",
    "expected-zero",
    "holdout-of-all",
    "lease-too-long",
    "lease-too-short",
    "measure-zero",
    "page-size-odd",
    "pressure-too-much",
    "sampling-too-fast",
    "stage-above-all",
}
GRAMMAR_INSIDE_A_TEXT = {
    "command-variable-address",
    "command-variable-password",
    "source-command-address",
    "source-command-password",
    "source-file-splits",
    "source-histogram-its-bucket",
    "source-no-port",
    "source-path-broken",
    "source-token",
    "where-no-comparison",
}
KEYS_THAT_MUST_FIT_EACH_OTHER = {
    "abba-three-arms",
    "accept-two-rules",
    "accept-without-rerandomise",
    "arm-alone",
    "arm-identical",
    "arm-no-control",
    "balance-twice",
    "balance-unused",
    "baseline-too-short",
    "better-of-no-metric",
    "blocks-abba-odd",
    "command-metric-other-letters",
    "command-metric-reserved",
    "command-reports-built-in",
    "control-unknown",
    "guardrail-no-direction",
    "guardrail-twice",
    "hugetlb-no-page-size",
    "hugetlb-pool-too-small",
    "measure-too-short",
    "method-in-switchback",
    "method-without-balance",
    "metric-no-direction",
    "metric-of-another-workload",
    "metric-of-no-workload",
    "metric-primary-and-secondary",
    "metric-secondary-twice",
    "metric-unknown",
    "pairs-with-ratio",
    "parallel-measure",
    "parallel-no-stages",
    "parallel-order",
    "ratio-arm-left-out",
    "ratio-in-switchback",
    "ratio-unknown-arm",
    "region-below-page",
    "salt-without-holdout",
    "service-cgroup-restart",
    "source-histogram-name-taken",
    "source-histogram-no-question",
    "source-histogram-of-json",
    "source-histogram-quantile-of-a-number",
    "source-histogram-summed",
    "source-histogram-two-questions",
    "source-json-no-path",
    "source-name-of-json",
    "source-path-of-page",
    "source-taken-by-derived",
    "source-taken-by-fleetexp",
    "source-taken-by-host",
    "source-taken-by-other-workload",
    "source-taken-by-pattern",
    "source-taken-by-perf",
    "source-taken-by-workload",
    "source-taken-in-other-letters",
    "source-too-seldom",
    "source-twins",
    "source-user-of-page",
    "stage-no-hold",
    "stage-share-same",
    "stage-shrinks",
    "trade-of-no-metric",
    "workload-per-arm-unknown",
}


def as_json(value: object) -> object:
    """A document's data as an editor hands it to a validator."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, tuple) else value


def document_of(path: Path) -> object:
    """The data of a spec, None where its text is no YAML that a spec may be."""
    try:
        document = read_document(path.read_text(), str(path))
    except ConfigError:
        return None
    return None if document.problems else as_json(document.data)


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(experiment_schema())


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_what_loads_is_valid_and_so_is_its_json(path: Path) -> None:
    VALIDATOR.validate(document_of(path))
    VALIDATOR.validate(json.loads(experiment_to_json(load_experiment(path))))


def test_what_is_refused_for_its_shape_is_invalid_and_the_rest_is_listed() -> None:
    documents = {path.stem: document for path in BAD if (document := document_of(path)) is not None}
    taken = {name for name, document in documents.items() if VALIDATOR.is_valid(document)}
    assert taken == BOUNDS_OF_TEXT_WITH_A_UNIT | GRAMMAR_INSIDE_A_TEXT | KEYS_THAT_MUST_FIT_EACH_OTHER
    assert len(documents) - len(taken) >= 85


def test_every_key_says_what_it_is_for() -> None:
    for _, model in sections():
        for name, field in keys_of(model).items():
            assert field.description, f"{model.__name__}.{name}"
            assert field.examples, f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("model", "name"), [(model, name) for _, model in sections() for name in model.model_fields], ids=str
)
def test_the_example_of_each_key_is_right(model: type[BaseModel], name: str) -> None:
    field = model.model_fields[name]
    (example,) = field.examples or ()
    jsonschema.validate(example, value_schema(field.annotation, field.metadata))
    if name != "workload":  # which is taken apart before pydantic sees it
        kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        written = read_document(yaml.safe_dump({"key": example}), "example").data["key"]
        TypeAdapter(kind).validate_python(written)


# What the schema can't say of a text of the right form.
LIMIT = re.compile("longer than a year|finer than a millisecond|not a whole number")
NUMBER = r"[0-9]{1,4}(\.[0-9]{1,4})?"
TEXTS = st.one_of(
    st.from_regex(rf"({NUMBER} ?(d|h|m|s|ms)? ?){{1,3}}", fullmatch=True),
    st.from_regex(rf"{NUMBER} ?(B|K|KiB|kB|KB|M|MiB|MB|G|GiB|GB|T|TiB|k|%|)", fullmatch=True),
    st.from_regex(r"-?[0-9_]{1,9}[kMG%]?", fullmatch=True),
    st.text(alphabet="0123456789._ dhmskMGiB%-", max_size=8),
)


@pytest.mark.parametrize(
    ("written", "parse"),
    [(Duration, parse_duration), (Size, parse_size), (Count, parse_count), (Share, parse_share)],
    ids=["duration", "size", "count", "share"],
)
@given(value=st.one_of(TEXTS, st.integers(-5, 5), st.floats(-2, 2).filter(lambda x: x != int(x)), st.booleans()))
@settings(max_examples=200)
def test_a_quantity_is_valid_just_where_it_is_read(
    written: object, parse: Callable[[object], float], value: object
) -> None:
    valid = jsonschema.Draft7Validator(value_schema(written)).is_valid(value)
    try:
        parse(value)
    except ValueRefused as refused:
        assert not valid or LIMIT.search(refused.what), refused.what
    else:
        assert valid


def test_the_page_and_the_schema_in_docs_are_current() -> None:
    assert (ROOT / "docs/SPEC.md").read_text() == render_spec(), "write it again: see docs/SPEC.md, first lines"
    assert (ROOT / "docs/experiment.schema.json").read_text() == schema_text(), "fleetexp schema > that file"


REPLACEMENTS = (None, True, 0, -1, 2.5, "", "1", "x y", "10s", "1GiB", "5%", (), ("a",), {}, {"a": "b"}, {"a": None})


def changed(value: object, replacement: object) -> Iterator[object]:
    """Every document that differs in one place: the value there is another, or left out, or its key is misspelt."""
    yield replacement
    if isinstance(value, dict):
        for key, item in value.items():
            yield from ({**value, key: other} for other in changed(item, replacement))
            if replacement is REPLACEMENTS[0]:  # once is enough
                rest = {name: one for name, one in value.items() if name != key}
                yield from (rest, {**rest, f"{key}x": item})
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in changed(item, replacement))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_whatever_is_changed_in_one_place_what_loads_is_valid(path: Path) -> None:
    loaded = 0
    for replacement in REPLACEMENTS:
        for document in changed(document_of(path), replacement):
            try:
                parse_experiment(json.dumps(document))
            except ConfigError:
                continue
            loaded += 1
            error = jsonschema.exceptions.best_match(VALIDATOR.iter_errors(json.loads(json.dumps(document))))
            assert error is None, f"{list(error.path)}: {error.message}"
    assert loaded > 0
