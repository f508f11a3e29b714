"""Kept output: the beginning and the end, within a bound, and never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.workloads.kept_output import HEAD_BYTES, TAIL_BYTES, KeptOutput


def kept(path: Path, *chunks: bytes) -> bytes:
    output = KeptOutput(path)
    for chunk in chunks:
        output.write(chunk)
    output.close()
    output.close()
    return path.read_bytes()


def test_little_output_is_kept_whole(tmp_path: Path) -> None:
    assert kept(tmp_path / "deep" / "out", b"one\n", b"two\n") == b"one\ntwo\n"
    assert (tmp_path / "deep" / "out").stat().st_mode & 0o777 == 0o600


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(0, 3 * HEAD_BYTES), max_size=6))
def test_the_first_and_the_last_bytes_are_kept_within_the_bound(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    chunks = [bytes([65 + number % 26]) * size for number, size in enumerate(sizes)]
    everything = b"".join(chunks)
    text = kept(tmp_path_factory.mktemp("kept") / "out", *chunks)
    if len(everything) <= HEAD_BYTES + TAIL_BYTES:
        assert text == everything
    else:
        left_out = len(everything) - HEAD_BYTES - TAIL_BYTES
        note = f"\n[... {left_out:,} bytes not kept ...]\n".encode()
        assert text == everything[:HEAD_BYTES] + note + everything[-TAIL_BYTES:]


def test_each_start_keeps_its_own_output_only(tmp_path: Path) -> None:
    kept(tmp_path / "out", b"first, and longer")
    assert kept(tmp_path / "out", b"second") == b"second"


def test_the_last_line_with_anything_on_it_is_found(tmp_path: Path) -> None:
    output = KeptOutput(tmp_path / "out")
    output.write(b"first\nlast\n \n\n")
    output.close()
    assert output.last_line() == b"last"
    (tmp_path / "out").unlink()
    assert output.last_line() == b""


def test_a_full_disk_ends_the_keeping_and_nothing_else(tmp_path: Path) -> None:
    try:
        full = os.open("/dev/full", os.O_WRONLY)
    except OSError as error:
        pytest.skip(f"/dev/full: {error.strerror}")
    output = KeptOutput(tmp_path / "out")
    os.dup2(full, output._fd)
    os.close(full)
    for _ in range(10):
        output.write(b"x" * TAIL_BYTES)
    output.close()


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "out").symlink_to(tmp_path / "victim")
    kept = KeptOutput(tmp_path / "out")
    kept.write(b"printed")
    kept.close()
    assert (tmp_path / "out").read_text() == "printed"
    assert (tmp_path / "victim").read_text() == "precious"
