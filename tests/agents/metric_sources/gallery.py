"""The pages of tests/cases/pages: a folder each, with the page and what is right to read from it.

`page` is what was said, byte for byte, but for {now_s}, {now_ms}, {now_us}, {now_ns} and {before_s}, which stand for
instants. `case.yaml`: `why`, `source`, `content_type`, `whole` (whether it is known where the page ends), and `reads`:
each a source as a spec writes it, with its `value` (and `at: now`), or `refused` with words of the reason.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from agents.messages import MetricSource
from agents.metric_sources.page import SourcePage
from fleetexp.experiment.sources import SourceSection
from tests.web_server import Web

FOLDER = Path(__file__).parents[2] / "cases/pages"
_SAID = {"value", "at", "refused"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One source and what is right: a value, or words of the reason why there is none."""

    source: MetricSource
    value: float | None
    now: bool
    refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCase:
    """One page."""

    name: str
    why: str
    written: SourcePage
    reads: tuple[Read, ...]

    @property
    def page(self) -> SourcePage:
        """The page as of now."""
        return replace(self.written, body=_dated(self.written.body))


def page_cases() -> list[PageCase]:
    """Return every page."""
    return [_case(folder) for folder in sorted(FOLDER.iterdir())]


def serve(web: Web, page: SourcePage) -> None:
    """Serve a page; where its end is not to be known it ends with the connection."""
    kind = f"Content-Type: {page.content_type}\r\n" if page.content_type else ""
    length = f"Content-Length: {len(page.body)}\r\n" if page.whole else ""
    answer = f"HTTP/1.0 200 OK\r\n{kind}{length}\r\n".encode() + page.body
    web.behave = lambda handler: handler.wfile.write(answer) and None


def _case(folder: Path) -> PageCase:
    said = yaml.safe_load((folder / "case.yaml").read_text())
    assert said.keys() <= {"why", "source", "content_type", "whole", "reads"}, folder.name
    assert said["why"] and said["source"] and said["reads"], folder.name
    page = SourcePage(
        body=(folder / "page").read_bytes(), content_type=said["content_type"], whole=said.get("whole", False)
    )
    reads = tuple(_read(number, one) for number, one in enumerate(said["reads"]))
    return PageCase(name=folder.name, why=said["why"], written=page, reads=reads)


def _read(number: int, said: Mapping[str, Any]) -> Read:
    spec = {key: value for key, value in said.items() if key not in _SAID}
    source = SourceSection.model_validate({"prometheus": "http://127.0.0.1/metrics", **spec})
    assert ("value" in said) is not ("refused" in said)
    return Read(
        source=source.as_asked(f"m{number}", needed=False),
        value=said.get("value"),
        now=said.get("at") == "now",
        refused=said.get("refused", ""),
    )


def _dated(page: bytes) -> bytes:
    now = time.time()
    instants = {"before_s": now - 5, "now_s": now, "now_ms": now * 1e3, "now_us": now * 1e6, "now_ns": now * 1e9}
    for name, instant in instants.items():
        page = page.replace(b"{%s}" % name.encode(), b"%d" % int(instant))
    return page
