"""A stream of tables under one mapping: hosts, arms, changes and the sums of every period, or what is wrong where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.plain_columns import alike_names
from fleetexp.errors import DataRefused
from fleetexp.experiment.mapping import Layout, WrittenMapping
from fleetexp.experiment.problem import choose
from fleetexp.imports.cells import NEVER, BatchPlace, Codes, Names, Reals, Whole, encoded, instants, numbers
from fleetexp.imports.summaries import PeriodSummaries, Summaries
from fleetexp.imports.tables import SourceTable
from fleetexp.store.imported import Provenance

Flags = NDArray[np.bool_]
MOST_SUMS = 20_000_000  # observations that one import may bring: some 100 bytes each, in memory and in the store
MICROSECONDS = 1_000_000


@dataclass(slots=True)
class HostFact:
    """Something that a column says of a host, in every row the same."""

    column: str
    said: dict[int, object] = field(default_factory=dict)

    def note(self, hosts: Whole, values: Codes, words: Sequence[object], at: BatchPlace) -> None:
        """Take the cells of a batch: `words` by value; DataRefused where a host is said to be two things."""
        _, first = np.unique(hosts * (len(words) + 1) + values, return_index=True)
        for place in first.tolist():
            host, word = int(hosts[place]), words[int(values[place])]
            if self.said.setdefault(host, word) != word:
                raise DataRefused(
                    f"the host is in {word!r} here and in {self.said[host]!r} above",
                    at.cell(self.column, place),
                    "a host has one; leave it out with 'exclude' in the mapping, or mend the rows",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What the data say. `arms`, `strata` and `changed` are by the place of the host in `hosts`; instants in
    microseconds; `sums.key` is the host, `sums.column` the metric."""

    hosts: Sequence[str]
    arms: Sequence[str]
    strata: Sequence[str]
    changed: Sequence[int | None]
    first: int | None  # time of the first value and of the last; None where values have no times
    last: int | None
    sums: Summaries
    rows: int
    values: int
    skipped: Counter[str]  # metric of the data that the mapping does not name -> rows; of a wide table 0
    sources: tuple[Provenance, ...]


class Gathering:
    """Reads tables one after the other; `finish` settles what only the whole can show."""

    def __init__(self, written: WrittenMapping) -> None:
        self._written = written
        self._mapping = mapping = written.mapping
        self._metrics = {called: place for place, called in enumerate(mapping.metrics.in_data)}
        self._sums = PeriodSummaries(round(mapping.period * MICROSECONDS))
        self._hosts = Names()
        self._facts = {
            name: HostFact(column)
            for name in ("arm", "changed", "stratum")
            if (column := getattr(mapping.columns, name)) is not None
        }
        self._units: dict[int, str] = {}
        self._first, self._last = np.iinfo(np.int64).max, NEVER
        self._rows = 0
        self._skipped: Counter[str] = Counter()
        self._sources: list[Provenance] = []

    def read(self, table: SourceTable) -> None:
        """Take a table to its end. DataRefused with the first fault: its row, its column and the remedy."""
        columns = self._columns(table)
        rows = 0
        for batch in table.batches(columns):
            if batch.num_rows:
                self._take(batch, BatchPlace(table=table.name, first_row=rows + 1))
            rows += batch.num_rows
        if not rows:
            raise DataRefused("the table has no rows", table.name, "a header alone says nothing")
        self._rows += rows
        self._sources.append(table.provenance(rows))

    # ------------------------------------------------------------------ what a table must have
    def _columns(self, table: SourceTable) -> tuple[str, ...]:
        """The columns that are read; DataRefused where one is not there, or there twice."""
        mapping = self._mapping
        if twice := [name for name, times in Counter(table.columns).items() if times > 1]:
            raise DataRefused(f"two columns are called {twice[0]!r}", table.name, "give each its own name")
        needed = {} if mapping.layout is Layout.PER_HOST else {mapping.columns.time: "columns.time"}
        if mapping.layout is not Layout.HOSTS:
            needed[mapping.columns.host] = "columns.host"
        if mapping.layout is Layout.LONG:
            needed |= {mapping.columns.metric: "columns.metric", mapping.columns.value: "columns.value"}
            if mapping.columns.unit is not None:
                needed[mapping.columns.unit] = "columns.unit"
        elif mapping.layout is not Layout.HOSTS:
            needed |= {called: f"metrics.called.{name}" for called, name in mapping.metrics.in_data.items()}
        needed |= {fact.column: f"columns.{name}" for name, fact in self._facts.items()}
        for name, said_by in needed.items():
            if name not in table.columns:
                raise DataRefused(
                    f"there is no column {name!r}",
                    f"{table.name}, row 0",
                    f"name it in the mapping ({said_by}): {choose(name, table.columns, noun='column')}",
                )
        others = tuple(name for name in table.columns if name not in needed)
        if mapping.layout is Layout.HOSTS:
            return (mapping.columns.time, *(name for name in others if not self._excluded(name)))
        if mapping.layout is not Layout.LONG:
            self._skipped.update(dict.fromkeys(others, 0))
        return tuple(needed)

    # ------------------------------------------------------------------ a batch of it
    def _take(self, batch: pa.RecordBatch, at: BatchPlace) -> None:
        mapping = self._mapping
        if mapping.layout is Layout.HOSTS:
            self._take_hosts(batch, at)
            return
        hosts = self._hosts.of(batch.column(mapping.columns.host), mapping.columns.host, at)
        keep = self._not_excluded(hosts)
        self._note_facts(batch, hosts, at)
        if mapping.layout is Layout.LONG:
            self._take_long(batch, hosts, keep, at)
            return
        times = np.zeros(len(hosts), np.int64)
        if mapping.layout is Layout.WIDE:
            times = instants(batch.column(mapping.columns.time), mapping.columns.time, at, mapping.read)
        values = [numbers(batch.column(name), name, at, mapping.read) for name in self._metrics]
        self._add(hosts, times, values, keep, at)

    def _take_long(self, batch: pa.RecordBatch, hosts: Whole, keep: Flags, at: BatchPlace) -> None:
        columns, rules = self._mapping.columns, self._mapping.read
        codes, words = encoded(batch.column(columns.metric), columns.metric, at)
        metrics = np.array([self._metrics.get(word, -1) for word in words], dtype=np.int64)[codes]
        if (skipped := metrics < 0).any():
            counts = np.bincount(codes[skipped], minlength=len(words)).tolist()
            self._skipped.update({word: count for word, count in zip(words, counts, strict=True) if count})
        times = instants(batch.column(columns.time), columns.time, at, rules)
        values = numbers(batch.column(columns.value), columns.value, at, rules)
        if columns.unit is not None:
            self._note_units(batch.column(columns.unit), columns.unit, metrics, at)
        kept = keep & ~skipped & ~np.isnan(values)
        key = hosts * len(self._metrics) + metrics
        self._add(key, times, [values], kept, at)

    def _take_hosts(self, batch: pa.RecordBatch, at: BatchPlace) -> None:
        """Turn a column a host into a row a host and time, host by host."""
        columns, rules = self._mapping.columns, self._mapping.read
        times = instants(batch.column(columns.time), columns.time, at, rules)
        names = [name for name in batch.schema.names if name != columns.time]
        hosts = np.array([self._hosts.numbers.setdefault(name.strip(), len(self._hosts.numbers)) for name in names])
        values = np.concatenate([numbers(batch.column(name), name, at, rules) for name in names] or [np.empty(0)])
        kept = ~np.isnan(values)
        again = np.tile(np.arange(len(times)), len(names))
        key, when = np.repeat(hosts, len(times)), np.tile(times, len(names))
        self._add(key, when, [values], kept, at, rows=again)

    def _add(
        self,
        keys: Whole,
        times: Whole,
        values: Sequence[Reals],
        kept: Flags,
        at: BatchPlace,
        *,
        rows: Whole | None = None,
    ) -> None:
        """Sum up the rows that are kept; `rows` is where each stands in its batch, where that is not its place."""
        if not kept.any():
            return
        if not kept.all():
            keys, times, values = keys[kept], times[kept], [column[kept] for column in values]
        places = np.flatnonzero(kept) if rows is None else rows[kept]
        self._first, self._last = min(self._first, int(times.min())), max(self._last, int(times.max()))
        self._sums.add(keys, times, values, lambda place: at.row(int(places[place])))

    def _not_excluded(self, hosts: Whole) -> Flags:
        out = np.array([self._excluded(name) for name in self._hosts.words], dtype=np.bool_)
        kept: Flags = ~out[hosts]
        return kept

    def _excluded(self, host: str) -> bool:
        return any(fnmatchcase(host, pattern) for pattern in self._mapping.exclude)

    def _note_facts(self, batch: pa.RecordBatch, hosts: Whole, at: BatchPlace) -> None:
        for name, fact in self._facts.items():
            column = batch.column(fact.column)
            values: Codes
            words: Sequence[object]
            if name == "changed":
                times = instants(column, fact.column, at, self._mapping.read, empty=True)
                seen, values = np.unique(times, return_inverse=True)
                words = seen.tolist()
            else:
                values, words = encoded(column, fact.column, at)
            fact.note(hosts, values.reshape(-1), words, at)

    def _note_units(self, column: pa.Array, name: str, metrics: Whole, at: BatchPlace) -> None:
        codes, words = encoded(column, name, at)
        names = self._mapping.metrics.names
        _, first = np.unique(metrics * len(words) + codes, return_index=True)
        for place in first.tolist():
            metric, word = int(metrics[place]), words[int(codes[place])]
            if metric < 0:
                continue
            known = self._units.setdefault(metric, self._mapping.metrics.units.get(names[metric], word))
            if known != word:
                raise DataRefused(
                    f"{names[metric]} is in {word!r} here, and in {known!r} elsewhere",
                    at.cell(name, place),
                    "convert it to one unit, and name that under metrics.units",
                )

    # ------------------------------------------------------------------ what only the whole shows
    def finish(self) -> Gathered:
        """Return all of it; ConfigError or DataRefused where data and mapping do not fit."""
        sums = self._sums.finish()
        if len(sums.n) > MOST_SUMS:
            self._written.refuse(
                ("period",), f"{len(sums.n):,} sums come of it, {MOST_SUMS:,} may", "sum up over a longer period"
            )
        if self._mapping.layout in {Layout.LONG, Layout.HOSTS}:
            width = len(self._metrics)
            sums = Summaries(
                key=sums.key // width,
                bucket=sums.bucket,
                column=sums.key % width,
                n=sums.n,
                mean=sums.mean,
                spread=sums.spread,
            )
        self._refuse_unmeasured(sums)
        names = self._hosts.words
        there = [place for place, name in enumerate(names) if not self._excluded(name)]
        if (alike := alike_names([names[place] for place in there], hosts=True)) is not None:
            what = f"{alike[0]!r} and {alike[1]!r} are one host by two names"
            remedy = "write each host in one way, or leave one out: 'exclude'"
            raise DataRefused(what, ", ".join(one.name for one in self._sources), remedy)
        arms = self._arms(names, there)
        changed = self._changes(names, there, arms)
        strata = self._facts["stratum"].said if "stratum" in self._facts else {}
        numbered = np.full(len(names), -1, np.int64)
        numbered[there] = np.arange(len(there))
        return Gathered(
            hosts=[names[place] for place in there],
            arms=[arms[place] for place in there],
            strata=[str(strata.get(place, "all")) for place in there],
            changed=[changed[place] for place in there],
            first=None if self._mapping.layout is Layout.PER_HOST else self._first,
            last=None if self._mapping.layout is Layout.PER_HOST else self._last,
            sums=Summaries(
                key=numbered[sums.key],
                bucket=sums.bucket,
                column=sums.column,
                n=sums.n,
                mean=sums.mean,
                spread=sums.spread,
            ),
            rows=self._rows,
            values=int(sums.n.sum()),
            skipped=self._skipped,
            sources=tuple(self._sources),
        )

    def _refuse_unmeasured(self, sums: Summaries) -> None:
        """Refuse a metric that the mapping names and nothing was read of: a misspelt one, most likely."""
        found = set(np.unique(sums.column).tolist())
        for called, place in self._metrics.items():
            if place not in found:
                name = self._mapping.metrics.names[place]
                remedy = f"the data hold {', '.join(list(self._skipped)[:20]) or 'no other'}; name it in metrics.called"
                self._written.refuse(_path_of(self._written, name), f"the data have no value of {called!r}", remedy)

    def _arms(self, names: Sequence[str], there: Sequence[int]) -> dict[int, str]:
        """The arm of each host, by its number."""
        mapping, written = self._mapping, self._written
        if "arm" in self._facts:
            said = {place: str(arm) for place, arm in self._facts["arm"].said.items()}
            for place in there:
                if said[place] not in mapping.arms:
                    written.refuse(
                        ("arms",),
                        f"the data have an arm {said[place]!r} (host {names[place]})",
                        f"add '{said[place]}: []', or exclude its hosts; {choose(said[place], mapping.arms)}",
                    )
            for arm in mapping.arms:
                if arm not in {said[place] for place in there}:
                    written.refuse(("arms", arm), "no host of the data has this arm", "drop it, or mend the column")
            return said
        found: dict[int, str] = {}
        listed = list(_listed(written))
        for place in there:
            of = {arm for arm, _, pattern in listed if fnmatchcase(names[place], pattern)}
            if len(of) != 1:
                what = f"in {' and in '.join(sorted(of))}" if of else "in no arm"
                remedy = "let one arm's names match it" if of else "list it under an arm, or under 'exclude'"
                written.refuse(("arms",), f"the host {names[place]} is {what}", remedy)
            found[place] = of.pop()
        for arm, place, pattern in listed:
            if not any(fnmatchcase(names[host], pattern) for host in there):
                written.refuse(
                    ("arms", arm, place),
                    f"the data have no host {pattern!r}",
                    choose(pattern, [names[host] for host in there], noun="host"),
                )
        return found

    def _changes(self, names: Sequence[str], there: Sequence[int], arms: dict[int, str]) -> dict[int, int | None]:
        """Since when each host is changed, by its number; None: never, or not said."""
        mapping, written = self._mapping, self._written
        out: dict[int, int | None] = dict.fromkeys(there)
        path: tuple[str | int, ...] = ("columns", "changed")
        if "changed" in self._facts:
            said = {place: int(str(at)) for place, at in self._facts["changed"].said.items()}
            out = {place: None if said[place] == NEVER else said[place] for place in there}
        elif mapping.changed_at is not None:
            path, since = ("changed_at",), _microseconds(mapping.changed_at.timestamp())
            out = {place: None if arms[place] == mapping.control else since for place in there}
        elif mapping.changed:
            path, by_name = ("changed",), {names[place]: place for place in there}
            for name, instant in mapping.changed.items():
                if name not in by_name:
                    written.refuse((*path, name), f"the data have no host {name!r}", choose(name, by_name, noun="host"))
                out[by_name[name]] = _microseconds(instant.timestamp())
        else:
            return out
        for place in there:
            at, treated = out[place], arms[place] != mapping.control
            here = (*path, names[place]) if path == ("changed",) else path
            if treated and at is None:
                written.refuse(path, f"nobody says since when {names[place]} is changed", "say so, or exclude it")
            if not treated and at is not None:
                written.refuse(here, f"{names[place]} is in the control, and changed", "move it to another arm")
            if at is not None and not self._first < at <= self._last:
                span = " to ".join(str(np.datetime64(end, "us").astype("M8[s]")) for end in (self._first, self._last))
                written.refuse(
                    here,
                    f"{names[place]} is changed at {np.datetime64(at, 'us').astype('M8[s]')}, outside the data",
                    f"the data reach from {span} UTC: bring earlier or later ones, or mend the time",
                )
        return out


def _listed(written: WrittenMapping) -> Iterator[tuple[str, int, str]]:
    for arm, hosts in written.mapping.arms.items():
        yield from ((arm, place, pattern) for place, pattern in enumerate(hosts))


def _path_of(written: WrittenMapping, name: str) -> tuple[str | int, ...]:
    """Where the mapping names a metric."""
    metrics = written.mapping.metrics
    if name in metrics.called:
        return ("metrics", "called", name)
    for where in ("secondary", "explored"):
        if name in getattr(metrics, where):
            return ("metrics", where, getattr(metrics, where).index(name))
    return ("metrics", "primary") if name == metrics.primary else ("metrics", "guardrails")


def _microseconds(seconds: float) -> int:
    return round(seconds * MICROSECONDS)
