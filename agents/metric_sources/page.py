"""What a place said, before anything is understood of it."""

from __future__ import annotations

from dataclasses import dataclass

from agents.metric_sources.unreadable import Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePage:
    """What an address, a command or a file said. `whole`: who said it also said where it ends."""

    body: bytes
    content_type: str = ""
    whole: bool = False


def as_text(body: bytes) -> str:
    """Return a page as text, without a byte-order mark and with line feeds alone; Unreadable where it is no UTF-8."""
    try:
        return body.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        what = f"the page is no UTF-8: {error.reason} at byte {error.start}"
        raise Unreadable(what, "let it be written as UTF-8, and not compressed") from error
