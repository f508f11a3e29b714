"""Logging goes to stderr, as text or JSON."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from fleetexp.logs import LogFormat, of_run, set_up_logging


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("fleetexp", "agents", "analysis"))]
    handlers, levels = root.handlers[:], [logger.level for logger in loggers]
    yield
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_a_record_below_the_level_is_not_written() -> None:
    out = io.StringIO()
    set_up_logging("warning", stream=out)
    logging.getLogger("fleetexp.x").info("quiet")
    logging.getLogger("agents.y").warning("loud %d", 3)
    assert "quiet" not in out.getvalue()
    assert "WARNING agents.y: loud 3" in out.getvalue()


def test_other_libraries_stay_quiet_below_a_warning() -> None:
    out = io.StringIO()
    set_up_logging("debug", stream=out)
    logging.getLogger("fleetexp.x").debug("ours")
    logging.getLogger("somebody").info("theirs")
    assert "ours" in out.getvalue()
    assert "theirs" not in out.getvalue()


def test_json_lines_hold_message_level_and_traceback() -> None:
    out = io.StringIO()
    set_up_logging("info", LogFormat.JSON, stream=out)
    log = logging.getLogger("analysis.z")
    log.info("hello\nworld")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("failed")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("info", "analysis.z", "hello\nworld")
    assert first["at"].endswith("+00:00")
    assert "traceback" not in first
    assert "ValueError: bad" in second["traceback"]


def test_run_host_and_event_are_fields_of_their_own() -> None:
    out = io.StringIO()
    set_up_logging("info", LogFormat.JSON, stream=out)
    log = logging.getLogger("fleetexp.z")
    log.info("before")
    with of_run(7):
        log.info("within", extra={"host": "web-17", "event": "host_lost"})
        thread = threading.Thread(target=log.info, args=("of another thread",))
        thread.start()
        thread.join()
        log.info("of another run", extra={"run_id": 8, "host": ""})
    log.info("after")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    fields = [{name: line[name] for name in ("run_id", "host", "event") if name in line} for line in lines]
    assert fields == [{}, {"run_id": 7, "host": "web-17", "event": "host_lost"}, {"run_id": 7}, {"run_id": 8}, {}]


def test_setting_up_again_replaces_the_handler() -> None:
    first, second = io.StringIO(), io.StringIO()
    set_up_logging("info", stream=first)
    set_up_logging("info", stream=second)
    logging.getLogger("fleetexp").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_the_default_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info")
    logging.getLogger("fleetexp").info("said")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "said" in captured.err
