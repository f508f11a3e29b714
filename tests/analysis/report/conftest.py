"""The sample report, and ways to read what was rendered from it."""

from __future__ import annotations

import importlib.util
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from analysis.report import ReportInput, render_html

VOID = {"meta", "wbr", "br", "hr", "img", "link", "input"}


class Reading(HTMLParser):
    """A document as a parser sees it: start tags with attributes, text outside style, and whether tags nest."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.misnested.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags if tag != "wbr"]


@pytest.fixture(scope="session")
def reading() -> type[Reading]:
    return Reading


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """The module sample.py, whose parts tests put together differently."""
    spec = importlib.util.spec_from_file_location("report_sample", Path(__file__).with_name("sample.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def content(samples: ModuleType) -> ReportInput:
    found = samples.sample()
    assert isinstance(found, ReportInput)
    return found


@pytest.fixture(scope="session")
def document(content: ReportInput) -> str:
    """The page of that sample: it takes a while to draw, and most tests only look at it."""
    return render_html(content)
