"""What docs/EXTENDING.md says of the orchestrator and the analysis, done: its blocks installed, its tests run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.test_extending_hosts import FILE, copied, hold_apart, passed

ROOT = Path(__file__).parents[1]
FROM_A_PACKAGE = ("A fleet", "An estimator", "A method of assignment")


def test_a_package_with_what_the_page_shows_passes_the_pages_test(tmp_path: Path) -> None:
    page = (ROOT / "docs/EXTENDING.md").read_text()
    half = page.partition("## In the orchestrator and the analysis\n")[2].partition("\n## ")[0]
    files = re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", half, re.DOTALL)
    assert [name for name, _ in files] == ["own_commands.py", "test_own_commands.py"]
    for section in FROM_A_PACKAGE:
        files += FILE.findall(half.partition(f"### {section}\n")[2].partition("\n### ")[0])
    for name, text in files:
        (tmp_path / Path(name).name).write_text(text)

    offered: list[str] = []
    for block in re.findall(r"```toml\n(.*?)```", half, re.DOTALL):
        for group, points in tomllib.loads(block)["project"]["entry-points"].items():
            offered += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    info = tmp_path / "own_package-1.dist-info"  # what pip writes for such a project
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1\n")
    (info / "entry_points.txt").write_text("\n".join(offered) + "\n")

    assert passed(tmp_path, ["--rootdir", str(tmp_path), str(tmp_path)], ROOT).total() == 7


def test_one_module_and_one_test_add_each(tmp_path: Path) -> None:
    page = (ROOT / "docs/EXTENDING.md").read_text()
    # The page's tests lie beside ours and use their samples.
    project = copied(tmp_path, "tests", "tests/analysis", "tests/analysis/report")
    names = ("A command of fleetexp's own", "A section of the report", *FROM_A_PACKAGE)
    sections = [page.partition(f"### {name}\n")[2].partition("\n### ")[0] for name in names]
    hold_apart(sections)
    tests = []
    for section in sections:
        files = FILE.findall(section)
        assert [path.partition("/")[0] == "tests" for path, _ in files] == [False, True]
        for path, text in files:
            assert not (project / path).exists()
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_text(text)
        tests.append(files[1][0])
    assert passed(project, tests) == dict.fromkeys(tests, 2)
