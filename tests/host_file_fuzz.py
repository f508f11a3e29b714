"""Files of hosts that nobody would believe: mutations of the gallery's, and what must hold whatever they say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from hypothesis import strategies as st

from agents.catalogue.table import MEMINFO_KEYS, VMSTAT_KEYS
from agents.claim import claim_status
from agents.collectors import Collectors
from agents.collectors.parsers import KeyedTable, Pressure, parse_buddyinfo, parse_pagetypeinfo
from agents.errors import JournalError
from agents.facts import survey
from agents.messages import Arm, WorkloadSpec
from agents.perf.cpus import parse_numbers
from agents.preflight import preflight
from agents.sysroot import FolderRoot
from fleetexp.cli.doctor_screen import doctor_lines
from fleetexp.errors import RunError
from fleetexp.experiment.starter_spec import starter_spec
from tests.cpu_time import no_hang
from tests.host_gallery import CGROUP, unpack

HOSTS = ("rhel8-4.18", "pud-1g-6.12", "linux-6.12-page-owner", "ubuntu-20.04-5.4", "arm64-64k-guest", "s390-zvm-5.11")
ARMS = (Arm(name="control", knobs={}),)
WORKLOADS = (
    WorkloadSpec(kind="pointer_chase", options={"region_bytes": 1 << 21}),
    WorkloadSpec(kind="acquire", options={"pages": 1, "page_size_kib": 2048, "backing": "hugetlb"}),
    WorkloadSpec(kind="service", options={"cgroup": f"/{CGROUP}"}),
)
PARSERS: Mapping[str, Callable[[bytes, dict[str, float]], None]] = {
    "proc/vmstat": KeyedTable(VMSTAT_KEYS),
    "proc/meminfo": KeyedTable(MEMINFO_KEYS, scale=1024.0, ending=":"),
    "proc/pressure/memory": Pressure("psi_memory"),
    "proc/buddyinfo": parse_buddyinfo,
    "proc/pagetypeinfo": parse_pagetypeinfo,
    "sys/devices/system/cpu/online": lambda data, out: out.update(cpus=float(len(parse_numbers(data)))),
}
_NUMBER = re.compile(rb"[0-9]+")
_LAST_NUMBER = re.compile(rb"[0-9]+(?=[^0-9]*$)")
HOSTILE: Mapping[str, Callable[[bytes], bytes]] = {
    "10,000 digits": lambda text: _NUMBER.sub(b"9" * 10_000, text),
    "5,000 digits at the end": lambda text: _LAST_NUMBER.sub(b"1" * 5_000, text),
    "below zero": lambda text: _NUMBER.sub(rb"-\g<0>", text),
    "digits of another script": lambda text: _NUMBER.sub("١²".encode(), text),
    "NUL": lambda text: _NUMBER.sub(b"\0", text),
    "no number": lambda text: _NUMBER.sub(b"", text),
    "nothing": lambda _: b"",
    "no encoding": lambda text: b"\xff\xfe" + text,
}
_WORDS = (
    *(b"-1", b"+5", b"1.5", b"1e999", b"nan", b"inf", b"0x10", b"1_0", b"kB", b"Node", b"zone", b"type", b"total="),
    *(b"some", b"[", b"]", b"[always]", b"0-", b"-", b"0-99999999999", b"\0", b"\xb2", "٣".encode(), b"\xff\xfe"),
    *(str(2**power + step).encode() for power in (31, 63, 64, 70) for step in (-1, 0)),
    *(b"9" * count for count in (21, 400, 4301, 10_000)),
    *(b"MemTotal:", b"MemAvailable:", b"nr_free_pages", b"Number of blocks type Unmovable", b"Page block order: 9"),
)


@st.composite
def mutated(draw: st.DrawFn, text: bytes) -> bytes:
    """Draw what a file might say instead: a word exchanged, lines lost, doubled or swapped, an end cut off, noise."""
    for _ in range(draw(st.integers(1, 4))):
        lines = text.split(b"\n")
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(("word", "word", "word", "lose", "double", "swap", "cut", "noise"))):
            case "word":
                words = lines[at].split(b" ")
                words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(_WORDS))
                lines[at] = b" ".join(words)
            case "lose":
                del lines[at]
            case "double":
                lines[at:at] = lines[at : at + 20] * draw(st.integers(1, 30))
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "cut":
                lines = [text[: draw(st.integers(0, len(text)))]]
            case _:
                lines[at] = draw(st.binary(max_size=60))
        text = b"\n".join(lines)
    return text


class Gallery:
    """Some hosts of the gallery, unpacked once; a file of theirs is exchanged for one look, and put back."""

    def __init__(self, folder: Path) -> None:
        self.roots = {host: FolderRoot(unpack(host, folder / host).root) for host in HOSTS}
        self.texts = {
            (host, file): root.read(file)
            for host, root in self.roots.items()
            for file in _read_on(root)
            if (root.root / file).is_file()
        }

    def file(self, draw: Callable[[st.SearchStrategy[tuple[str, str]]], tuple[str, str]]) -> tuple[str, str]:
        """Draw a host and one of its files."""
        return draw(st.sampled_from(sorted(self.texts)))

    @no_hang()
    def look(self, host: str, file: str, text: bytes) -> None:
        """Look the host over and sample it while the file says this: no error, no hang, nothing that can't be true."""
        root = self.roots[host]
        (root.root / file).write_bytes(text)
        try:
            look_over(root)
        finally:
            (root.root / file).write_bytes(self.texts[host, file])


class _Watched(FolderRoot):
    """A root that notes what is read from it."""

    __slots__ = ("read_from",)

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read_from: set[str] = set()

    def _at(self, path: str) -> Path:
        self.read_from.add(path)
        return super()._at(path)


def _read_on(root: FolderRoot) -> list[str]:
    """Return every file that mapping and sampling this host reads, or tries to."""
    watched = _Watched(root.root)
    look_over(watched)
    return sorted(watched.read_from)


def look_over(root: FolderRoot) -> None:
    """Map the host as `doctor`, `plan` and `hosts` do, check workloads on it, and sample it."""
    facts = survey(root, host="h")
    assert all(len(line) < 20_000 for line in doctor_lines(facts, "free", short=False, columns=80))
    try:
        starter_spec(facts)
    except RunError as refusal:
        assert refusal.remedy
    try:
        claim_status(root)
    except JournalError as error:
        assert error.remedy
    preflight(root, facts, ARMS, WORKLOADS, None)
    _sample(root)


def _sample(root: FolderRoot) -> None:
    collectors = Collectors(root, cgroup=CGROUP)
    try:
        for read in (collectors.sample(), collectors.boundary()):
            assert all(math.isfinite(value) and value >= 0.0 for value in read.values())
            assert not read.keys() & collectors.unavailable.keys()
        assert all(collectors.unavailable.values())
        assert all(len(reason) < 400 for reason in collectors.unavailable.values())
        collectors.events()
    finally:
        collectors.close()


@no_hang()
def parse_anything(file: str, text: bytes) -> None:
    """Parse a text: it is understood, or a ValueError says in few words why not, within its time."""
    try:
        PARSERS[file](text, {})
    except ValueError as error:
        assert 0 < len(str(error)) < 300
