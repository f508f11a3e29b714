"""Foreign text made harmless: what can't be seen is spelled out, what Markdown would read as markup is escaped."""

from __future__ import annotations

import re
import unicodedata

# Control, format (bidi overrides, zero-width), surrogate, private use, unassigned; line and paragraph separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_KEPT = {"\n", "\t"}

# A colon only where it makes a link, an ampersand only where it could begin an entity, '_' not within a word.
_MARKUP = r"([\\`*{}\[\]<>#|~$]|:(?=//)|&(?=[#0-9A-Za-z])|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))"
# What GitHub still makes a link once escapes and entities are read: addresses, mentions, issues; but not in code.
_LINKED = r"(?<![^\s`|\\])[^\s`|\\]*(?:@|www\.|#[0-9]|\bgh-[0-9])[^\s`|\\]*"
_FOREIGN = re.compile(f"(?P<linked>{_LINKED})|{_MARKUP}", re.IGNORECASE)
_LINE_START = re.compile(r"\A(?:([-+=])(?![0-9A-Za-z.])|(\d+)([.)])(?=\s|\Z))")


def visible(text: str) -> str:
    """Spell out each character that hides or turns the text around it: ⟨U+202E⟩. Newlines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_seen(character) for character in text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Make `text` visible on one line: a run of blanks becomes one space."""
    return " ".join(visible(text).split())


def markdown_text(text: str) -> str:
    """Escape `text` for one line or one table cell of CommonMark or GitHub's dialect; what that would link is code."""
    return _LINE_START.sub(_escape_start, _FOREIGN.sub(_harmless, one_line(text)))


def markdown_code(text: str) -> str:
    """Set `text` as a code span, in a table too, whatever backticks and pipes it holds."""
    shown = one_line(text)
    if not shown:
        return ""
    if "|" in shown or "\\" in shown:  # a table would cut a code span at the pipe; no escape works in every dialect
        return markdown_text(shown)
    fence = "`" * (_longest_run(shown) + 1)
    pad = " " if shown[0] == "`" or shown[-1] == "`" else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def markdown_block(text: str, language: str = "") -> str:
    """Set `text` as a fenced block with a fence longer than any in it."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{visible(text).rstrip()}\n{fence}"


def _seen(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _UNSEEN:
        return character
    return f"⟨U+{ord(character):04X}⟩"


def _harmless(found: re.Match[str]) -> str:
    return f"`{found[0]}`" if found["linked"] else f"\\{found[0]}"


def _escape_start(found: re.Match[str]) -> str:
    sign, digits, end = found.groups()
    return f"\\{sign}" if sign else f"{digits}\\{end}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
