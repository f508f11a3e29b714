"""No reader, and no crowd of them, takes the live view's server away from the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from fleetexp.web.limits import MOST_READERS, Connections, Limits, Rate
from fleetexp.web.server import LiveServer
from tests.fleetexp.web.raw import PROTECTING, connect, get, received

Serve = Callable[..., LiveServer]
TOKEN = "sixteen-letters-"  # noqa: S105
ASKED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_reader_has_a_burst_and_then_a_rate_and_others_are_untouched() -> None:
    now = [0.0]
    rate = Rate(Limits(requests_per_second=2.0, burst=3), clock=lambda: now[0])
    assert [rate.allows("a") for _ in range(5)] == [True, True, True, False, False]
    assert rate.allows("b")
    now[0] = 1.0
    assert [rate.allows("a") for _ in range(3)] == [True, True, False]
    now[0] = 1000.0
    assert [rate.allows("a") for _ in range(4)] == [True, True, True, False]


def test_the_readers_remembered_are_bounded_and_the_busy_ones_stay() -> None:
    rate = Rate(Limits(burst=2), clock=lambda: 0.0)
    for number in range(2 * MOST_READERS):
        rate.allows("busy")
        rate.allows(f"stranger {number}")
    assert not rate.allows("busy")


def test_one_address_has_a_share_of_the_connections_and_a_proxy_all() -> None:
    connections = Connections(Limits(connections=3, connections_of_one=2))
    assert [connections.enter("a", shared=False) for _ in range(3)] == [True, True, False]
    assert [connections.enter("b", shared=False) for _ in range(2)] == [True, False]
    for address in ("a", "a", "b"):
        connections.leave(address)
    assert [connections.enter("proxy", shared=True) for _ in range(4)] == [True, True, True, False]


def test_who_asks_too_often_is_told_to_wait(live_store: str, serving: Serve) -> None:
    address = serving(live_store, limits=Limits(requests_per_second=0.001, burst=2)).address
    assert [get(address).status for _ in range(2)] == [200, 200]
    answer = get(address)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "1"
    assert set(PROTECTING) <= set(answer.headers)


def test_behind_a_proxy_readers_are_counted_each_for_himself(live_store: str, serving: Serve) -> None:
    limits = Limits(requests_per_second=0.001, burst=1)
    for proxies, second in ((("127.0.0.1",), 401), ((), 429)):
        address = serving(live_store, token=TOKEN, proxies=proxies, limits=limits).address
        forged = "X-Forwarded-For: 203.0.113.9, 192.0.2.1"
        assert get(address, "/", "localhost", forged).status == 401
        assert get(address, "/", "localhost", "X-Forwarded-For: 203.0.113.9, 192.0.2.2").status == second
        assert get(address, "/", "localhost", "X-Forwarded-For: 203.0.113.8, 192.0.2.1").status == 429


def test_a_request_that_dawdles_is_ended_in_its_time(live_store: str, serving: Serve) -> None:
    address = serving(live_store, limits=Limits(seconds=0.4)).address
    begun = time.monotonic()
    with connect(address) as connection, contextlib.suppress(ConnectionError):
        for byte in ASKED[:-2]:  # always a byte more before any single wait is over
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
            if time.monotonic() - begun > 0.6:
                break
        assert received(connection).status == 408
    assert time.monotonic() - begun < 10


def test_idle_connections_leave_the_pages_to_others(live_store: str, serving: Serve) -> None:
    limits = Limits(connections=4, connections_of_one=4, seconds=1.5)
    address = serving(live_store, limits=limits).address
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect(address))
        answer = received(stack.enter_context(connect(address)))
        assert answer.status == 503
        assert set(PROTECTING) <= set(answer.headers)
        until = time.monotonic() + 60
        while (status := get(address).status) == 503 and time.monotonic() < until:
            time.sleep(0.05)
        assert status == 200


def test_only_so_many_pages_are_made_at_once(live_store: str, serving: Serve) -> None:
    server = serving(live_store, limits=Limits(pages_at_once=1, seconds=1.0))
    with server.making:
        answer = get(server.address)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "5"
    assert get(server.address).status == 200


@pytest.mark.parametrize("one", ["2001:db8::1", "::ffff:192.0.2.1"])
def test_an_ipv6_reader_is_counted_by_network(live_store: str, serving: Serve, one: str) -> None:
    limits = Limits(requests_per_second=0.001, burst=1)
    address = serving(live_store, token=TOKEN, proxies=("127.0.0.1",), limits=limits).address
    other = {"2001:db8::1": "2001:db8::ffff:1", "::ffff:192.0.2.1": "192.0.2.1"}[one]
    assert get(address, "/", "localhost", f"X-Forwarded-For: {one}").status == 401
    assert get(address, "/", "localhost", f"X-Forwarded-For: {other}").status == 429
    assert get(address, "/", "localhost", "X-Forwarded-For: 2001:db8:0:1::1").status == 401
