"""Files kept open and read at each sample. One that goes away is reported once and tried again at period boundaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from agents.catalogue.table import ONLY_ON
from agents.collectors.notes import Notes, why
from agents.numbers import whole_number, whole_numbers
from agents.sysroot import Reader, SysRoot

Parser = Callable[[bytes, dict[str, float]], None]  # adds metrics to the sample; ValueError where it can't


class Source(Protocol):
    """Something that adds metrics to a sample."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that one `collect` reads now."""
        ...

    def collect(self, out: dict[str, float]) -> None: ...
    def retry(self) -> None:
        """Open what could not be opened before."""
        ...

    def close(self) -> None: ...


class ParsedFile:
    """One file with several metrics."""

    __slots__ = ("_metrics", "_notes", "_parse", "_path", "_reader", "_root", "_seen")

    def __init__(self, root: SysRoot, path: str, parse: Parser, metrics: Sequence[str], notes: Notes) -> None:
        self._root = root
        self._path = path
        self._parse = parse
        self._metrics = tuple(metrics)
        self._notes = notes
        self._reader: Reader | None = None
        self._seen = 0  # how many of the metrics were there last
        self.retry()

    @property
    def paths(self) -> tuple[str, ...]:
        return (self._path,) if self._reader is not None else ()

    def collect(self, out: dict[str, float]) -> None:
        if self._reader is None:
            return
        try:
            out |= self._read(self._reader)
        except (OSError, ValueError) as error:
            self._gone(error, out)

    def _read(self, reader: Reader) -> dict[str, float]:
        """Read the file, and note where it says more or less than before."""
        seen: dict[str, float] = {}
        self._parse(reader.read(), seen)
        if len(seen) != self._seen:
            self._seen = len(seen)
            self._notes.found(seen.keys() - self._notes.doubts)
            for metric in self._metrics:
                if metric not in seen:
                    where = f"; found on {ONLY_ON[metric]} only" if metric in ONLY_ON else ""
                    self._notes.missing([metric], f"/{self._path} has no such line on this kernel{where}")
        return seen

    def _gone(self, error: OSError | ValueError, out: dict[str, float]) -> None:
        reason = why(error)
        self._notes.lost(f"/{self._path}: {reason}")
        self.close()
        self.retry()  # a file that was made anew, such as a restarted service's cgroup, is there at once
        if self._reader is not None:
            try:
                out |= self._read(self._reader)
            except (OSError, ValueError):
                self.close()
        if self._reader is None:
            self._notes.missing(self._metrics, f"/{self._path} went away: {reason}")

    def retry(self) -> None:
        if self._reader is not None:
            return
        reader: Reader | None = None
        try:
            reader = self._root.reader(self._path)
            self._seen = -1
            self._read(reader)
        except (OSError, ValueError) as error:
            if reader is not None:
                reader.close()
            self._notes.missing(self._metrics, f"/{self._path}: {why(error)}")
            return
        self._reader = reader

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class NumberFiles:
    """Many files with one number each: the shape of sysfs counters. Only what reads unlike before is converted."""

    __slots__ = ("_begins", "_missing", "_notes", "_open", "_root", "_texts", "_values")

    def __init__(self, root: SysRoot, paths: Mapping[str, str], notes: Notes) -> None:
        """Keep the files open; `paths` maps metric -> path."""
        self._root = root
        self._notes = notes
        self._open: dict[str, tuple[str, Reader]] = {}
        self._missing = dict(paths)
        self._begins: tuple[Callable[[], bytes], ...] = ()  # of `_open`, in its order
        self._texts: Sequence[bytes | None] = ()  # what they returned last, and what that says
        self._values: dict[str, float] = {}
        self.retry()

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self._open.values())

    def collect(self, out: dict[str, float]) -> None:
        try:
            texts = [begin() for begin in self._begins]
            if texts != self._texts:
                pairs = zip(self._open, texts, self._texts, strict=True)
                fresh = {metric: text for metric, text, before in pairs if text != before}
                self._values.update(zip(fresh, whole_numbers(fresh.values()), strict=True))
                self._texts = texts
        except (OSError, ValueError):
            self._collect_singly(out)
        else:
            out |= self._values

    def _collect_singly(self, out: dict[str, float]) -> None:
        """Read what is there, and note what has gone away or can't be believed."""
        failed: list[tuple[str, OSError]] = []
        for metric, (path, reader) in self._open.items():
            try:
                out[metric] = float(whole_number(reader.read()))
            except OSError as error:
                failed.append((metric, error))
            except ValueError as error:
                self._notes.doubted(metric, f"/{path}: {why(error)}")
        if failed:
            self._gone(failed, out)

    def _gone(self, failed: Sequence[tuple[str, OSError]], out: dict[str, float]) -> None:
        for metric, error in failed:
            path, reader = self._open.pop(metric)
            reader.close()
            self._missing[metric] = path
            self._notes.lost(f"/{path}: {why(error)}")
        self.retry()
        for metric, _ in failed:
            if metric in self._open:
                try:
                    out[metric] = float(whole_number(self._open[metric][1].read()))
                except (OSError, ValueError) as error:
                    self._notes.missing([metric], f"/{self._open[metric][0]}: {why(error)}")

    def retry(self) -> None:
        for metric, path in tuple(self._missing.items()):
            try:
                reader = self._root.reader(path)
            except OSError as error:
                self._notes.missing([metric], f"/{path}: {why(error)}")
                continue
            self._open[metric] = (path, reader)
            del self._missing[metric]
            self._notes.found([metric])
        self._begins = tuple(reader.begin for _, reader in self._open.values())
        self._texts, self._values = [None] * len(self._open), {}

    def close(self) -> None:
        for _, reader in self._open.values():
            reader.close()
        self._open.clear()
        self._begins, self._texts, self._values = (), (), {}
