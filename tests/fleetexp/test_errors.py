"""Errors say what, where and the remedy, and arrive whole from another process."""

from __future__ import annotations

import pickle

import pytest

from fleetexp import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_a_pickle_with_its_fields(kind: type[errors.FleetexpError]) -> None:
    error = kind("the disk is full", "sqlite:///a.db", "free some space")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is kind
    assert (again.what, again.where, again.remedy) == (error.what, error.where, error.remedy)
    assert str(again) == "the disk is full [sqlite:///a.db] — free some space"


def test_place_and_remedy_are_left_out_where_there_is_none() -> None:
    assert str(errors.StoreError("it failed")) == "it failed"


def test_every_public_error_is_listed_and_drawn_in_the_docstring() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert set(errors.__all__) == defined
    assert errors.__doc__ is not None
    drawn = [line for line in errors.__doc__.splitlines() if "─ " in line or line == "FleetexpError"]
    assert {line.split("─ ")[-1].split()[0] for line in drawn} == defined


def test_every_store_error_is_caught_as_one() -> None:
    kinds = (
        "BadStoreUrl",
        "WrongSchema",
        "StoreDamaged",
        "StoreLocked",
        "StoreFull",
        "StoreUnreachable",
        "QueryRefused",
    )
    assert all(issubclass(getattr(errors, kind), errors.StoreError) for kind in (*kinds, "NoSuchRun"))


def test_several_problems_of_a_spec_are_one_line_each() -> None:
    error = errors.ConfigError("2 problems", "a.yaml", "", ("a.yaml:1:1 x: unknown", "a.yaml:2:1 y: unknown"))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert again.problems == error.problems
    assert str(again).splitlines()[1:] == ["  a.yaml:1:1 x: unknown", "  a.yaml:2:1 y: unknown"]
