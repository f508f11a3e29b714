"""docs/PYTHON.md is true: its blocks run in order, in one namespace, on simulated hosts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fleetexp

PAGE = Path(__file__).parents[2] / "docs" / "PYTHON.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for place, block in enumerate(BLOCKS):
        exec(compile(block, f"{PAGE.name}, block {place + 1}", "exec"), namespace)  # noqa: S102 - what the page is for
    said = capsys.readouterr().out
    assert "an effect of" in said
    assert "SIMULATED, NO REAL HOST WAS MEASURED: throughput rose by" in said
    assert "the frame has no column 'value'" in said
    assert (tmp_path / "first.html").read_text().startswith("<!DOCTYPE html>")


def test_the_page_shows_every_name() -> None:
    code = "\n".join(BLOCKS)
    table = re.findall(r"^\| `(\w+)\(", PAGE.read_text(), re.MULTILINE)
    assert sorted(table) == sorted(fleetexp.__all__)
    unused = [name for name in fleetexp.__all__ if f"fleetexp.{name}(" not in code]
    assert unused == ["import_data", "resume"]  # IMPORT.md shows the one; there is nothing to resume on the page
