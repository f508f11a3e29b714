"""What a stranger's page does to the thread that keeps the tick of a lease: its longest pause under hostile pages."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agents.messages import MetricSource, SourceForm
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.reading import places, read_place
from agents.sysroot import FolderRoot

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

BEAT_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.020
TIMEOUT_SECONDS = 2.0
OVERRUN_SECONDS = 1.0  # a process that starts, and one that is ended, on a busy machine
SIZE = 15 * 2**20
TIMES = 3  # the best of them: other processes of the machine hold a thread up, too
SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = Path(sys.argv[1]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", Path(sys.argv[2]).read_text())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
# The same tick in a process that does nothing else: what it is held up by is the machine, not the page.
QUIET = """
import select, sys, time
longest, last = 0.0, time.monotonic()
while True:
    asked = select.select([sys.stdin], [], [], float(sys.argv[1]))[0]
    now = time.monotonic()
    longest, last = max(longest, now - last - float(sys.argv[1])), now
    if asked:
        if not sys.stdin.readline():
            break
        print(longest, flush=True)
        longest, last = 0.0, time.monotonic()
"""
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def filled(begin: bytes, part: bytes, end: bytes) -> bytes:
    return begin + part * ((SIZE - len(begin) - len(end)) // len(part)) + end


def numbered(line: bytes) -> bytes:
    return b"".join(line % number for number in range(850_000))


# name -> page, its type, and the form that it is read as
TEXT, SERIES, JSON = "text/plain", SourceForm.PROMETHEUS, SourceForm.JSON
PAGES: dict[str, tuple[Callable[[], bytes], str, SourceForm]] = {
    "one line of labels": (lambda: filled(b"x{", b'a="1",', b"} 1\n"), TEXT, SERIES),
    "one line of backslashes": (lambda: filled(b'x{a="', b"\\", b'"} 1\n'), TEXT, SERIES),
    "one line of quotes": (lambda: filled(b"x{a=", b'"', b"} 1\n"), TEXT, SERIES),
    "escaped quotes": (lambda: filled(b'x{a="', b'\\"', b'"} 1\n'), TEXT, SERIES),
    "a long HELP": (lambda: filled(b"# HELP x ", b"h\\n", b"\nx 1\n"), TEXT, SERIES),
    "a long HELP of OpenMetrics": (lambda: filled(b"# HELP x ", b"h\\n", b"\nx 1\n# EOF\n"), OPENMETRICS, SERIES),
    "matching lines": (lambda: numbered(b'x{i="%d"} 1\n'), TEXT, SERIES),
    "matching lines of OpenMetrics": (lambda: numbered(b'x{i="%d"} 1\n') + b"# EOF\n", OPENMETRICS, SERIES),
    "lines of 10,000 labels": (lambda: filled(b"", b"x{" + b'a="1",' * 10_000 + b"} 1\n", b""), TEXT, SERIES),
    "blanks": (lambda: filled(b"", b" ", b"x 1\n"), TEXT, SERIES),
    "blank lines": (lambda: filled(b"", b"\n", b"x 1\n# EOF\n"), OPENMETRICS, SERIES),
    "names that are near": (lambda: numbered(b"xyz_%d 1\n"), TEXT, SERIES),
    "digits": (lambda: filled(b"x ", b"9", b"\n"), TEXT, SERIES),
    "JSON: [[[[": (lambda: filled(b"", b"[", b""), "application/json", JSON),
    "JSON: numbers": (lambda: filled(b"[", b"1,", b"1]"), "application/json", JSON),
    "JSON: objects": (lambda: filled(b"[", b'{"":1},', b"1]"), "application/json", JSON),
    "JSON: digits": (lambda: filled(b"", b"9", b""), "application/json", JSON),
}


@dataclass
class Tick:
    """A thread that ought to run every 2 ms, and the longest time in which it did not."""

    longest: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        last = time.monotonic()
        while not self.stopped.wait(BEAT_SECONDS):
            now = time.monotonic()
            self.longest = max(self.longest, now - last - BEAT_SECONDS)
            last = now


class Quiet:
    """A tick beside ours that no page concerns."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", QUIET, str(BEAT_SECONDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.longest()

    def longest(self) -> float:
        """Return its longest pause since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        with self._process:
            self._process.kill()


@pytest.fixture
def quiet() -> Iterator[Quiet]:
    made = Quiet()
    yield made
    made.end()


class Served:
    """A web server in a process of its own, so that it shares no interpreter with the tick."""

    def __init__(self, folder: Path) -> None:
        self._page, self._type = folder / "page", folder / "type"
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self._page), str(self._type)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/"

    def serve(self, page: bytes, content_type: str) -> None:
        self._page.write_bytes(page)
        self._type.write_text(content_type)

    def end(self) -> None:
        with self._process:
            self._process.kill()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.end()


def pause_while(act: Callable[[], None]) -> float:
    """Return the longest pause of a tick thread while something is done."""
    tick = Tick()
    thread = threading.Thread(target=tick.run)
    thread.start()
    try:
        act()
    finally:
        tick.stopped.set()
        thread.join()
    return tick.longest


def test_no_page_holds_the_beat_of_a_lease_up(served: Served, quiet: Quiet) -> None:
    pauses: dict[str, float] = {}
    overruns: dict[str, float] = {}
    served.serve(b"x 1\n", TEXT)
    read_once(MetricSource(metric="x", url=served.url, form=SERIES, pick="x"), quiet)  # what it imports the first time
    for name, (make, content_type, form) in PAGES.items():
        served.serve(make(), content_type)
        pick = "x" if form is SERIES else "[0]"
        source = MetricSource(metric="x", url=served.url, form=form, pick=pick, timeout_seconds=TIMEOUT_SECONDS)
        found = [read_once(source, quiet) for _ in range(TIMES)]
        pause, beside, took = min(found, key=lambda one: one[0])
        pauses[name], overruns[name] = pause - beside, min(took for _, _, took in found) - TIMEOUT_SECONDS
        print(
            f"{name:30} longest pause {pause * 1e3:5.1f} ms, of a process beside {beside * 1e3:5.1f} ms, "
            f"read for {took:4.2f} s"
        )
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory at most {peak_mib:.0f} MiB, of which the pages that this test made are a part")
    assert {name: pause for name, pause in pauses.items() if pause > LONGEST_PAUSE_SECONDS} == {}
    assert {name: over for name, over in overruns.items() if over > OVERRUN_SECONDS} == {}


def read_once(source: MetricSource, quiet: Quiet) -> tuple[float, float, float]:
    """Return the longest pause of the tick while a source is read, of one beside it, and how long the reading took."""
    (place,) = places([source], "web-1")
    quiet.longest()
    began = time.monotonic()
    pause = pause_while(lambda: read_place(place, FolderRoot(), Cancellation()) and None)
    return pause, quiet.longest(), time.monotonic() - began
