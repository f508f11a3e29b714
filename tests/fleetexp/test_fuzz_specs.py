"""Specs and addresses of stores that attack: understood, or refused with place and remedy, in time and in few words."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.spec_fuzz import addresses, hides_the_password, read_address, read_spec_text, specs, trees

QUICK = settings(max_examples=500, suppress_health_check=list(HealthCheck))


@QUICK
@given(specs() | trees())
def test_a_mutated_spec_is_an_experiment_or_is_refused_with_place_and_remedy(text: str) -> None:
    read_spec_text(text)


@QUICK
@given(addresses())
def test_any_address_is_a_database_or_is_refused_with_a_remedy(text: str) -> None:
    read_address(text)


@QUICK
@given(st.data())
def test_no_address_shows_its_password(data: st.DataObject) -> None:
    hides_the_password(data.draw)
