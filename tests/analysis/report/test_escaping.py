"""Foreign text arrives as text, whatever it holds."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser

import cmarkgfm
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from analysis.report.escaping import markdown_block, markdown_code, markdown_text, one_line, visible

MARKUP = st.text(alphabet=st.sampled_from("`|\\*_~<>[]()#!&;-+=1.: \n\ta$@{}^\"'/"), min_size=1, max_size=30)
LINKS = st.lists(
    st.sampled_from(
        [
            "www.",
            "@",
            "http://",
            "mailto:",
            "a.bc",
            "#1",
            "gh-2",
            "x",
            " ",
            "(",
            "_",
            "*",
            "~",
            "|",
            "`",
            "\\",
            "<",
            ">",
            "![",
            "](",
            "[",
            ")",
            "&",
            "#64;",
            "xmpp:",
            "/",
            "-",
            ".",
            ":",
            ";",
            "ftp://",
            "\n",
        ]
    ),
    min_size=1,
    max_size=12,
).map("".join)
ANYTHING = st.text(alphabet=st.characters(codec=None), min_size=1, max_size=40) | MARKUP
RENDER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Text(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("host-1", "host-1"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("\x00", "⟨U+0000⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
        ("one\r\ntwo\tthree\rfour", "one\ntwo\tthree⟨U+000D⟩four"),
        ("\u2028", "⟨U+2028⟩"),
        ("café 試験 עברית", "café 試験 עברית"),
    ],
)
def test_what_hides_is_spelled_out_and_letters_stay(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(ANYTHING)
def test_visible_text_holds_nothing_that_hides(text: str) -> None:
    shown = visible(text)
    assert {unicodedata.category(letter) for letter in shown if letter not in "\n\t"}.isdisjoint(
        {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    )
    shown.encode()


@given(ANYTHING)
@example("-- -")
@example("a\\|b")
@example("1. x")
@example("&#124; &amp;")
@example("[x](javascript:alert(1)) ![y](http://z) <b>")
@example("a_b_ _c_ __d__")
@example("~~x~~ **y** `z`")
def test_markdown_text_is_read_back_as_it_was(text: str) -> None:
    for before, tags in (("", ["p"]), ("- ", ["ul", "li"]), ("# ", ["h1"])):
        found = Text(RENDER.render(f"{before}{markdown_text(text)}\n"))
        if one_line(text):
            assert [tag for tag in found.tags if tag != "code"] == tags
        assert found.text.strip() == one_line(text)


# GitHub's own renderer links and shows pictures before, its site makes mentions and issues of what is no code after.
MENTION = re.compile(r"@\w|#\d|\bgh-\d|www\.\w", re.IGNORECASE)


class Prose(Text):
    """The text outside code, and every tag."""

    def handle_data(self, data: str) -> None:
        super().handle_data("" if self.tags[-1:] == ["code"] and not self.ended else data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.ended = False

    def handle_endtag(self, tag: str) -> None:
        self.ended = True


@settings(max_examples=300)
@given(LINKS | ANYTHING, st.sampled_from([markdown_text, markdown_code]))
@example("www.evil.example", markdown_text)
@example("mail ada@evil.example, @ada", markdown_text)
@example("fixes #12, GH-3, o/r#4", markdown_text)
@example("http://evil.example xmpp:a@b.c/d mailto:a@b.c", markdown_text)
@example("![x](https://evil.example/p.png)<img src=x>", markdown_text)
@example("a|www.evil.example", markdown_code)
def test_github_makes_no_link_no_picture_and_no_mention_of_it(text: str, escape: object) -> None:
    assert callable(escape)
    for before, after in (("", ""), ("- ", ""), ("| a | b |\n|---|---|\n| ", " | x |"), ("**", "**")):
        shown = escape(text)
        if not shown:
            continue
        found = Prose(cmarkgfm.github_flavored_markdown_to_html(f"{before}{shown}{after}\n"))
        assert {"a", "img", "del", "em", "script"}.isdisjoint(found.tags)
        assert not MENTION.search(found.text), found.text


@given(ANYTHING, st.sampled_from([markdown_text, markdown_code]))
@example("a|b\\|c\\\\|d", markdown_text)
@example("`a``b|", markdown_code)
@example("`", markdown_code)
@example("a\nb", markdown_code)
def test_table_cell_stays_one_cell(text: str, escape: object) -> None:
    assert callable(escape)
    found = Text(RENDER.render(f"| a | b |\n|---|---|\n| {escape(text)} | x |\n"))
    assert [tag for tag in found.tags if tag != "code"] == [
        "table",
        "thead",
        "tr",
        "th",
        "th",
        "tbody",
        "tr",
        "td",
        "td",
    ]
    assert found.text.split() == ["a", "b", *one_line(text).split(), "x"]


@given(ANYTHING)
@example("````\n```")
def test_listing_is_not_left_by_what_it_lists(text: str) -> None:
    found = Text(RENDER.render(markdown_block(text, "yaml") + "\n\nafter\n"))
    assert found.tags == ["pre", "code", "p"]
    assert found.text.split("\n") == [*visible(text).rstrip().split("\n"), "", "after", ""] or not visible(text).strip()


def test_code_of_nothing_is_nothing() -> None:
    assert markdown_code(" \n") == ""
