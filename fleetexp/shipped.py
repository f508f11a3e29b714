"""Where fleetexp is, and the files that come with it beside its code: experiments, units, a dashboard, pages.

`fleetexp/configs` and `fleetexp/docs` are links to the folders of the repository; in a wheel they are folders.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
# The folder that holds our packages: processes of ours are given it, never the current folder, which may be anybody's.
PACKAGES = str(_HERE.resolve().parent)
_FOLDERS = ("configs", "docs")
SCHEMA = "docs/experiment.schema.json"  # what 'fleetexp schema' prints


def shipped_files() -> dict[str, Path]:
    """Return every file by its name, as 'configs/systemd/ray.env', in the order of the names."""
    found = (path for folder in _FOLDERS for path in (_HERE / folder).rglob("*") if path.is_file())
    return {path.relative_to(_HERE).as_posix(): path for path in sorted(found)}


def shipped_file(name: str) -> Path | None:
    """Return the file of that name: whole, without its folders, or without its suffix; None for none, or several."""
    files = shipped_files()
    if name in files:
        return files[name]
    found = [path for whole, path in files.items() if whole.endswith(f"/{name}") or path.stem == name]
    return found[0] if len(found) == 1 else None
