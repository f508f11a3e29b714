"""The process that understands pages: killed when it is late, of bounded memory, gone with whoever started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.collectors import own_cost
from agents.messages import MetricSource, SourceForm
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.page import SourcePage
from agents.metric_sources.parser import Readers
from agents.metric_sources.parser_process import MEMORY_AT_MOST
from agents.metric_sources.picking import Found
from agents.metric_sources.prometheus_text import SeriesValue
from agents.metric_sources.unreadable import Unreadable

X = MetricSource(metric="x", form=SourceForm.PROMETHEUS, pick="x", counter=True, sum_series=True)
SLOW = SourcePage(body=b"# TYPE x gauge\n" + b"".join(b'x{i="%d"} 1\n' % i for i in range(300_000)) + b"# EOF\n")


@pytest.fixture
def readers() -> Iterator[Readers]:
    made = Readers()
    yield made
    made.close()


def pick(readers: Readers, body: bytes, *sources: MetricSource, seconds: float = 30.0) -> Found:
    return readers.pick(SourcePage(body=body), sources or (X,), seconds=seconds, cut=Cancellation())


def children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in listed}


def test_pages_are_understood_one_after_the_other_by_one_process(readers: Readers) -> None:
    before = children()
    assert pick(readers, b'x{a="1"} 3\nx{a="2"} 4\n') == {
        "x": SeriesValue(value=7.0, written_as=1000.0, parts={'{a="1"}': 3.0, '{a="2"}': 4.0})
    }
    first = children() - before
    for number in range(20):
        assert pick(readers, b"x %d\n" % number)["x"] == SeriesValue(
            value=number, written_as=1000.0, parts={"{}": float(number)}
        )
    assert children() - before == first
    readers.close()
    assert children() == before


def test_a_process_that_is_late_is_killed_and_the_next_page_gets_another(readers: Readers) -> None:
    pick(readers, b"x 1\n")
    before, started = own_cost.child_seconds(), time.monotonic()
    with pytest.raises(Unreadable, match="not understood in time") as caught:
        pick(readers, SLOW.body, seconds=0.5)
    assert time.monotonic() - started < 5
    assert caught.value.remedy
    assert own_cost.child_seconds() - before > 0.05  # what it used until then is ours
    assert isinstance(pick(readers, b"x 1\n")["x"], SeriesValue)


def test_what_takes_too_much_memory_gives_no_value(readers: Readers) -> None:
    document = MetricSource(metric="x", form=SourceForm.JSON, pick="a[0]")
    found = pick(readers, b'{"a": [' + b'{"":1},' * (2**24 // 7) + b"[]]}", document)["x"]
    assert isinstance(found, Unreadable)
    assert f"more than {MEMORY_AT_MOST // 2**20} MiB" in found.what
    assert isinstance(pick(readers, b"x 1\n")["x"], SeriesValue)


def test_a_process_that_dies_is_said_and_replaced(readers: Readers) -> None:
    before = children()
    pick(readers, b"x 1\n")
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(Unreadable, match="has ended"):
        pick(readers, b"x 1\n")
    assert isinstance(pick(readers, b"x 1\n")["x"], SeriesValue)


def test_a_sum_of_too_many_series_is_refused(readers: Readers) -> None:
    found = pick(readers, b"".join(b'x{i="%d"} 1\n' % i for i in range(10_001)))["x"]
    assert isinstance(found, Unreadable)
    assert "10001 series are too many" in found.what


AGENT = """
import os
import sys
import time
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.page import SourcePage
from agents.metric_sources.parser import READERS
from agents.messages import MetricSource, SourceForm
from pathlib import Path
source = MetricSource(metric="x", form=SourceForm.PROMETHEUS, pick="x", sum_series=True)
READERS.pick(SourcePage(body=b"x 1\\n"), [source], seconds=30.0, cut=Cancellation())
print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
READERS.pick(SourcePage(body=Path(sys.argv[1]).read_bytes()), [source], seconds=2.0, cut=Cancellation())
time.sleep(300)
"""


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_whoever_started_it(tmp_path: Path, wait_until: Callable[..., float], busy: bool) -> None:
    page = tmp_path / "page"
    page.write_bytes(SLOW.body.removesuffix(b"# EOF\n") * 4 if busy else b"x 1\n")
    with subprocess.Popen([sys.executable, "-c", AGENT, str(page)], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        (pid,) = agent.stdout.readline().split()
        assert Path(f"/proc/{pid}").exists()
        agent.kill()
    # A busy one notices only when it answers, or when its CPU time is used up.
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), within_seconds=15)


def _is_zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_defect_in_it_is_said(readers: Readers) -> None:
    path_that_no_spec_lets_through = MetricSource(metric="x", form=SourceForm.JSON, pick="")
    found = pick(readers, json.dumps({"a": 1}).encode(), path_that_no_spec_lets_through)["x"]
    assert isinstance(found, Unreadable)
    assert "a defect: ValueError" in found.what
