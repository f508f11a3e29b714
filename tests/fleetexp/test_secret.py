"""Secrets in hands that can't show them: what each way of saying one says."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
from dataclasses import asdict, dataclass

import pytest

from fleetexp.logs import JsonFormatter
from fleetexp.secret import HIDDEN, VARIABLES, Secret, secrets_withheld, without_secrets

SECRET = Secret("Wint3rH4rbour")


@dataclass(frozen=True)
class Holder:
    secret: Secret


def test_a_secret_is_said_as_three_stars() -> None:
    record = logging.LogRecord("x", 1, "x", 1, "got %s", (SECRET,), None)
    said = [
        str(SECRET),
        f"{SECRET} {SECRET!r:>20} {SECRET:>20}",
        "%s %r" % (SECRET, SECRET),  # noqa: UP031 - the way of logging
        repr([SECRET, {"password": SECRET}]),
        repr(Holder(SECRET)),
        repr(asdict(Holder(SECRET))),
        str(ValueError("refused", SECRET)),
        repr(copy.deepcopy(SECRET)),
        json.dumps({"password": SECRET}, default=str),
        JsonFormatter().format(record),
    ]
    assert all(HIDDEN in one and "Wint" not in one and "rbour" not in one for one in said)


def test_only_reveal_gives_a_secret() -> None:
    assert SECRET.reveal() == "Wint3rH4rbour"
    assert str(SECRET) == HIDDEN
    assert bool(SECRET)
    assert not Secret("")
    with pytest.raises(TypeError):
        len(SECRET)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        hash(SECRET)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(SECRET)


def test_secrets_are_equal_where_their_texts_are_and_never_equal_a_text() -> None:
    assert Secret("Wint3rH4rbour") == SECRET
    assert Secret("wint3rH4rbour") != SECRET
    assert Secret("\udcff") != SECRET
    assert SECRET != "Wint3rH4rbour"  # noqa: S105 # type: ignore[comparison-overlap]


def test_a_child_is_given_an_environment_without_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "Wint3r")
    assert "Wint3r" not in without_secrets(os.environ).values()
    assert without_secrets(os.environ)["PATH"] == os.environ["PATH"]
    with pytest.raises(ValueError, match="a library"), secrets_withheld():
        assert not set(VARIABLES) & set(os.environ)
        raise ValueError("a library failed")
    assert {os.environ[name] for name in VARIABLES} == {"Wint3r"}


def test_what_a_spec_may_name_is_withheld_from_children_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETEXP_SECRET_METRICS", "Wint3r")
    assert "FLEETEXP_SECRET_METRICS" not in without_secrets(os.environ)
    with secrets_withheld():
        assert "FLEETEXP_SECRET_METRICS" not in os.environ
    assert {os.environ[name] for name in ("FLEETEXP_SECRET_METRICS",)} == {"Wint3r"}
