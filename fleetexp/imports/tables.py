"""Where rows come from: CSV, Parquet, a frame, a query. Each is read as a stream of Arrow batches of a bounded size."""

from __future__ import annotations

import codecs
import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from fleetexp.errors import DataRefused
from fleetexp.experiment.mapping import ReadingRules
from fleetexp.store.imported import Provenance
from fleetexp.store.read_only.query import reader

if TYPE_CHECKING:
    from pandas import DataFrame

    from fleetexp.store.url import Database

ROWS_AT_ONCE = 1 << 17
CSV_BYTES_AT_ONCE = 16 << 20
QUERY_SECONDS = 3600.0
_HEADER_BYTES = 1 << 20
_MAGIC = b"PAR1"
_DELIMITERS = ",;\t|"
_PACKED = {  # what a file begins with that holds tables otherwise
    b"\x1f\x8b": ("is packed by gzip", "unpack it"),
    b"PK\x03\x04": ("is an Excel workbook, or a ZIP", "save the sheet as CSV UTF-8, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("is an Excel workbook", "save the sheet as CSV UTF-8"),
}
_WIDE_TEXT = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


class SourceTable(Protocol):
    """A table that is read once, from its first row to its last."""

    @property
    def name(self) -> str:
        """Where it is, fit to be shown."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        ...

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of these columns; DataRefused where they can't be read."""
        ...

    def provenance(self, rows: int) -> Provenance:
        """Say what was read, once it has been."""
        ...


def open_file(path: Path, rules: ReadingRules) -> SourceTable:
    """Open a file of CSV or Parquet, told apart by what it begins with; DataRefused where it is neither."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        raise DataRefused(f"the file can't be read: {error.strerror}", str(path), "check the path") from error
    if not head:
        raise DataRefused("the file is empty", str(path), "name one with a header and rows")
    for mark, (what, remedy) in _PACKED.items():
        if head.startswith(mark):
            raise DataRefused(f"the file {what}", str(path), remedy)
    return ParquetTable(path) if head.startswith(_MAGIC) else CsvTable(path, rules, head)


class ParquetTable:
    """A Parquet file, read by its own types."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _understood(self.name, "is it whole? it begins as Parquet does"):
            self._file = pq.ParquetFile(path)
            self.columns = tuple(self._file.schema_arrow.names)

    @property
    def name(self) -> str:
        return str(self._path)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with _understood(self.name, "is the file whole?"):
            yield from self._file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns))

    def provenance(self, rows: int) -> Provenance:
        return _of_file(self._path, rows)


class CsvTable:
    """A CSV file with a header, in UTF-8; every cell is text until it is converted."""

    def __init__(self, path: Path, rules: ReadingRules, head: bytes) -> None:
        self._path = path
        self._delimiter = rules.delimiter
        for mark, encoding in _WIDE_TEXT.items():
            if head.startswith(mark):
                raise DataRefused(f"the file is {encoding}", self.name, "save it as UTF-8")
        line = head.removeprefix(codecs.BOM_UTF8).splitlines()[0]
        try:
            header = next(csv.reader([line.decode()], delimiter=self._delimiter), [])
        except UnicodeDecodeError as error:
            raise DataRefused("the first row is no UTF-8", f"{path}, row 0", "save the file as UTF-8") from error
        if line.lower().startswith(b"sep="):
            remedy = f"delete it, and write 'read: {{delimiter: \"{line.decode()[4:5]}\"}}' in the mapping"
            raise DataRefused(f"the first row is Excel's own, {line.decode()!r}", f"{path}, row 0", remedy)
        others = [mark for mark in _DELIMITERS if mark != self._delimiter and mark in line.decode()]
        if len(header) < 2 and others:
            raise DataRefused(
                f"the header is one column, {line.decode()[:60]!r}",
                f"{path}, row 0",
                f"is {others[0]!r} between the fields? write 'read: {{delimiter: \"{others[0]}\"}}' in the mapping",
            )
        self.columns = tuple(header)

    @property
    def name(self) -> str:
        return str(self._path)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        remedy = "each row has as many fields as the header; quote those that hold the delimiter"
        with _understood(self.name, remedy, self._refuse_other_text):
            yield from pcsv.open_csv(
                self._path,
                read_options=pcsv.ReadOptions(block_size=CSV_BYTES_AT_ONCE),
                parse_options=pcsv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                convert_options=pcsv.ConvertOptions(
                    include_columns=list(columns), column_types=dict.fromkeys(columns, pa.string())
                ),
            )

    def provenance(self, rows: int) -> Provenance:
        return _of_file(self._path, rows)

    def _refuse_other_text(self) -> None:
        """Raise DataRefused for the first line that is no UTF-8."""
        with self._path.open("rb") as file:
            for row, line in enumerate(file):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    where = f"{self._path}, row {row}"
                    raise DataRefused("the row is no UTF-8", where, "save the file as UTF-8") from error


class FrameTable:
    """A pandas frame."""

    name = "the frame"

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame
        self._digest = hashlib.sha256()
        self.columns = tuple(map(str, frame.columns))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with _understood(self.name, "give each column one type"):
            table = pa.Table.from_pandas(self._frame[list(columns)], preserve_index=False)
        for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
            _digest_of(self._digest, batch)
            yield batch

    def provenance(self, rows: int) -> Provenance:
        return Provenance(name=self.name, sha256=self._digest.hexdigest(), rows=rows)


class QueryTable:
    """The rows of a SELECT of the user's own, read-only, by a cursor on the server."""

    def __init__(self, database: Database, sql: str) -> None:
        self._database = database
        self._sql = sql
        self._digest = hashlib.sha256()
        with reader(database, timeout_seconds=QUERY_SECONDS) as opened:
            self.columns = opened.ask(sql, batch_rows=1).columns

    @property
    def name(self) -> str:
        return self._database.name

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with reader(self._database, timeout_seconds=QUERY_SECONDS) as opened:
            answer = opened.ask(self._sql, batch_rows=ROWS_AT_ONCE // 2)
            places = [answer.columns.index(name) for name in columns]
            for rows in answer.batches:
                with _understood(self.name, "cast each column to one type in the query"):
                    arrays = [pa.array([row[place] for row in rows]) for place in places]
                    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
                _digest_of(self._digest, batch)
                yield batch

    def provenance(self, rows: int) -> Provenance:
        return Provenance(name=self.name, sha256=self._digest.hexdigest(), rows=rows, question=self._sql)


@contextmanager
def _understood(where: str, remedy: str, look: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Turn what Arrow can't read into a refusal; `look` may raise a better one."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        look()
        raise DataRefused(" ".join(str(error).split())[:300], where, remedy) from error


def _of_file(path: Path, rows: int) -> Provenance:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Provenance(name=str(path), sha256=digest, rows=rows, size_bytes=path.stat().st_size)


def _digest_of(digest: hashlib._Hash, batch: pa.RecordBatch) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    digest.update(sink.getvalue())
