"""A store that is readable but not writable: every command that only reads works, and the others name the right."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from fleetexp.store.store import open_store
from fleetexp.store.tables import SCHEMA_VERSION
from tests.fleetexp.reporting.fleet_run import fleet_run

ROOT = Path(__file__).parents[3]
ANOTHER = 65534
# One process for all commands: each is called as the command line calls it.
DRIVER = """
import contextlib, io, json, sys, threading, urllib.error, urllib.request
from fleetexp.cli.main import cli
from fleetexp.web.server import LiveServer

def serve(url):
    with LiveServer(url, port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(server.address) as answer:
            text = answer.read().decode()
        server.shutdown()
    return [0, text, ""]

def call(arguments):
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = 0
        try:
            cli(arguments, prog_name="fleetexp")
        except SystemExit as end:
            code = int(end.code or 0)
    return [code, out.buffer.getvalue().decode(), err.getvalue()]

print(json.dumps([serve(a[1]) if a[0] == "serve" else call(a) for a in json.loads(sys.argv[1])]))
"""
Said: TypeAlias = list[tuple[int, str, str]]


def as_another(*calls: list[str]) -> Said:
    """Call the commands as a user without a privilege who does not own the store."""
    command = [sys.executable, "-c", DRIVER, json.dumps(calls)]
    if os.geteuid() == 0:  # without its capabilities root is a user like others
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]


def give_away(folder: Path) -> None:
    """Leave others the right to read, and nothing more."""
    for file in (*folder.iterdir(), folder):
        file.chmod(0o555 if file.is_dir() else 0o444)
        if os.geteuid() == 0:
            os.chown(file, ANOTHER, ANOTHER)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run as a crash leaves it: half in the file, half in its log, with the log's index."""
    folder = tmp_path_factory.mktemp("crashed")
    url = f"sqlite:///{folder / 'in-use.db'}"
    open_store(url).close()
    with contextlib.closing(sqlite3.connect(folder / "in-use.db")) as holder:
        holder.execute("PRAGMA wal_autocheckpoint = 0")
        holder.execute("BEGIN")
        holder.execute("SELECT count(*) FROM run").fetchall()  # whoever closes can't empty the log
        with contextlib.closing(open_store(url)) as store:
            fleet_run(store)
        for end in ("", "-wal", "-shm"):
            shutil.copyfile(folder / f"in-use.db{end}", folder / f"runs.db{end}")
    return folder / "runs.db"


@pytest.fixture
def placed(crashed: Path) -> Callable[..., Path]:
    """Put the store into a folder, with which of the files beside it."""

    def place(folder: Path, *, log: bool, index: bool) -> Path:
        folder.mkdir(exist_ok=True)
        for end, there in (("", True), ("-wal", log or not index), ("-shm", index)):
            if there:
                shutil.copyfile(f"{crashed}{end}", folder / f"runs.db{end}")
        if not log:
            with contextlib.closing(sqlite3.connect(folder / "runs.db")) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return folder / "runs.db"

    return place


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the files; in the index readers with the right to it note what they read."""
    return {file.name: b"" if file.suffix == ".db-shm" else file.read_bytes() for file in folder.iterdir()}


def everything_reads(store: Path, elsewhere: Path) -> None:
    url = f"sqlite:///{store}"
    before = contents(store.parent)
    reads = [
        ["runs", "--store", url],
        ["status", "1", "--store", url],
        ["report", "1", "--html", str(elsewhere / "report.html"), "--store", url],
        ["sql", "select count(*) as n from run", "--csv", "--store", url],
        ["export", "1", "--to", str(elsewhere / "export"), "--store", url],
        ["db", "check", "--store", url],
        ["serve", url],
    ]
    said = as_another(*reads)
    assert [code for code, _, _ in said] == [0] * len(reads), said
    assert "completed" in said[0][1]
    assert said[3][1] == "n\n1\n"
    assert "completed" in said[6][1]
    assert (elsewhere / "report.html").exists() and (elsewhere / "export" / "manifest.json").exists()
    assert contents(store.parent) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=False).returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


CASES = [
    pytest.param(True, False, id="a log without its index"),
    pytest.param(True, True, id="a log and its index", marks=pytest.mark.slow),
    pytest.param(False, False, id="no log", marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize(("log", "index"), CASES)
def test_another_users_store_in_a_folder_that_can_not_be_written(
    placed: Callable[..., Path], tmp_path: Path, log: bool, index: bool
) -> None:
    store = placed(tmp_path / "theirs", log=log, index=index)
    give_away(store.parent)
    everything_reads(store, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("log", "index"), CASES)
def test_a_store_on_a_disk_mounted_read_only(
    placed: Callable[..., Path], small_disk: Path, tmp_path: Path, log: bool, index: bool
) -> None:
    store = placed(small_disk, log=log, index=index)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    everything_reads(store, tmp_path)
    (code, _, said) = as_another(["pause", "1", "--store", f"sqlite:///{store}"])[0]
    assert code == 1
    assert "its file system is mounted read-only" in said


@pytest.mark.slow
@pytest.mark.parametrize(("log", "index"), CASES)
def test_a_store_on_a_full_disk(
    placed: Callable[..., Path], small_disk: Path, tmp_path: Path, log: bool, index: bool
) -> None:
    store = placed(small_disk, log=log, index=index)
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
    everything_reads(store, tmp_path)


@pytest.mark.slow
def test_what_writes_names_the_right_that_is_missing(placed: Callable[..., Path], tmp_path: Path) -> None:
    file_only = placed(tmp_path / "file", log=False, index=False)
    folder_only = placed(tmp_path / "folder", log=False, index=False)
    older = placed(tmp_path / "older", log=False, index=False)
    private = placed(tmp_path / "private", log=True, index=True)
    closed = placed(tmp_path / "closed", log=False, index=False)
    with contextlib.closing(sqlite3.connect(older)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    for store in (file_only, folder_only, older, private, closed):
        give_away(store.parent)
    file_only.parent.chmod(0o777)
    folder_only.chmod(0o666)
    private.with_name("runs.db-wal").chmod(0o000)
    closed.parent.chmod(0o000)
    calls = [
        ["pause", "1", "--store", f"sqlite:///{file_only}"],
        ["pause", "1", "--store", f"sqlite:///{folder_only}"],
        ["db", "upgrade", "--store", f"sqlite:///{older}"],
        ["runs", "--store", f"sqlite:///{older}"],
        ["runs", "--store", f"sqlite:///{private}"],
        ["sql", "select 1", "--store", f"sqlite:///{closed}"],
    ]
    said = as_another(*calls)
    closed.parent.chmod(0o755)
    user = os.geteuid()
    texts = [" ".join(error.split()) for _, _, error in said]
    assert [code for code, _, _ in said] == [1] * len(calls), texts
    assert f"the store can't be written: user {user} may not write runs.db [" in texts[0]
    assert f"user {user} may not write the folder {folder_only.parent}, where SQLite keeps its log" in texts[1]
    assert f"user {user} may not write runs.db [" in texts[2]
    assert f"has schema 0001, this fleetexp needs {SCHEMA_VERSION}" in texts[3]
    assert "upgrade the copy" in texts[3]
    assert f"user {user} may not read runs.db-wal" in texts[4]
    assert f"user {user} may not enter the folder {closed.parent}" in texts[5]
