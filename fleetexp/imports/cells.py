"""Columns of a batch as NumPy arrays: names as numbers, instants in microseconds, values; or the first bad cell."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fleetexp.errors import DataRefused
from fleetexp.experiment.mapping import ReadingRules

Whole = NDArray[np.int64]
Reals = NDArray[np.float64]
Codes = NDArray[np.integer[Any]]

_INSTANT = pa.timestamp("us", tz="UTC")
_NAIVE = pa.timestamp("us")
_FINER, _FINER_NAIVE = pa.timestamp("ns", tz="UTC"), pa.timestamp("ns")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_COMMA = re.compile(r"[-+]?[0-9.]*,[0-9]+")
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_YEARS = 1980, 2100  # instants outside are of another unit
_PER_SECOND = {"seconds": 1_000_000, "milliseconds": 1_000}
_NUMBER = "numbers are due here"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlace:
    """Where a batch stands: rows are counted from 1, below the header."""

    table: str
    first_row: int

    def row(self, place: int) -> str:
        return f"{self.table}, row {self.first_row + place}"

    def cell(self, column: str, place: int) -> str:
        return f"{self.row(place)}, column {column!r}"


@dataclass(slots=True)
class Names:
    """The names seen so far, each with a number from 0."""

    numbers: dict[str, int] = field(default_factory=dict)

    def of(self, column: pa.Array, name: str, at: BatchPlace) -> Whole:
        """Return the number of each cell's name; DataRefused for a cell without one."""
        codes, words = encoded(column, name, at)
        known = np.array([self.numbers.setdefault(word, len(self.numbers)) for word in words], dtype=np.int64)
        return known[codes]

    @property
    def words(self) -> list[str]:
        return list(self.numbers)


def encoded(column: pa.Array, name: str, at: BatchPlace) -> tuple[Codes, list[str]]:
    """Return for each cell the place of its word in the list beside it; DataRefused for a cell without one."""
    column = _plain(column, keep_dictionary=True)
    if not pa.types.is_dictionary(column.type):
        if not (_is_text(column.type) or pa.types.is_integer(column.type)):
            raise DataRefused(f"the column holds {column.type}, and names are due", at.cell(name, 0), "give text")
        column = column.dictionary_encode()
    words = [("" if word is None else str(word).strip()) for word in column.dictionary.to_pylist()]
    if odd := next((word for word in words if _CONTROL.search(word)), None):
        place = int(np.argmax(pc.equal(column.indices, words.index(odd)).to_numpy(zero_copy_only=False)))
        raise DataRefused(f"the name {odd!r} holds a control character", at.cell(name, place), "give letters")
    indices = pc.fill_null(column.indices, len(words)) if column.null_count else column.indices
    codes: Codes = indices.to_numpy(zero_copy_only=False)
    if column.null_count or not all(words):
        gone = np.isin(codes, [len(words), *(place for place, word in enumerate(words) if not word)])
        if gone.any():
            raise DataRefused("the cell is empty", at.cell(name, int(np.argmax(gone))), "name it, or drop the row")
    return codes, words


def numbers(column: pa.Array, name: str, at: BatchPlace, rules: ReadingRules) -> Reals:
    """Return the values, NaN where a cell is empty; DataRefused for text, and for what is not finite."""
    column = _plain(column)
    if _is_text(column.type):
        missing = pc.equal(pc.utf8_trim_whitespace(column), "")
        text = pc.if_else(missing, None, pc.utf8_trim_whitespace(column))
        plain = text
        if rules.decimal == ",":  # a point there parts thousands: as one of decimals it would be read
            plain = pc.replace_substring(pc.replace_substring(text, ".", "_"), ",", ".")
        found = _cast(plain, pa.float64(), lambda place: _no_number(text, place, name, at, rules))
    elif pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_decimal(column.type):
        found = pc.cast(column, pa.float64(), safe=False)
    elif pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    else:
        raise DataRefused(f"the column holds {column.type}, and {_NUMBER}", at.cell(name, 0), "store it as double")
    values: Reals = found.to_numpy(zero_copy_only=False)
    if (
        not (good := np.isfinite(values)).all()
        and (bad := found.is_valid().to_numpy(zero_copy_only=False) & ~good).any()
    ):
        place = int(np.argmax(bad))
        raise DataRefused(
            f"{values[place]} is not a measurement", at.cell(name, place), "leave the cell empty where nothing was read"
        )
    return values


def instants(column: pa.Array, name: str, at: BatchPlace, rules: ReadingRules, *, empty: bool = False) -> Whole:
    """Return microseconds since 1970, UTC; of an empty cell, where one may be, the smallest number there is.

    DataRefused for a time without a zone where the mapping names none, one that its zone leaves out or has twice, and
    for what is no time.
    """
    column = _plain(column)
    if _is_text(column.type):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(text, ""), None, text)
    if column.null_count and not empty:
        place = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise DataRefused("the time is missing", at.cell(name, place), "say when, or drop the row")
    found = _instants(column, name, at, rules)
    counts = pc.cast(found, pa.int64())
    since: Whole = (pc.fill_null(counts, NEVER) if counts.null_count else counts).to_numpy(zero_copy_only=False)
    return since


NEVER = int(np.iinfo(np.int64).min)


def _instants(column: pa.Array, name: str, at: BatchPlace, rules: ReadingRules) -> pa.Array:
    if pa.types.is_null(column.type):
        return pc.cast(column, _INSTANT)
    if rules.unix is not None:
        seconds = numbers(column, name, at, rules) * _PER_SECOND[rules.unix]
        first, last = (datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1e6 for year in _YEARS)
        if (odd := (seconds < first) | (seconds > last)).any():
            place = int(np.argmax(odd))
            raise DataRefused(
                f"{column[place]} {rules.unix} since 1970 are not a time of these years",
                at.cell(name, place),
                f"are they {' or '.join(unit for unit in _PER_SECOND if unit != rules.unix)}? write that as 'unix', or "
                "convert them",
            )
        return pa.array(np.rint(seconds), from_pandas=True).cast(pa.int64()).cast(_INSTANT)
    if _is_text(column.type):
        target, finer = (_INSTANT, _FINER) if rules.zone is None else (_NAIVE, _FINER_NAIVE)
        text = column
        try:
            column = pc.cast(text, target)
        except pa.ArrowInvalid:  # more decimals than six, as Go and .NET write; or no time
            column = _cast(text, finer, lambda place: _no_time(text, place, name, at, rules)).cast(target, safe=False)
    elif not pa.types.is_timestamp(column.type):
        raise DataRefused(
            f"the column holds {column.type}, and times are due",
            at.cell(name, 0),
            "store timestamps; of seconds since 1970, write 'read: {unix: seconds}' in the mapping",
        )
    if column.type.tz is not None:
        return pc.cast(column, _INSTANT, safe=False)
    if rules.zone is None:
        raise DataRefused("the times have no zone", at.cell(name, 0), _name_the_zone())
    naive = pc.cast(column, _NAIVE, safe=False)
    try:
        return pc.cast(pc.assume_timezone(naive, rules.zone, ambiguous="raise", nonexistent="raise"), _INSTANT)
    except pa.ArrowInvalid:
        place = _first_odd(naive, ZoneInfo(rules.zone))
        raise DataRefused(
            f"{naive[place]} is not one instant in {rules.zone}: the clocks were changed there",
            at.cell(name, place),
            "store times in UTC",
        ) from None


def _first_odd(naive: pa.Array, zone: ZoneInfo) -> int:
    """The first time that its zone has twice, or not at all."""
    for place, at in enumerate(naive.to_pylist()):
        if at is not None and len({at.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)}) > 1:
            return place
    return 0


def _plain(column: pa.Array, *, keep_dictionary: bool = False) -> pa.Array:
    """Return the column without the encodings that say the same."""
    if pa.types.is_dictionary(column.type) and not keep_dictionary:
        column = column.dictionary_decode()
    return pc.cast(column, pa.string()) if pa.types.is_string_view(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _cast(column: pa.Array, target: pa.DataType, refusal: Callable[[int], DataRefused]) -> pa.Array:
    """Cast all cells at once; where that fails, find the first that does not."""
    try:
        return pc.cast(column, target)
    except pa.ArrowInvalid:
        first, last = 0, len(column)  # the fault lies in [first, last)
        while last - first > 1:
            middle = (first + last) // 2
            try:
                pc.cast(column.slice(first, middle - first), target)
            except pa.ArrowInvalid:
                last = middle
            else:
                first = middle
        raise refusal(first) from None


def _no_number(column: pa.Array, place: int, name: str, at: BatchPlace, rules: ReadingRules) -> DataRefused:
    text = str(column[place])
    if rules.decimal == "," and "." in text:
        remedy = "commas are decimal here: drop the points that part thousands"
    elif rules.decimal == "." and _THOUSANDS.fullmatch(text):
        remedy = (
            "a comma that parts thousands: drop it; only if it is a decimal one, write 'read: {decimal: \",\"}' in the "
            "mapping"
        )
    elif rules.decimal == "." and _COMMA.fullmatch(text):
        remedy = "of a decimal comma, write 'read: {decimal: \",\"}' in the mapping"
    else:
        remedy = "give numbers, and nothing where nothing was read"
    return DataRefused(f"{text[:60]!r} is not a number", at.cell(name, place), remedy)


def _no_time(column: pa.Array, place: int, name: str, at: BatchPlace, rules: ReadingRules) -> DataRefused:
    text = str(column[place])
    try:
        has_zone = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return DataRefused(
            f"{text[:60]!r} is not a time",
            at.cell(name, place),
            "write ISO 8601, as '2026-02-02T10:00:00Z'; of seconds since 1970, 'read: {unix: seconds}'",
        )
    if not has_zone:
        return DataRefused(f"the time {text!r} has no zone", at.cell(name, place), _name_the_zone())
    return DataRefused(
        f"the time {text!r} names its zone, and so does the mapping ({rules.zone})",
        at.cell(name, place),
        "drop 'zone' from the mapping, and let each time name its own",
    )


def _name_the_zone() -> str:
    return "write 'read: {zone: UTC}' in the mapping, or the zone that they are in"
