"""What runs on a host stays cheap to ship: the standard library, and Ray and numba in the files that name them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

AGENTS = Path(__file__).parents[1] / "agents"
ALLOWED = {"metric_sources/prometheus_text.py": {"prometheus_client"}, "actor.py": {"ray"}}
ALLOWED_IN_WORKLOADS = {"numba", "numpy"}


def imported(path: Path) -> Iterator[str]:
    """The top-level packages that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def test_agents_import_the_standard_library_and_themselves_only() -> None:
    strangers = {}
    for path in sorted(AGENTS.rglob("*.py")):
        place = path.relative_to(AGENTS)
        allowed = ALLOWED.get(str(place), set()) | (ALLOWED_IN_WORKLOADS if place.parts[0] == "workloads" else set())
        found = set(imported(path)) - sys.stdlib_module_names - {"agents"} - allowed
        if found:
            strangers[str(place)] = sorted(found)
    assert strangers == {}


def test_the_check_sees_an_import_inside_a_function(tmp_path: Path) -> None:
    module = tmp_path / "hidden.py"
    module.write_text("def f():\n    from pandas import DataFrame\n    import numpy.linalg\n")
    assert set(imported(module)) == {"pandas", "numpy"}
