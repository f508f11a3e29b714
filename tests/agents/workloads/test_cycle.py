"""The order of a chase: one cycle through every cache line, whatever the size and the seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.workloads import cycle
from agents.workloads.cycle import WORDS_PER_LINE, Words, chase, lay_cycle, make_key, slot_at, step_of, touch

SLOTS = st.integers(1, 700)
SEEDS = st.integers(0, 2**70)


def laid(slots: int, seed: int) -> tuple[Words, Words]:
    words: Words = np.zeros(slots * int(WORDS_PER_LINE), dtype=np.uint64)
    key = make_key(slots, seed)
    lay_cycle(words, key)
    return words, key


@given(slots=SLOTS, seed=SEEDS)
def test_following_the_words_visits_every_line_once_and_comes_back(slots: int, seed: int) -> None:
    words, _ = laid(slots, seed)
    seen, at = [], 0
    for _ in range(slots):
        seen.append(at)
        at = int(words[at])
    assert at == 0
    assert sorted(seen) == list(range(0, 8 * slots, 8))


@given(slots=SLOTS, seed=SEEDS, step=st.integers(0, 10**6))
def test_step_and_slot_are_inverse(slots: int, seed: int, step: int) -> None:
    key = make_key(slots, seed)
    assert step_of(key, slot_at(key, np.uint64(step % slots))) == step % slots


@given(slots=SLOTS, seed=SEEDS, dereferences=st.integers(0, 2000))
def test_a_chase_ends_where_it_was_computed_to_end(slots: int, seed: int, dereferences: int) -> None:
    words, key = laid(slots, seed)
    start = np.uint64(slot_at(key, np.uint64(0))) * WORDS_PER_LINE
    end = chase(words, start, dereferences)
    assert end == slot_at(key, np.uint64(dereferences % slots)) * 8


def test_the_order_depends_on_the_seed_and_on_nothing_else() -> None:
    first, again, other = laid(1000, 1)[0], laid(1000, 1)[0], laid(1000, 2)[0]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_neighbours_in_the_order_are_no_neighbours_in_memory() -> None:
    slots = 2**16
    key = make_key(slots, 7)
    order = np.array([slot_at(key, np.uint64(step)) for step in range(4096)], dtype=np.int64)
    jumps = np.abs(np.diff(order))
    assert np.mean(jumps) == pytest.approx(slots / 3, rel=0.05)  # the mean distance of two random places
    random = np.abs(np.diff(np.random.default_rng(1).permutation(slots)[:4096]))
    assert np.unique(jumps).size > 0.99 * np.unique(random).size  # and no stride that a prefetcher could learn
    pages = order // 64
    assert np.mean(pages[1:] == pages[:-1]) < 0.01


def test_touch_writes_the_first_word_of_each_stride() -> None:
    words: Words = np.zeros(100, dtype=np.uint64)
    touch(words, 32)
    assert np.flatnonzero(words).tolist() == [0, 32, 64, 96]


def test_a_cycle_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        make_key(0, 1)


@pytest.mark.parametrize("slots", [1, 2, 64, 100])
def test_the_machine_code_does_what_the_python_says(slots: int) -> None:
    def interpreted(name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(cycle, name).py_func
        return function

    words, key = laid(slots, 3)
    with np.errstate(over="ignore"):
        for number in range(slots):
            step = np.uint64(number)
            assert interpreted("slot_at")(key, step) == slot_at(key, step)
            assert interpreted("step_of")(key, step) == step_of(key, step)
        by_hand: Words = np.zeros_like(words)
        interpreted("lay_cycle")(by_hand, key)
    assert np.array_equal(by_hand, words)
    assert interpreted("chase")(words, np.uint64(0), 17) == chase(words, np.uint64(0), 17)
    touched: Words = np.zeros(16, dtype=np.uint64)
    interpreted("touch")(touched, 8)
    assert np.flatnonzero(touched).tolist() == [0, 8]
