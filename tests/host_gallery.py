"""The gallery of hosts in `tests/cases/hosts`: unpacks a tree, and says what the product makes of it.

.venv/bin/python -m tests.host_gallery       write every golden file anew, and name those that changed
"""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from agents.claim import claim_status
from agents.collectors import Collectors
from agents.errors import AgentError
from agents.facts import survey
from agents.sysroot import FolderRoot, Reader
from fleetexp.cli.doctor import claim_line
from fleetexp.cli.doctor_screen import doctor_lines
from fleetexp.cli.errors import failure_lines
from fleetexp.errors import FleetexpError
from fleetexp.experiment.starter_spec import starter_spec

GALLERY = Path(__file__).parent / "cases/hosts"
CGROUP = "system.slice/web.service"
_LINE = re.compile(r"(?P<path>\S+)(?: = (?P<text>.*)| ! (?P<refusal>\S+)|(?P<block>:))")
_COLUMNS = 100


class GalleryRoot(FolderRoot):
    """A folder that refuses what the real host refuses."""

    __slots__ = ("refusals",)

    def __init__(self, root: Path, refusals: Mapping[str, str]) -> None:
        super().__init__(root)
        self.refusals = refusals  # path -> name of an errno, or 'read-only' for all that is below it

    def _refuse(self, path: str) -> None:
        name = self.refusals.get(path, "read-only")
        if name != "read-only":
            number = getattr(errno, name)
            raise OSError(number, os.strerror(number), path)

    def read(self, path: str) -> bytes:
        self._refuse(path)
        return super().read(path)

    def reader(self, path: str) -> Reader:
        self._refuse(path)
        return super().reader(path)

    def names(self, path: str) -> list[str]:
        self._refuse(path)
        return super().names(path)

    def writable(self, path: str) -> bool:
        folders = [place for place, why in self.refusals.items() if why == "read-only"]
        return not any(path.startswith(f"{folder}/") for folder in folders) and super().writable(path)


def host_names() -> list[str]:
    """Return the names of the hosts in the gallery."""
    return sorted(folder.name for folder in GALLERY.iterdir() if folder.is_dir())


def unpack(name: str, folder: Path) -> GalleryRoot:
    """Write the tree of a host below a folder."""
    refusals: dict[str, str] = {}
    for path, text, refusal in _entries((GALLERY / name / "tree").read_text()):
        if refusal:
            refusals[path] = refusal
            if refusal == "read-only":
                continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return GalleryRoot(folder, refusals)


def _entries(tree: str) -> Iterator[tuple[str, str, str]]:
    """Yield (path, text, refusal) of each file of a tree."""
    lines = tree.splitlines()
    while lines:
        line = lines.pop(0)
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"not a line of a tree: {line!r}")
        text = f"{found['text'] or ''}\n".replace("\\0", "\0")
        if found["block"]:
            block = []
            while lines and lines[0].startswith("  "):
                block.append(lines.pop(0)[2:])
            text = "".join(f"{one}\n" for one in block)
        for path in _spelt_out(found["path"]):
            yield path, text, found["refusal"] or ""


def _spelt_out(path: str) -> Iterator[str]:
    """Yield what 'a{1,2}b' stands for."""
    if (braces := re.search(r"\{([^}]*)\}", path)) is None:
        yield path
        return
    for part in braces[1].split(","):
        yield from _spelt_out(path[: braces.start()] + part + path[braces.end() :])


def doctor_text(root: FolderRoot) -> str:
    """Return the map of the host at 80 columns."""
    return "\n".join(doctor_lines(survey(root), claim_line(claim_status(root)), short=False, columns=80)) + "\n"


def init_text(root: FolderRoot) -> str:
    """Return the experiment that init writes for the host, or its refusal."""
    try:
        return starter_spec(survey(root))
    except (AgentError, FleetexpError) as error:
        return "\n".join(failure_lines(error)) + "\n"


def period_text(root: FolderRoot) -> str:
    """Return what is read in a period, what at its ends alone, and what is unavailable and why."""
    collectors = Collectors(root, cgroup=CGROUP)
    try:
        sample = collectors.sample()
        boundary = collectors.boundary()
        reasons: dict[str, list[str]] = defaultdict(list)
        for metric, reason in collectors.unavailable.items():
            reasons[reason].append(metric)
    finally:
        collectors.close()
    lines = ["each sample", *_readings(sample), "at the ends of a period, too"]
    lines += _readings({metric: value for metric, value in boundary.items() if metric not in sample})
    lines.append("unavailable")
    for reason, metrics in sorted(reasons.items()):
        lines += [f"  {reason}", *_paragraph("", metrics)]
    return "\n".join(lines) + "\n"


def _readings(values: Mapping[str, float]) -> Iterator[str]:
    """Yield each metric with its value, and those that read 0 together."""
    yield from (_reading(item) for item in sorted(values.items(), key=lambda item: _by_number(item[0])) if item[1])
    yield from _paragraph("zero:", _folded([metric for metric, value in values.items() if not value]))


def _folded(metrics: Iterable[str]) -> Iterator[str]:
    """Yield 'thp_{16,32}kB_{split,swpout}' for page sizes that have the same of each other's metrics."""
    sizes: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for metric in metrics:
        if (match := re.fullmatch(r"((?:thp|hugetlb)_)(\d+)kB_(\w+)", metric)) is None:
            yield metric
        else:
            sizes[match[1], match[2]].append(match[3])
    alike: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (family, size), whats in sizes.items():
        alike[family, ", ".join(sorted(whats))].append(size)
    for (family, what), same in alike.items():
        sizes_here = ", ".join(sorted(same, key=int))
        yield f"{family}{{{sizes_here}}}kB_{{{what}}}"


def _paragraph(head: str, metrics: Iterable[str]) -> list[str]:
    words = " ".join(sorted(metrics, key=_by_number))
    text = f"{head} {words}" if head else words
    return textwrap.wrap(text, _COLUMNS - 4, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _reading(reading: tuple[str, float]) -> str:
    metric, value = reading
    return f"  {metric:<40} {int(value) if value.is_integer() else f'{value:.6f}'}"


GOLDEN: Mapping[str, Callable[[FolderRoot], str]] = {
    "doctor.txt": doctor_text,
    "init.txt": init_text,
    "period.txt": period_text,
}


def main() -> None:
    """Write every golden file anew."""
    for name in host_names():
        with tempfile.TemporaryDirectory() as folder:
            root = unpack(name, Path(folder))
            for file, write in GOLDEN.items():
                golden, now = GALLERY / name / file, write(root)
                if not golden.exists() or golden.read_text() != now:
                    golden.write_text(now)
                    sys.stdout.write(f"{golden.relative_to(GALLERY)} is new or has changed: read it\n")


if __name__ == "__main__":
    main()
