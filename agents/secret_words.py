"""Words that name a secret, and addresses that hold one: nothing of them may be kept or shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

HIDDEN = "***"
# Whole words of a name, as in api_key, apiKey, X-Amz-Signature, REDISCLI_AUTH; and what no other word holds.
_WORDS = frozenset(
    {"apikey", "auth", "authorization", "bearer", "credential", "credentials", "jwt", "key"}
    | {"pass", "pw", "pwd", "sas", "sig", "signature"}
)
_ANYWHERE = re.compile(r"password|passwd|passphrase|secret|token(?![a-z])|accesskey", re.IGNORECASE)
_BREAK = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_ELSEWHERE = frozenset({"file", "path"})  # the last word where the value says only where the secret is
_USERINFO = re.compile(r"\b([a-z][a-z0-9+.-]{0,30}:/+[^\s/?#:@'\"]*:)[^\s/?#'\"]+@", re.IGNORECASE)
_PAIR = re.compile(r"(?<![\w%.-])([\w%.-]{1,200})=[^\s&;'\"]+")


def names_a_secret(name: str) -> bool:
    """Whether a variable, an option or a parameter of that name is likely to hold a secret."""
    name = unquote(name)
    words = [word.lower() for word in _BREAK.split(name) if word]
    return words[-1:] != [] and words[-1] not in _ELSEWHERE and bool(_WORDS & set(words) or _ANYWHERE.search(name))


def holds_a_secret(text: str) -> bool:
    """Whether an address holds USER:PASSWORD@, or a value for a name that names a secret."""
    return masked(text) != text


def command_holds_a_secret(words: Sequence[str]) -> bool:
    """Whether a command holds USER:PASSWORD@, --password=..., or --password and a word after it."""
    for word, after in zip(words, (*words[1:], ""), strict=True):
        name, equals, value = word.partition("=")
        given = value if equals else after if name.startswith("-") and not after.startswith("-") else ""
        if _USERINFO.search(word) or (given and _ANYWHERE.search(name) and names_a_secret(name)):
            return True
    return False


def masked(text: str) -> str:
    """Return a text of somebody else's without the secrets that can be known in it."""
    text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
    return _PAIR.sub(lambda pair: f"{pair[1]}={HIDDEN}" if names_a_secret(pair[1]) else pair[0], text)
