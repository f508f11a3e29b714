"""Columns of a frame that somebody brings: names of hosts, arms and metrics, and where the first fault is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import BadObservations

_PORT = re.compile(r"(?<=[^:]):[0-9]{1,5}$")


def with_names(rows: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return the rows with these columns as text; BadObservations with the first row of one that names nothing."""
    for name in columns:
        if (gone := rows[name].isna()).any():
            raise BadObservations(
                f"the {name} is missing", f"frame, column {name}, row {first(gone)}", "name it, or drop the row"
            )
        codes, seen = pd.factorize(rows[name])
        names = [str(one).strip() for one in seen]
        rows = rows.assign(**{name: pd.Series(names, dtype=str).array.take(codes)})
        if name != "metric" and (alike := alike_names(dict.fromkeys(names), hosts=name == "host")) is not None:
            raise BadObservations(
                f"{alike[0]!r} and {alike[1]!r} are one {name} by two names",
                f"frame, column {name}",
                f"write each {name} in one way",
            )
    return rows


def alike_names(names: Iterable[str], *, hosts: bool) -> tuple[str, str] | None:
    """Return two names that mean the same thing: but for case; of hosts also for a port, or with and without a domain.

    A host that is counted as two makes every interval too narrow.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = name.casefold()
        key = _PORT.sub("", key).rstrip(".") if hosts else key
        if key in seen:
            return seen[key], name
        seen[key] = name
    short = {key.partition(".")[0]: name for key, name in seen.items() if "." in key} if hosts else {}
    return next(((name, short[key]) for key, name in seen.items() if key in short), None)


def numbers_of(column: pd.Series[Any], name: str, remedy: str, *, finite: bool = False) -> pd.Series[float]:
    """Return a column as numbers, NaN where it says nothing; BadObservations for text, times, and what is not finite.

    Only where all must be `finite` are infinities refused.
    """
    times = isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind in "Mm"
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    if (other := ((numbers.isna() | times) & column.notna()) | (finite & np.isinf(numbers))).any():
        row = column.index[first(other)]
        raise BadObservations(f"{column[row]!r} is not a number", f"frame, column {name}, row {row}", remedy)
    return numbers


def first(mask: pd.Series[bool]) -> int:
    """Return the position of the first row that is marked."""
    return int(np.argmax(mask.to_numpy()))
