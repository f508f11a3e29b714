"""A rollout as somebody measured it: twelve hosts, two days, half of them changed after the first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

BEGINS = datetime(2026, 2, 1, tzinfo=UTC)
CHANGED = BEGINS + timedelta(days=1)
HOSTS = tuple(f"web-{place:02d}" for place in range(12))
TREATED = HOSTS[6:]
EVERY = timedelta(minutes=15)

MAPPING = """\
name: larger-pages
read: {layout: LAYOUT}
period: 1h
arms:
  control: ["web-0[0-5]"]
  treatment: [web-06, web-07, web-08, web-09, "web-1?"]
changed_at: 2026-02-02T00:00:00+00:00
assigned: at random
drawn: random.shuffle of all hosts
metrics:
  primary: p99
  secondary: [memory]
  better: {p99: decrease}
  units: {p99: milliseconds, memory: GB}
"""


def mapping(layout: str = "long") -> str:
    return MAPPING.replace("LAYOUT", layout)


def observed() -> str:
    """The same, of hosts that somebody chose."""
    return mapping().replace("assigned: at random\ndrawn: random.shuffle of all hosts\n", "")


def long_frame(effect: float = 0.94, days: float = 2) -> pd.DataFrame:
    """One row a value, sorted by time: p99 falls by 6 % where pages are larger, memory rises by 16 GB."""
    chance = np.random.default_rng(7)
    steps = int(timedelta(days=days) / EVERY)
    times = pd.date_range(BEGINS, periods=steps, freq=EVERY)
    shape = (steps, len(HOSTS))
    on = (times >= CHANGED)[:, None] & np.isin(HOSTS, TREATED)[None, :]
    base = 10 + 0.3 * (np.arange(len(HOSTS)) % 6)
    p99 = base * np.where(on, effect, 1.0) + chance.normal(0, 0.4, shape)
    memory = 217 + 16 * on + chance.normal(0, 1, shape)
    parts = [
        pd.DataFrame(values, index=times, columns=list(HOSTS))
        .stack()
        .rename_axis(["time", "host"])
        .rename("value")
        .reset_index()
        .assign(metric=name)
        for name, values in (("p99", p99), ("memory", memory))
    ]
    whole = pd.concat(parts).sort_values(["time", "host", "metric"], ignore_index=True)
    return whole[["host", "time", "metric", "value"]]


def wide_frame() -> pd.DataFrame:
    wide = long_frame().pivot_table(index=["time", "host"], columns="metric", values="value").reset_index()
    return wide.rename_axis(columns=None)


def write_csv(path: Path, frame: pd.DataFrame) -> Path:
    frame.assign(**{name: frame[name].map(pd.Timestamp.isoformat) for name in frame.columns if name == "time"}).to_csv(
        path, index=False
    )
    return path
