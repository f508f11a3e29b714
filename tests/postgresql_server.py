"""A real PostgreSQL server for the tests, from Debian's package: own folder, free loopback port, not root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from tests.free_port import free_port

_PREFIX = "fleetexp-postgresql-"


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL installed here, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


def _place() -> Path:
    """Return a folder without a disk behind it where there is room, else the usual one."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30 else Path(tempfile.gettempdir())


def _remove_orphans(place: Path) -> None:
    """End and remove the servers of tests that were killed: in memory each would hold some hundred MB for ever."""
    for folder in place.glob(f"{_PREFIX}*-*"):
        if not Path("/proc", folder.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            with contextlib.suppress(OSError, ValueError):
                pid = int((folder / "data/postmaster.pid").read_text().split()[0])
                if Path(f"/proc/{pid}/cwd").readlink() == folder / "data":
                    os.kill(pid, signal.SIGQUIT)
            shutil.rmtree(folder, ignore_errors=True)


class Server:
    """A server that can be killed and started again. `durable`: commits are on the disk, as in production."""

    def __init__(self, bin_folder: Path, *, durable: bool = False) -> None:
        self._bin = bin_folder
        self._as = {"user": "postgres", "group": "postgres", "extra_groups": ()} if os.geteuid() == 0 else {}
        _remove_orphans(place := _place())
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
        if self._as:
            entry = pwd.getpwnam("postgres")
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        self._data = self._folder / "data"
        self._databases = 0
        self.port = free_port()
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self._folder,
            "shared_buffers": "128MB",
            "fsync": "on" if durable else "off",
            "full_page_writes": "on" if durable else "off",
        }
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, check=False, **self._as)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    @property
    def running(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def start(self) -> None:
        log = self._folder / "log"
        self._run("pg_ctl", "-D", str(self._data), "-l", str(log), "-w", "-t", "100", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; 'immediate' is a crash: no checkpoint, connections cut."""
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "-t", "100", "stop")

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL; its children notice and go."""
        os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def start_again(self, within_seconds: float = 60.0) -> None:
        """Start it after a kill: as soon as the last child of the old one has gone."""
        deadline = time.monotonic() + within_seconds
        while True:
            try:
                return self.start()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self, like: str = "template1") -> str:
        """Make a database, empty or a copy of another, and return its URL."""
        self._databases += 1
        name = f"store_{self._databases}"
        template = like.rpartition("/")[2]
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._url(name)

    def by_socket(self, url: str) -> str:
        """Return the URL of the same database by the server's socket: every network namespace here reaches that."""
        return f"postgresql://postgres@/{url.rpartition('/')[2]}?host={self._folder}&port={self.port}"

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
