"""One random cycle through every cache line of a region, laid without a table and in one sequential pass.

A seeded bijection P over the slots gives the order: P(0), P(1), ..., P(n-1), and back to P(0). This is one cycle of
length n whatever P is. Slot s holds the place of P(P^-1(s) + 1), so that laying needs no memory beside the region,
and any position of the chase can be computed, which is how a chase is verified.

P adds, multiplies by odd numbers and folds high bits into low ones, modulo 2^bits, each step invertible (the kind of
mixing that ends MurmurHash3). With four folds the jumps from line to line repeat no oftener than those of a random
permutation; with two they do. Numbers outside the region are walked on until they fall into it (cycle walking:
J. Black and P. Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from agents.workloads.native import native

LINE_BYTES = 64  # a slot: one cache line, its first word holds the index of the next slot's first word
WORDS_PER_LINE = np.uint64(8)
Words: TypeAlias = npt.NDArray[np.uint64]

_ONE = np.uint64(1)
_FOLDS = 4
# Where a key holds what: slots, mask, fold, offset, then a factor before the first fold and after each, then inverses.
_FIRST = 4
_LAST = _FIRST + _FOLDS
_INVERSE = _FOLDS + 1
_MASK64 = 2**64 - 1


def make_key(slots: int, seed: int) -> Words:
    """Return the bijection over `slots` as numbers, drawn from a seed."""
    if slots < 1:
        raise ValueError(f"a cycle needs at least one slot, not {slots}")
    bits = max(1, (slots - 1).bit_length())
    modulus = 2**bits
    offset, *factors = _random_words(seed, 1 + _FOLDS + 1)
    odd = [(factor | 1) % modulus for factor in factors]
    inverses = [pow(factor, -1, modulus) for factor in odd]
    # Folding by at least half the bits undoes itself.
    return np.array([slots, modulus - 1, (bits + 1) // 2, offset % modulus, *odd, *inverses], dtype=np.uint64)


def _random_words(seed: int, count: int) -> list[int]:
    """Return 64-bit numbers from a seed (splitmix64: Steele, Lea and Flood, OOPSLA 2014)."""
    words, state = [], seed & _MASK64
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & _MASK64
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK64
        words.append(word ^ (word >> 31))
    return words


@native("uint64(uint64[::1], uint64)")
def slot_at(key: Words, step: np.uint64) -> np.uint64:
    """Return P(step): the slot that is visited at this step, from 0 to slots - 1."""
    slots, mask, fold = key[0], key[1], key[2]
    at: np.uint64 = step
    while True:
        at = ((at + key[3]) * key[_FIRST]) & mask
        for factor in range(_FIRST + 1, _LAST + 1):
            at = ((at ^ (at >> fold)) * key[factor]) & mask
        if at < slots:
            return at


@native("uint64(uint64[::1], uint64)")
def step_of(key: Words, slot: np.uint64) -> np.uint64:
    """Return the step at which a slot is visited: the inverse of `slot_at`."""
    slots, mask, fold = key[0], key[1], key[2]
    at: np.uint64 = slot
    while True:
        for factor in range(_LAST, _FIRST, -1):
            at = (at * key[factor + _INVERSE]) & mask
            at = at ^ (at >> fold)
        at = (at * key[_FIRST + _INVERSE] - key[3]) & mask
        if at < slots:
            return at


def word_at(key: Words, steps: int) -> np.uint64:
    """Return the word that a chase from the beginning has reached after some steps."""
    return np.uint64(slot_at(key, np.uint64(steps % int(key[0])))) * WORDS_PER_LINE


@native("void(uint64[::1], uint64[::1])")
def lay_cycle(words: Words, key: Words) -> None:
    """Write the cycle into a region: `slots` cache lines, each written once, in the order of their addresses."""
    slots = key[0]
    slot = slots - slots
    while slot < slots:
        step = step_of(key, slot) + _ONE
        if step == slots:
            step = step - slots
        words[slot * WORDS_PER_LINE] = slot_at(key, step) * WORDS_PER_LINE
        slot = slot + _ONE


@native("uint64(uint64[::1], uint64, int64)")
def chase(words: Words, start: np.uint64, dereferences: int) -> np.uint64:
    """Follow the cycle from a word: each load needs the one before it. Return where it ends."""
    at = start
    for _ in range(dereferences):
        at = words[at]
    return at


@native("void(uint64[::1], int64)")
def touch(words: Words, stride_words: int) -> None:
    """Write the first word of each stride, in the order of addresses, from this one thread."""
    for place in range(0, len(words), stride_words):
        words[place] = _ONE
