"""Files that commands write: whole or not at all, through no link, in the place of nothing that is not ours."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from enum import Enum
from pathlib import Path

from fleetexp.errors import RunError

_BEGINNING_BYTES = 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Over(Enum):
    """What a new file may take the place of."""

    NOTHING = "nothing"
    REPORT = "report"  # one that fleetexp wrote, known by its generator mark
    ANY_FILE = "any file"  # asked for with --force


def write_output(content: str | bytes, path: Path, over: Over, *, remedy: str) -> Path:
    """Write a file with the mode that the umask gives; RunError with `remedy` where the name is taken.

    It is written under another name beside, made anew, and renamed: what a link of the name points to, or what somebody
    reads meanwhile, is never touched.
    """
    fresh = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    data = content.encode() if isinstance(content, str) else content
    try:
        fd = os.open(fresh, _NEW, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        _place(fresh, path, over, remedy)
    finally:
        fresh.unlink(missing_ok=True)
    return path


def refuse_taken(path: Path, over: Over, *, remedy: str) -> None:
    """Raise RunError with `remedy` where what has the name, a file or anything else, is to stay."""
    if over is Over.NOTHING or (over is Over.REPORT and not _is_report(path)):
        raise RunError(_taken_by(path), where=str(path), remedy=remedy)
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise RunError(_taken_by(path), where=str(path), remedy="name another one")


def _place(fresh: Path, path: Path, over: Over, remedy: str) -> None:
    """Give the file its name, never that of one that is to stay."""
    with suppress(FileExistsError):
        _link(fresh, path)
        return
    refuse_taken(path, over, remedy=remedy)
    fresh.replace(path)


def _link(fresh: Path, path: Path) -> None:
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(path, _NEW, 0o666))
        fresh.replace(path)


def _is_report(path: Path) -> bool:
    """Whether a regular file, no link, begins as our reports do; nothing else is opened."""
    from analysis.report import REPORT_MARK

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        return stat.S_ISREG(os.fstat(fd).st_mode) and REPORT_MARK.encode() in file.read(_BEGINNING_BYTES)


def _taken_by(path: Path) -> str:
    if path.is_symlink():
        return "there is a symbolic link of that name, and links are not written through"
    return "the file is there already" if path.is_file() else "there is something of that name already"
