"""Files kept open: a reading is what a fresh read of the whole file would give, however it grows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from agents.sysroot import FolderRoot


@pytest.mark.parametrize("path", ["etc/list", "proc/list", "proc/meminfo", "sys/kernel/debug/list"])
@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 8192, 20_000])
def test_a_file_is_read_whole_whatever_its_length(tmp_path: Path, path: str, length: int) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    content = bytes(65 + at % 26 for at in range(length))
    file.write_bytes(content)
    reader = FolderRoot(tmp_path).reader(path)
    assert reader.read() == content
    assert reader.read() == content
    reader.close()


def test_a_file_that_grows_and_shrinks_is_read_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_bytes(b"")
    reader = FolderRoot(tmp_path).reader("list")
    for length in (3, 5000, 40_000, 7, 4096, 0, 9000):
        file.write_bytes(b"x" * length)
        assert len(reader.read()) == length
    reader.close()


def test_a_table_whose_lines_begin_alike_is_read_to_its_end_when_it_grows(tmp_path: Path) -> None:
    """As buddyinfo does: its first page ends with a line that begins like the last one."""
    file = tmp_path / "proc/list"
    file.parent.mkdir()
    reader = None
    for lines in (64, 128, 64, 1000):
        file.write_bytes(b"".join(b"Node 0, zone %50d\n" % line for line in range(lines)))
        reader = reader or FolderRoot(tmp_path).reader("proc/list")
        assert len(reader.read()) == 64 * lines
        assert len(reader.read()) == 64 * lines
    assert reader is not None
    reader.close()


@pytest.mark.parametrize("path", ["proc/cpuinfo", "proc/kallsyms", "proc/filesystems", "proc/self/maps"])
def test_files_of_many_records_are_read_to_their_end(path: str) -> None:
    """kallsyms is megabytes in page-sized pieces that end early: a reader that took a short read for the end fails."""
    root = FolderRoot()
    reader = root.reader(path)
    first = reader.read()
    whole = root.read(path)
    if path == "proc/self/maps":  # reading allocates; the last line stays
        assert first.splitlines()[-1].split()[-1] == whole.splitlines()[-1].split()[-1]
    else:
        steady = re.compile(rb"cpu MHz.*|bogomips.*")
        assert steady.sub(b"", first) == steady.sub(b"", whole)
    reader.close()


@pytest.mark.parametrize(
    "path",
    ["proc/vmstat", "proc/meminfo", "proc/buddyinfo", "proc/pagetypeinfo", "proc/pressure/memory", "proc/uptime"],
)
def test_counters_have_the_same_lines_as_a_fresh_read(path: str) -> None:
    root = FolderRoot()
    try:
        whole = root.read(path)
    except OSError as error:
        pytest.skip(f"/{path}: {error.strerror}")
    reader = root.reader(path)
    for _ in range(2):
        assert len(reader.read().splitlines()) == len(whole.splitlines())
    reader.close()


def test_the_beginning_is_all_of_a_short_file(tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.write_text("1\n")
    reader = FolderRoot(tmp_path).reader("one")
    assert reader.begin() == reader.read() == b"1\n"
    file.write_text("22\n")
    assert reader.begin() == b"22\n"
    file.write_text("x" * 5000)
    assert reader.begin() == b"x" * len(reader.begin()) != reader.read()
    reader.close()


def test_a_file_with_one_record_costs_one_read(tmp_path: Path) -> None:
    """Seen from the kernel's count of this process's read calls."""

    def reads() -> int:
        return int(re.search(r"syscr: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]

    if not os.access("/proc/self/io", os.R_OK):
        pytest.skip("no I/O accounting in this kernel")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/one").write_text("1\n")
    reader = FolderRoot(tmp_path).reader("sys/one")
    own = -(reads() - reads())
    before = reads()
    for _ in range(10):
        reader.read()
    assert reads() - before - own == 10
    reader.close()


def test_closing_twice_does_no_harm_and_reading_after_it_fails(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1\n")
    reader = FolderRoot(tmp_path).reader("one")
    reader.close()
    reader.close()
    for read in (reader.read, reader.begin):
        with pytest.raises(OSError, match="Bad file descriptor"):
            read()
