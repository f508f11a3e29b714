"""Places that answer well, badly, slowly, without end or not at all: a value, or the reason why there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from agents.collectors import own_cost
from agents.collectors.notes import Notes
from agents.collectors.own_cost import OwnCost
from agents.messages import MetricSource, Severity, SourceForm
from agents.metric_sources import web_page
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.check import check_sources
from agents.metric_sources.prometheus_text import SeriesValue
from agents.metric_sources.reading import boottime, places, read_place
from agents.metric_sources.unreadable import Unreadable
from agents.sysroot import FolderRoot
from tests.naps import napping, new_nap
from tests.web_server import Web

PAGE = b"# TYPE rps gauge\nrps 12.5\n"


def page(web: Web, **more: Any) -> MetricSource:  # noqa: ANN401 - as MetricSource takes them
    return MetricSource(metric="rps", url=web.url, form=SourceForm.PROMETHEUS, pick="rps", **more)


def read(source: MetricSource, root: FolderRoot | None = None) -> float | str:
    """The value, or why there is none; never later than its time."""
    (place,) = places([source], "web-1")
    started = time.monotonic()
    found = read_place(place, root or FolderRoot(), Cancellation())[source.metric]
    assert time.monotonic() - started < source.timeout_seconds + 5
    return found.what if isinstance(found, Unreadable) else found.value


# ------------------------------------------------------------------ over HTTP
def test_a_page_is_read_and_the_host_named(web: Web) -> None:
    web.body = PAGE
    source = MetricSource(metric="rps", url=f"{web.url}?host={{host}}", form=SourceForm.PROMETHEUS, pick="rps")
    assert read(source) == 12.5
    asked, headers = web.asked[0]
    assert asked == "/metrics?host=web-1"
    assert headers["Accept"].startswith("text/plain")


def test_one_page_with_several_metrics_is_asked_for_once(web: Web) -> None:
    web.body = b"a 1\nb 2\n"
    sources = [MetricSource(metric=name, url=web.url, form=SourceForm.PROMETHEUS, pick=name) for name in ("a", "b")]
    (place,) = places(sources, "h")
    found = read_place(place, FolderRoot(), Cancellation())
    assert {name: getattr(one, "value", None) for name, one in found.items()} == {"a": 1, "b": 2}
    assert len(web.asked) == 1


def test_nobody_there_is_said() -> None:
    source = MetricSource(metric="rps", url="http://127.0.0.1:1/m", form=SourceForm.PROMETHEUS, pick="rps")
    assert read(source) == "connection refused"


def test_a_status_that_is_no_answer_is_no_value(web: Web) -> None:
    web.body, web.status = PAGE, 503
    assert read(page(web)) == "HTTP 503 Service Unavailable"


@pytest.mark.parametrize("to", ["file:///etc/passwd", "http://127.0.0.1:1/m", "/elsewhere"])
def test_a_redirect_leads_nowhere(web: Web, to: str) -> None:
    web.body, web.status, web.headers = PAGE, 302, {"Location": to}
    assert read(page(web)) == f"HTTP 302: it is at {to!r}"
    assert len(web.asked) == 1


def test_a_page_of_a_coding_that_was_not_asked_for_is_refused(web: Web) -> None:
    web.body, web.headers = PAGE, {"Content-Encoding": "gzip"}
    assert "encoded as 'gzip'" in str(read(page(web)))


def test_a_page_without_end_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_page, "BYTES_AT_MOST", 2**20)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        while not web.release.is_set():
            handler.wfile.write(b"x 1\n" * 4096)

    web.behave = endless
    assert read(page(web)) == "the page is larger than 1 MiB"


def silent(_: BaseHTTPRequestHandler, release: threading.Event) -> None:
    release.wait(60)


def dripping(handler: BaseHTTPRequestHandler, release: threading.Event) -> None:
    """A byte now and then: no single wait is long, and there is no end."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    while not release.wait(0.02):
        handler.wfile.write(b"#")


def dripping_headers(handler: BaseHTTPRequestHandler, release: threading.Event) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
    while not release.wait(0.02):
        handler.wfile.write(b"#")


def whole_but_open(handler: BaseHTTPRequestHandler, release: threading.Event) -> None:
    """All that is wanted, and no end: there may be more of it."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + PAGE)
    handler.wfile.flush()
    release.wait(60)


@pytest.mark.parametrize("behave", [silent, dripping, dripping_headers, whole_but_open])
def test_an_answer_that_takes_too_long_is_cut_off(
    web: Web, behave: Callable[[BaseHTTPRequestHandler, threading.Event], None]
) -> None:
    web.behave = lambda handler: behave(handler, web.release)
    assert read(page(web, timeout_seconds=0.3)) == "the answer took too long"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n" + PAGE, "cut off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n19\r\n" + PAGE[:10], "IncompleteRead"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + PAGE[:-2], "cut off: its last line has no end"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP answer"),
        (b"", "closed without an answer"),
        (b"HTTP/1.0 200 OK\r\n" + b"X: 1\r\n" * 1000 + b"\r\n" + PAGE, "no HTTP answer"),
    ],
)
def test_an_answer_that_is_cut_short_or_none_gives_no_value(web: Web, answer: bytes, said: str) -> None:
    web.behave = lambda handler: handler.wfile.write(answer) and None
    assert said in str(read(page(web)))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE) - 1, PAGE[:-1]),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(PAGE) - 1, PAGE[:-1]),
    ],
)
def test_a_page_that_says_where_it_ends_needs_no_last_line_feed(web: Web, answer: bytes) -> None:
    web.behave = lambda handler: handler.wfile.write(answer) and None
    assert read(page(web)) == 12.5


def test_no_proxy_answers_for_the_host(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    web.body = PAGE
    assert read(page(web)) == 12.5


def test_a_page_with_many_other_series_costs_little(web: Web) -> None:
    others = b"".join(b'node_cpu_seconds_total{cpu="%d",mode="idle"} 1.5\n' % cpu for cpu in range(20_000))
    web.body = others + PAGE
    source = page(web)
    assert read(source) == 12.5
    before, others_before = time.thread_time(), own_cost.child_seconds()
    assert read(source) == 12.5
    # To parse it all takes more than a second here; the server's own thread is not counted.
    assert time.thread_time() - before + own_cost.child_seconds() - others_before < 0.2
    assert own_cost.child_seconds() > others_before  # what the process that understands it has used is ours


def test_a_value_is_as_old_as_its_page_however_long_that_takes_to_understand(web: Web) -> None:
    web.body = b"".join(b'rps{i="%d"} 1\n' % i for i in range(200_000))
    (place,) = places([page(web, labels={"i": "7"}, timeout_seconds=60.0)], "web-1")
    began = boottime()
    one = read_place(place, FolderRoot(), Cancellation())["rps"]
    ended = boottime()
    assert isinstance(one, SeriesValue)
    understanding = (
        ended - one.asked_boottime - (one.asked_boottime - began)
    )  # after the answer: the asking has a middle
    assert understanding > 0.2


# ------------------------------------------------------------------ commands
def command(script: str, **more: Any) -> MetricSource:  # noqa: ANN401 - as MetricSource takes them
    return MetricSource(metric="depth", argv=(sys.executable, "-c", script), **more)


def test_a_command_prints_its_number() -> None:
    assert read(command("print(' 17.5 ')")) == 17.5
    assert read(command("print('{\"a\": [4]}')", form=SourceForm.JSON, pick="a[0]")) == 4
    assert read(command("print('x{a=\"1\"} 3')", form=SourceForm.PROMETHEUS, pick="x")) == 3


def test_what_a_command_prints_is_whole_where_it_ends_well_and_what_a_file_holds_where_its_last_line_ends(
    tmp_path: Path,
) -> None:
    assert read(command("print('x 12', end='')", form=SourceForm.PROMETHEUS, pick="x")) == 12
    (tmp_path / "x.prom").write_text("x 12")  # whoever writes it may not have finished
    half = MetricSource(metric="x", place="file", at="/x.prom", form=SourceForm.PROMETHEUS, pick="x")
    assert "cut off" in str(read(half, FolderRoot(tmp_path)))


def test_no_shell_reads_a_command(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert "is not a number" in str(read(MetricSource(metric="m", argv=("echo", f"1; touch {mark}", "$(id)"))))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; print(1); sys.exit('the queue is gone')", "exit status 1: the queue is gone"),
        ("import os, signal; print(1, flush=True); os.kill(os.getpid(), 9)", "exit status -9"),
        ("print('one')", "'one' is not a number"),
        ("print()", "'' is not a number"),
        ("print('1\\n2')", "'1\\n2' is not a number"),
        ("print('nan')", "'nan' is not a number"),
        ("print('0x10')", "'0x10' is not a number"),
        ("print('1' * 3_000_000)", "it printed more than 1 MiB"),
        ("import sys; sys.stderr.write('w' * 5_000_000); sys.exit(3)", "exit status 3: www"),
    ],
)
def test_a_command_that_fails_gives_no_value(script: str, said: str) -> None:
    assert said in str(read(command(script)))


def test_a_program_or_user_that_is_not_there_is_said() -> None:
    assert (
        read(MetricSource(metric="m", argv=("no-such-program",)))
        == "there is no program 'no-such-program' on this host"
    )
    assert "there is no user 'no-such-user'" in str(read(command("print(1)", user="no-such-user")))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_command_runs_as_its_user() -> None:
    assert read(MetricSource(metric="m", argv=("id", "-u"), user="nobody")) == 65534


@pytest.mark.parametrize(
    "script",
    [
        "import time; print(1, flush=True); time.sleep({nap})",
        "import subprocess; subprocess.Popen(['sleep', '{nap}']).wait()",
        "import os, time; os.close(1); os.close(2); time.sleep({nap})",
    ],
)
def test_a_command_that_hangs_is_killed_with_all_that_it_started(script: str) -> None:
    nap = new_nap()
    assert read(command(script.format(nap=nap), timeout_seconds=0.5)) == "it had not ended after 0.5 s"
    assert napping(nap) == []


def test_a_command_is_over_when_it_ends_whoever_it_leaves_behind_with_its_output() -> None:
    began, nap = time.monotonic(), new_nap()
    script = f"import subprocess; print(4); subprocess.Popen(['setsid', 'sleep', '{nap}'])"
    assert read(command(script, timeout_seconds=20.0)) == 4
    assert time.monotonic() - began < 10
    assert napping(nap) == []


HANGING_AGENT = """
import sys
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.prometheus_text import SeriesValue
from agents.metric_sources.reading import boottime, places, read_place
from agents.messages import MetricSource
from agents.sysroot import FolderRoot
argv = ("sh", "-c", "setsid sleep $1 & sleep $1", "sh", sys.argv[1])
(place,) = places([MetricSource(metric="m", argv=argv, timeout_seconds=60.0)], "web-1")
read_place(place, FolderRoot(), Cancellation())
"""


@pytest.mark.parametrize(
    ("word", "said"), [("\ud800", "holds a character"), ("a\0", "holds a character"), ("x" * 2**17, "131,072 bytes")]
)
def test_a_word_that_no_program_can_be_given_is_no_value(word: str, said: str) -> None:
    assert said in str(read(MetricSource(metric="m", argv=("echo", word))))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_goes_with_the_agent(wait_until: Callable[..., float], how: signal.Signals) -> None:
    nap = new_nap()
    with subprocess.Popen([sys.executable, "-c", HANGING_AGENT, nap]) as agent:
        wait_until(lambda: len(napping(f"^sleep {nap}$")) == 2, within_seconds=30)
        agent.send_signal(how)
    wait_until(lambda: not napping(nap))


def test_what_a_command_costs_is_counted_as_the_agents_own() -> None:
    own = OwnCost(FolderRoot(), Notes())
    before: dict[str, float] = {}
    own.collect(before)
    assert read(command("import time\nwhile time.process_time() < 0.5: pass\nprint(1)", timeout_seconds=30.0)) == 1
    after: dict[str, float] = {}
    own.collect(after)
    own.close()
    assert after["agent_cpu_seconds"] - before["agent_cpu_seconds"] >= 0.5


# ------------------------------------------------------------------ files
def test_a_file_of_the_host_is_read(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/rps").write_text("31\n")
    source = MetricSource(metric="rps", place="file", at="/var/rps")
    assert read(source, FolderRoot(tmp_path)) == 31
    (tmp_path / "var/rps").unlink()
    assert "ENOENT" in str(read(source, FolderRoot(tmp_path)))


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert (
        read(MetricSource(metric="m", place="file", at="/pipe"), FolderRoot(tmp_path)) == "EINVAL: not a regular file"
    )
    assert read(MetricSource(metric="m", place="file", at="/"), FolderRoot(tmp_path)) == "EISDIR: Is a directory"
    assert read(MetricSource(metric="m", place="file", at="/dev/zero")) == "it is not a plain file"


# ------------------------------------------------------------------ before a run
def test_a_source_that_can_not_be_read_is_a_warning_and_an_error_where_it_is_needed(web: Web) -> None:
    web.body = PAGE
    good = page(web)
    gone = MetricSource(metric="gone", url="http://127.0.0.1:1/m", form=SourceForm.PROMETHEUS, pick="x")
    needed = MetricSource(metric="primary", argv=("false",), needed=True)
    problems = check_sources([good, gone, needed], FolderRoot(), host="web-1")
    assert [(p.severity, p.where) for p in problems] == [
        (Severity.WARNING, "web-1, metrics.sources.gone"),
        (Severity.ERROR, "web-1, metrics.sources.primary"),
    ]
    assert "http://127.0.0.1:1/m: connection refused" in problems[0].what
    assert all(problem.remedy for problem in problems)


def test_before_a_run_an_instant_that_no_period_would_take_is_said(web: Web) -> None:
    now = time.time()
    web.body = b"beyond 4 %d\nold 4 %d\nfuture 4 %d\nfresh 4 %d\nidle 9\n" % (
        now * 1e9,
        (now - 600) * 1e3,
        (now + 600) * 1e3,
        now * 1e3,
    )
    names = ("beyond", "old", "future", "fresh", "idle")
    sources = [MetricSource(metric=name, url=web.url, form=SourceForm.PROMETHEUS, pick=name) for name in names]
    problems = check_sources(sources, FolderRoot(), host="web-1")
    assert [problem.where.rsplit(".", 1)[1] for problem in problems] == ["beyond", "old", "future"]
    for problem, said in zip(problems, ("it looks like nanoseconds", "more than 60 s ago", "to come"), strict=True):
        assert said in problem.what
        assert problem.remedy


def test_sources_are_asked_at_once_before_a_run(web: Web) -> None:
    web.behave = lambda handler: silent(handler, web.release)
    sources = [
        MetricSource(metric=f"m{n}", url=f"{web.url}?{n}", form=SourceForm.PROMETHEUS, pick="x", timeout_seconds=2.0)
        for n in range(8)
    ]
    started = time.monotonic()
    assert len(check_sources(sources, FolderRoot(), host="h")) == 8
    assert time.monotonic() - started < 10  # and not eight times two
