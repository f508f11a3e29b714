"""Specs and addresses of stores that attack: understood, or refused with place and remedy, in time and in few words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz_examples import draws, quick_and_slow
from tests.spec_fuzz import addresses, hides_the_password, read_address, read_spec_text, specs, trees


@quick_and_slow
def test_a_mutated_spec_is_an_experiment_or_is_refused_with_place_and_remedy(examples: int) -> None:
    @draws(examples)
    @given(specs() | trees())
    def check(text: str) -> None:
        read_spec_text(text)

    check()


@quick_and_slow
def test_any_address_is_a_database_or_is_refused_with_a_remedy(examples: int) -> None:
    @draws(examples)
    @given(addresses())
    def check(text: str) -> None:
        read_address(text)

    check()


@quick_and_slow
def test_no_address_shows_its_password(examples: int) -> None:
    @draws(examples)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        hides_the_password(data.draw)

    check()
