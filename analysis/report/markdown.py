"""Renders a report as Markdown that CommonMark and GitHub show alike: no picture, all foreign text escaped."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment
from markupsafe import Markup

from analysis.report.comparison import comparison_page
from analysis.report.content import ReportInput
from analysis.report.escaping import markdown_block, markdown_code, markdown_text
from analysis.report.page import Cell, Listing, ReportPage
from analysis.report.sections import page
from analysis.report.templating import strict_environment


def render_markdown(content: ReportInput) -> str:
    """Render the report's words, tables and listings as Markdown; the charts are in the HTML only."""
    return page_as_markdown(page(content))


def render_comparison_markdown(first: ReportInput, second: ReportInput) -> str:
    """Render two runs beside each other as Markdown."""
    return page_as_markdown(comparison_page(first, second))


def page_as_markdown(shown: ReportPage) -> str:
    """Fill the template with a page."""
    return _environment().get_template("report.md.j2").render(page=shown)


@cache
def _environment() -> Environment:
    environment = strict_environment(_escaped)
    environment.filters.update(cell=_cell, listing=_listing)
    return environment


def _escaped(value: object) -> Markup:
    """Escape any text that reaches the page as Markdown, which leaves nothing for HTML to read."""
    return value if isinstance(value, Markup) else Markup(markdown_text(str(value)))  # noqa: S704 - escaped


def _cell(cell: Cell) -> Markup:
    text = markdown_code(cell.text) if cell.code else markdown_text(cell.text)
    note = f" {markdown_text(cell.note)}" if cell.note else ""
    return Markup(f"**{text}**{note}" if cell.tone in {"good", "bad"} else f"{text}{note}")  # noqa: S704 - escaped


def _listing(listing: Listing) -> Markup:
    return Markup(markdown_block(listing.text, listing.language))  # noqa: S704 - fenced
