"""Columns of a frame that somebody brings: names of hosts, arms and metrics, and where the first fault is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.errors import BadObservations


def with_names(rows: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return the rows with these columns as text; BadObservations with the first row of one that names nothing."""
    for name in columns:
        if (gone := rows[name].isna()).any():
            raise BadObservations(
                f"the {name} is missing", f"frame, column {name}, row {first(gone)}", "name it, or drop the row"
            )
        rows = rows.assign(**{name: rows[name].astype(str)})
    return rows


def first(mask: pd.Series[bool]) -> int:
    """Return the position of the first row that is marked."""
    return int(np.argmax(mask.to_numpy()))
