"""The pages are for those who know the token and ask by a name of the server; nothing else is said to others."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from fleetexp.errors import RunError
from fleetexp.web.access import checked_token, new_token, token_of_file
from fleetexp.web.server import LiveServer
from tests.fleetexp.web.raw import PROTECTING, ask, get, needs_ipv6

Serve = Callable[..., LiveServer]
TOKEN = 'open-sesame;"%41\\&,=+'  # noqa: S105 - all that has a meaning in cookies, queries and headers


@pytest.fixture
def guarded(live_store: str, serving: Serve) -> str:
    return serving(live_store, token=TOKEN).address


# ---------------------------------------------------------------------------- the token
def test_only_those_who_know_the_token_read(guarded: str) -> None:
    assert get(guarded).status == 401
    assert get(guarded, "/?token=wrong").status == 401
    assert get(guarded, "/", "localhost", "Authorization: Bearer wrong").status == 401
    assert get(guarded, "/", "localhost", f"Authorization: {TOKEN}").status == 401
    assert get(guarded, "/", "localhost", f"Authorization: Bearer {TOKEN}").status == 200
    assert get(guarded, f"/?token={quote(TOKEN, safe='')}").status == 200


def test_a_cookie_is_given_for_the_right_token_only_and_does_not_hold_it(guarded: str) -> None:
    for answer in (
        get(guarded),
        get(guarded, "/?token=wrong"),
        get(guarded, "/", "localhost", f"Authorization: Bearer {TOKEN}"),
        get(guarded, f"/?token={quote(TOKEN, safe='')}", "evil.example"),
        ask(guarded, f"POST /?token={quote(TOKEN, safe='')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()),
    ):
        assert "set-cookie" not in answer.headers
    answer = get(guarded, f"/?token={quote(TOKEN, safe='')}")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert attributes == ["HttpOnly", "SameSite=Strict", "Path=/"]
    assert TOKEN not in answer.headers["set-cookie"]
    assert TOKEN not in answer.body
    assert get(guarded, "/", "localhost", f"Cookie: a[b]=1; {cookie}").status == 200
    assert get(guarded, "/", "localhost", f"Cookie: {cookie}x").status == 401


def test_a_server_without_a_token_gives_no_cookie(live_store: str, serving: Serve) -> None:
    address = serving(live_store).address
    for target in ("/", "/?token=", "/?token=anything"):
        assert "set-cookie" not in get(address, target).headers


@pytest.mark.parametrize("key", ["token", "%74oken", "%74%6F%6b%65%6E", "follow=1&token", "x=1&%74oken"])
def test_the_token_is_in_no_log_and_no_header(guarded: str, caplog: pytest.LogCaptureFixture, key: str) -> None:
    with caplog.at_level(logging.DEBUG, logger="fleetexp.web"):
        answers = [
            get(guarded, f"/?{key}={quote(TOKEN, safe='')}"),
            get(guarded, f"/runs/1?{key}={quote(TOKEN)}"),
            get(guarded, f"/{key}={quote(TOKEN, safe='')}"),
            get(guarded, f"/%3F{key}={quote(quote(TOKEN, safe=''), safe='')}"),
            get(guarded, f"/?{key}={quote(TOKEN, safe='')}", "evil.example"),
            get(guarded, f"/?{key}={quote(TOKEN, safe='')}", "["),
        ]
    assert [answer.status for answer in answers] == [200, 200, 401, 401, 421, 400]
    assert caplog.messages
    for text in (*caplog.messages, *(str(answer.headers) for answer in answers)):
        assert TOKEN not in text
        assert quote(TOKEN, safe="") not in text
        assert "location" not in text.lower()


def test_off_loopback_a_token_is_needed(live_store: str) -> None:
    for where in ({"host": "0.0.0.0"}, {"host": "::"}, {"names": ("fleet.example",)}, {"proxies": ("127.0.0.1",)}):  # noqa: S104
        with pytest.raises(RunError, match="other machines could read"):
            LiveServer(live_store, port=0, **where)


@pytest.mark.parametrize(
    "token",
    [
        "a",
        " ",
        "short-of-sixteen"[:15],
        "with a blank inside",
        "line-end-after-it\n",
        "a\r\nSet-Cookie: x=1234567",
        "nul\0" * 8,
        "ümlaute-ümlaute-ü",
        "x" * 513,
    ],
)
def test_a_token_that_keeps_nobody_out_is_refused_and_not_repeated(live_store: str, token: str) -> None:
    with pytest.raises(RunError, match="16 to 512 printable ASCII") as refused:
        LiveServer(live_store, port=0, token=token)
    assert len(token) < 3 or token not in str(refused.value)


def test_made_tokens_are_long_and_differ() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(checked_token(token, "made")) >= 43 for token in made)


def test_a_token_is_read_from_a_file_that_is_not_everyones(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for end in ("", "\n", "\r\n"):
        file.write_text(f"sixteen-letters-{end}")
        file.chmod(0o640)
        assert token_of_file(str(file)) == "sixteen-letters-"
    file.chmod(0o644)
    with pytest.raises(RunError, match="every user of this machine"):
        token_of_file(str(file))


def test_what_is_no_file_with_a_token_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "two").write_text("first-line-first-line\nsecond\n")
    (tmp_path / "two").chmod(0o600)
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "two", "/dev/zero", tmp_path / "none", "a\0b", ""):
        with pytest.raises(RunError):
            token_of_file(str(path))


# ---------------------------------------------------------------------------- the name
@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8450",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[2001:db8::1]",
        "127.1",
        "[::ffff:10.0.0.1]",
    ],
)
def test_who_asks_by_another_name_is_sent_away_without_a_cookie(
    live_store: str, serving: Serve, token: str, host: str
) -> None:
    answer = get(serving(live_store, token=token).address, "/", host)
    assert answer.status == 421
    assert "set-cookie" not in answer.headers
    assert set(PROTECTING) <= set(answer.headers)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:1", "127.0.0.1:8450", "127.9.9.9", "[::1]:8450", "[::1]", "localhost:"]
)
def test_every_name_of_loopback_is_known(live_store: str, serving: Serve, host: str) -> None:
    assert get(serving(live_store).address, "/", host).status == 200


def test_names_that_were_given_are_known_and_others_are_not(live_store: str, serving: Serve) -> None:
    address = serving(live_store, token=TOKEN, names=("Fleet.example",)).address
    assert get(address, "/", "fleet.EXAMPLE:443").status == 401
    assert get(address, "/", "evil.example").status == 421
    with pytest.raises(RunError, match="no such name"):
        LiveServer(live_store, port=0, token=TOKEN, names=("http://fleet.example",))


def test_beyond_loopback_addresses_are_known_and_foreign_names_are_not(live_store: str, serving: Serve) -> None:
    address = serving(live_store, host="0.0.0.0", token=TOKEN).address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    for host, status in (("10.1.2.3:8450", 401), ("[2001:db8::1]", 401), ("localhost", 401), ("evil.example", 421)):
        assert get(address, "/", host).status == status


@needs_ipv6
def test_ipv6_loopback_is_served_and_needs_no_token(live_store: str, serving: Serve) -> None:
    for host in ("::1", "[::1]"):
        address = serving(live_store, host=host).address
        assert address.startswith("http://[::1]:")
        assert get(address, "/", "[::1]").status == 200
        assert get(address, "/", "evil.example").status == 421


@pytest.mark.parametrize("host", ["", "no such host", "[::1", "192.0.2.1", "x" * 300, "a\0b"])
def test_an_address_that_is_not_this_hosts_is_one_clear_line(live_store: str, host: str) -> None:
    with pytest.raises(RunError, match=r"^can't listen: "):
        LiveServer(live_store, host=host, port=0, token=TOKEN)


# ---------------------------------------------------------------------------- behind a proxy
def test_the_cookie_is_secure_where_the_known_proxy_says_tls(live_store: str, serving: Serve) -> None:
    target = f"/?token={quote(TOKEN, safe='')}"
    known = serving(live_store, token=TOKEN, proxies=("127.0.0.1",)).address
    assert get(known, target, "localhost", "X-Forwarded-Proto: https").headers["set-cookie"].endswith("; Secure")
    assert "Secure" not in get(known, target, "localhost", "X-Forwarded-Proto: https, http").headers["set-cookie"]
    assert "Secure" not in get(known, target).headers["set-cookie"]
    for proxies in ((), ("192.0.2.1",)):
        stranger = serving(live_store, token=TOKEN, proxies=proxies).address
        assert "Secure" not in get(stranger, target, "localhost", "X-Forwarded-Proto: https").headers["set-cookie"]
    with pytest.raises(RunError, match="not an address"):
        LiveServer(live_store, port=0, token=TOKEN, proxies=("proxy.example",))
