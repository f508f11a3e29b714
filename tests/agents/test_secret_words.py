"""What is taken for a secret in somebody else's words, and what is not."""

from __future__ import annotations

import pytest

from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.command_output import run_command
from agents.metric_sources.unreadable import Unreadable
from agents.secret_words import masked, names_a_secret
from agents.workloads.printed import quoted
from tests.cpu_time import no_hang


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "api_key",
        "apiKey",
        "X-Amz-Signature",
        "t%6fken",
        "REDISCLI_AUTH",
        "PGPASSWORD",
        "MYSQL_PWD",
        "password2",
    ],
)
def test_a_name_that_names_a_secret(name: str) -> None:
    assert names_a_secret(name)
    assert masked(f"http://h/m?a=1&{name}=Wint3r&b=2") == f"http://h/m?a=1&{name}=***&b=2"


@pytest.mark.parametrize(
    "name",
    [
        "PASSWORD_FILE",
        "keyspace",
        "monkey",
        "TOKENIZERS_PARALLELISM",
        "MAX_TOKENS",
        "author",
        "collect[]",
        "PGPASSFILE",
        "",
    ],
)
def test_a_name_that_names_none(name: str) -> None:
    assert not names_a_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("curl: https://me:Wint3r@h/ is away", "curl: https://me:***@h/ is away"),
        ("redis://:Wint3r@h", "redis://:***@h"),
        ("--password=Wint3r x", "--password=*** x"),
        ("postgresql://fleet@db/x", "postgresql://fleet@db/x"),
        ("http://h:80/a@b?x=1", "http://h:80/a@b?x=1"),
    ],
)
def test_secrets_that_can_be_known_are_hidden(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert quoted(text.encode()) == ascii(shown)


def test_the_last_words_of_a_command_are_shown_without_secrets() -> None:
    with pytest.raises(Unreadable) as caught:
        script = "echo 'no way to https://me:Wint3r@h/?token=Wint3r' >&2; exit 3"
        run_command(["sh", "-c", script], user=None, timeout_seconds=5, cut=Cancellation())
    assert "no way to https://me:***@h/?token=***" in caught.value.what


@pytest.mark.parametrize("text", ["a.", "a:/", "a:/x:", "a=b ", "x", "&a", "a-", ":", "token="])
@no_hang()
def test_a_text_of_any_shape_is_gone_through_in_bounded_time(text: str) -> None:
    masked(text * (65_536 // len(text)))
