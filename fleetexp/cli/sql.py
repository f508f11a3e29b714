"""`fleetexp sql`: ask the store anything; read-only."""

from __future__ import annotations

import csv
import itertools
import os
import re
import select
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import NARROW, emit_json, visible

if TYPE_CHECKING:
    from fleetexp.store.read_only.answer import BatchReader, QueryResult
    from fleetexp.store.url import Database
    from fleetexp.store.values import Row

_ROWS_SHOWN = 1000
# What a spreadsheet computes rather than shows (OWASP, CSV injection), wide forms too; a number stays one.
_FORMULA = re.compile(r"(?![+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?\Z)[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_LONGEST_QUERY = 1_000_000  # characters; the store refuses what is longer
_MOST_BYTES = 32 << 20  # of an answer that is held as a whole: a table, JSON
_LONGEST_TIMEOUT = 7 * 86400.0


@click.command(
    epilog="""
    \b
    Example:
      fleetexp sql
      fleetexp sql effects
      fleetexp sql "select * from effects" --csv > effects.csv
      fleetexp sql "select * from metric_series" --parquet all.parquet
      fleetexp sql - < question.sql
    """
)
@click.argument("query", required=False)
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="Print CSV: every row, unless --limit is given. A text that a spreadsheet would compute gets a ' in front.",
)
@click.option("--csv-raw", is_flag=True, help="Print CSV with every text as it is stored: for programs.")
@click.option(
    "--parquet",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every row to a new Parquet file.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"Most rows.  [default: {_ROWS_SHOWN} as a table or JSON, else all]",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0.001, max=_LONGEST_TIMEOUT),
    default=60.0,
    show_default=True,
    help="How long it may take until everything is written.",
)
@store_option
@json_option
def sql(
    *,
    query: str | None,
    as_csv: bool,
    csv_raw: bool,
    parquet: Path | None,
    limit: int | None,
    timeout_seconds: float,
    store_url: Database,
    as_json: bool,
) -> None:
    """Ask the store a QUERY ('-': read it from stdin). Nothing can be changed.

    A query that needs too much time or memory is ended, exit code 1: what was
    written to stdout by then is not all, and a file is not left.

    Without a query: the views there are, their columns and units; with the name
    of a view or table alone, those of that one.
    """
    if as_csv + csv_raw + as_json + (parquet is not None) > 1:
        raise click.UsageError("--csv, --csv-raw, --json and --parquet exclude each other")
    if query is None or query.strip().isidentifier():
        from fleetexp.cli.dictionary import show_all, show_one

        if query is None:
            show_all(as_json)
            return
        if show_one(query.strip(), as_json):
            return
    from fleetexp.errors import QueryTooLong
    from fleetexp.store.read_only.isolated import isolated_reader

    text = sys.stdin.read(_LONGEST_QUERY + 1) if query == "-" else query
    whole = as_csv or csv_raw or parquet is not None
    limit = limit or (None if whole else _ROWS_SHOWN)
    try:
        with isolated_reader(store_url, timeout_seconds=timeout_seconds) as opened:
            if parquet is not None:
                rows_written, truncated = _write_parquet(opened, text, parquet, limit)
                click.echo(f"{rows_written} rows: {parquet}")
            else:
                answer = opened.ask(text, batch_rows=min(limit + 1, 10_000) if limit else 10_000)
                rows = _Limited(answer, limit, most_bytes=None if whole else _MOST_BYTES)
                if as_csv or csv_raw:
                    _print_csv(answer.columns, rows, raw=csv_raw)
                elif as_json:
                    found = [[_json_value(value) for value in row] for row in rows]
                    emit_json({"columns": answer.columns, "rows": found, "truncated": rows.truncated})
                else:
                    _print_table(answer.columns, list(rows))
                truncated = rows.truncated
                sys.stdout.flush()
    except QueryTooLong:
        _drop_what_nobody_reads()
        raise
    if truncated:
        click.echo(f"only the first {limit} rows are shown; ask for more with --limit", err=True)


class _Limited:
    """The rows of an answer, at most so many; afterwards `truncated` says whether there were more.

    QueryRefused where they are more than `most_bytes`.
    """

    def __init__(self, answer: QueryResult, limit: int | None, *, most_bytes: int | None = None) -> None:
        self._answer = answer
        self._limit = limit
        self._most_bytes = most_bytes
        self.truncated = False

    def batches(self) -> Iterator[Sequence[Row]]:
        from fleetexp.errors import QueryRefused
        from fleetexp.store.read_only.answer import bytes_of

        left, size = self._limit, 0
        for batch in self._answer.batches:
            if self._most_bytes is not None:
                size += bytes_of(batch)
                if size > self._most_bytes:
                    raise QueryRefused(
                        f"the answer takes more than {self._most_bytes >> 20} MiB",
                        "",
                        "--csv and --parquet write answers of any size; or name fewer columns, or a LIMIT",
                    )
            if left is None:
                yield batch
                continue
            if left:
                yield batch[:left]
            if len(batch) > left:
                self.truncated = True
                return
            left -= len(batch)

    def __iter__(self) -> Iterator[Row]:
        return itertools.chain.from_iterable(self.batches())


def _drop_what_nobody_reads() -> None:
    """Let the process end although nobody takes what is left in the buffer of stdout."""
    try:
        stdout = sys.stdout.fileno()
    except OSError:  # no file, as in a test
        return
    taking = select.poll()
    taking.register(stdout, select.POLLOUT)
    if not any(events & select.POLLOUT for _, events in taking.poll(0)):
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), stdout)


def cell(value: object) -> str:
    """Show one value in a table: NULL is empty, floats to six significant digits, instants to what they need."""
    from fleetexp.store.read_only.answer import as_text

    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = as_text(value)
    if len(text) == 27 and text.endswith("Z") and text[10] == "T":
        text = text[:-1].replace("T", " ").removesuffix(".000000")
    return visible(text).replace("\n", "\\n")


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[object]], width: int) -> Iterator[str]:
    """Yield the lines of an answer as a table of at most `width` columns."""
    from fleetexp.cli.grid import grid

    numeric = frozenset(
        place
        for place in range(len(columns))
        if rows and all(row[place] is None or isinstance(row[place], (int, float)) for row in rows)
    )
    names = [visible(name).replace("\n", "\\n") for name in columns]
    return grid(names, [[cell(value) for value in row] for row in rows], numeric, width)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    wide = sys.stdout.isatty() or "COLUMNS" in os.environ
    for line in table_lines(columns, rows, shutil.get_terminal_size((NARROW, 24)).columns if wide else NARROW):
        click.echo(line)


class _UnixLines:
    """Ends lines as this system does, with a writer that quotes both signs of the end of a line: told of both."""

    def write(self, line: str) -> int:
        return sys.stdout.write(line.removesuffix("\r\n") + "\n")


def _print_csv(columns: Sequence[str], rows: Iterable[Sequence[object]], *, raw: bool) -> None:
    """Print rows, unless `raw` as text to a spreadsheet; on a terminal, control characters are shown, not obeyed."""
    from fleetexp.store.read_only.answer import as_text

    see = visible if sys.stdout.isatty() else str

    def show(text: str) -> str:
        return see(text if raw or not _FORMULA.match(text) else f"'{text}")

    writer = csv.writer(_UnixLines())
    writer.writerow([show(name) for name in columns])
    for row in rows:
        writer.writerow(["" if value is None else show(as_text(value)) for value in row])


def _json_value(value: object) -> object:
    from fleetexp.store.read_only.answer import as_text

    return value if value is None or isinstance(value, (bool, int, float)) else as_text(value)


def _write_parquet(opened: BatchReader, text: str, path: Path, limit: int | None) -> tuple[int, bool]:
    """Write an answer to a new file that is there whole, or not at all."""
    from fleetexp.errors import StoreError
    from fleetexp.store.parquet import BATCH_ROWS, kinds_seen, write_parquet

    if path.exists():
        raise StoreError("there is a file already", str(path), "name another, or remove it first")
    answer = opened.ask(text, batch_rows=BATCH_ROWS)
    kinds = tuple(kind for kind in answer.kinds if kind is not None)
    if len(kinds) < len(answer.columns):
        kinds = kinds_seen(answer)
        answer = opened.ask(text, batch_rows=BATCH_ROWS)
    rows = _Limited(answer, limit)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        count = write_parquet(unfinished, answer.columns, kinds, rows.batches())
        _appear(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count, rows.truncated


def _appear(unfinished: Path, path: Path) -> None:
    """Give a file its name, never that of a file that appeared meanwhile."""
    from fleetexp.errors import StoreError

    try:
        os.link(unfinished, path)
    except FileExistsError as error:
        raise StoreError("there is a file already", str(path), "name another, or remove it first") from error
    except OSError:  # a file system without links
        if path.exists():
            raise
        unfinished.rename(path)
