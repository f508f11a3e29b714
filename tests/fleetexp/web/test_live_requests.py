"""Whatever is sent, the answer is orderly: a status, every protecting header, one clean line in the log."""

from __future__ import annotations

import logging
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetexp.web.access import Access
from fleetexp.web.request import RequestRefused, parse_head
from tests.fleetexp.web.raw import PROTECTING, ask, connect, received

MALFORMED = {
    b"GET / HTTP/1.1\r\nHost: [\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a[b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: [::1].evil.example\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: [::1%evil.example]\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: [:::::]\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: localhost:99x\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost:\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\n\r\n": 400,
    b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"GET //evil.example HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /\x1b[2J\x07 HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"GET /%1b%5b2J%0d%0a HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /runs/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /runs/1/hosts/%ff%00' HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /runs/9999999999999999999999 HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET / \r\nHost: localhost\r\n\r\n": 400,
    b"GET /\r\n\r\n": 400,
    b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"GET / HTTP/1.1 x\r\nHost: localhost\r\n\r\n": 400,
    b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n": 505,
    b"GET / HTTP/9\r\nHost: localhost\r\n\r\n": 400,
    b"G\x00T / HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\n\n": 400,
    b"\r\n\r\n": 400,
    b"GET / HTTP/1.1\nHost: localhost\n\n": 400,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nName : x\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rSet-Cookie: y\r\n\r\n": 400,
    b"GET /?" + b"a=1&" * 1000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n": 200,
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n": 414,
    b"a" * 9000: 414,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 17000 + b"\r\n\r\n": 431,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 5000: 431,
    b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n": 200,
    b'GET / HTTP/1.1\r\nHost: localhost\r\nCookie: a[b="; ;;=\xff\r\nAuthorization: \xff\r\n\r\n': 200,
}


@pytest.mark.parametrize("sent", MALFORMED, ids=lambda sent: repr(sent[:60]))
def test_the_answer_to_a_malformed_request_is_orderly(
    served: tuple[str, str], caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    with caplog.at_level(logging.INFO, logger="fleetexp.web"):
        answer = ask(served[1], sent)
    assert answer.status == MALFORMED[sent]
    assert set(PROTECTING) <= set(answer.headers)
    assert "set-cookie" not in answer.headers
    (record,) = (record for record in caplog.records if record.name.startswith("fleetexp.web"))
    assert record.getMessage().isprintable()
    assert record.exc_info is None


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "x"]
)
@pytest.mark.parametrize("target", ["/", "*", "localhost:1", "http://["])
def test_every_other_verb_is_not_allowed_whatever_its_target(served: tuple[str, str], method: str, target: str) -> None:
    answer = ask(served[1], f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert set(PROTECTING) <= set(answer.headers)


def test_the_body_of_a_refused_request_is_no_second_request(served: tuple[str, str]) -> None:
    hidden = b"GET /runs/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for length in (b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b""):
        answer = ask(served[1], b"POST / HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n" + hidden)
        assert answer.status == 405
        assert "HTTP/1.1" not in answer.body
        assert answer.headers["connection"] == "close"


def test_head_has_the_headers_of_get_and_no_page(served: tuple[str, str]) -> None:
    answer = ask(served[1], b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.status == 200
    assert int(answer.headers["content-length"]) > 1000
    assert answer.body == ""


def test_a_request_that_is_cut_short_or_comes_in_pieces(served: tuple[str, str]) -> None:
    with connect(served[1]) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHo")
        connection.shutdown(1)
        assert received(connection).status == 400
    with connect(served[1]) as connection:
        for piece in (b"GET / HT", b"TP/1.1\r\nHost: local", b"host\r\n\r", b"\n"):
            connection.sendall(piece)
        assert received(connection).status == 200


def test_who_leaves_without_asking_or_before_the_answer_leaves_no_traceback(
    served: tuple[str, str], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="fleetexp.web"):
        connect(served[1]).close()
        for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            connection = connect(served[1])
            connection.sendall(sent)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
            connection.close()
        assert ask(served[1], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 200
    assert all(record.exc_info is None for record in caplog.records)
    assert "Traceback" not in capfd.readouterr().err


@given(
    st.one_of(
        st.binary(max_size=300),
        st.tuples(
            st.binary(max_size=40), st.sampled_from([b"Host", b"Cookie", b"X-Forwarded-For"]), st.binary(max_size=60)
        ).map(lambda parts: b"GET /" + parts[0] + b" HTTP/1.1\r\nHost: localhost\r\n" + parts[1] + b": " + parts[2]),
        st.text("/?%abtoken=&[]:;#", max_size=60).map(lambda text: f"GET /{text} HTTP/1.1\r\nHost: a".encode()),
    )
)
def test_any_head_is_either_refused_or_understood(head: bytes) -> None:
    access = Access("127.0.0.1", host="127.0.0.1", token="sixteen-letters-", proxies=("127.0.0.1",))  # noqa: S106
    try:
        request = parse_head(head + b"\r\n\r\n")
    except RequestRefused as refused:
        assert refused.status in {400, 505}
        return
    assert not access.knows_token(request)
    assert access.knows_host(request) is (request.host == "localhost")
    assert access.loggable(request).isprintable()
    assert access.reader(request, "127.0.0.1")
    assert "\n" not in access.cookie(request, "127.0.0.1")
