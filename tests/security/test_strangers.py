"""Actions that a stranger or a member can repeat at will cost a broker neither a connection nor its log."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator

import pytest

from claudemesh.broker.settings import Limits
from tests.security.test_holding import member
from tests.support.broker import running_broker
from tests.support.flood import UPGRADE
from tests.support.processes import Mesh, mesh
from tests.support.waiting import WAIT_S
from tests.support.wspeer import dial, http_request

# Lines of such a log without repetitions, and the lines that each further second of the test may add.
FEW_LINES = 100
TIMES = 400


@pytest.fixture(scope="module")
def one() -> Generator[Mesh]:
    with mesh("alice", start=False) as made:
        yield made


def lines(running: Mesh, event: str) -> int:
    """Return the number of lines of the broker's log that name an event."""
    return sum(event in line for line in running.broker.log.read_text().splitlines())


@pytest.mark.parametrize(
    ("header", "behind"),
    [
        (b"Content-Length: 4\r\n", b"body"),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"X: y\r\n" * 200, b""),
        (b"X: " + b"y" * 12_000 + b"\r\n", b""),
    ],
    ids=["length", "chunks", "lines", "long line"],
)
def test_an_upgrade_that_cannot_be_read_is_answered_and_ends(one: Mesh, header: bytes, behind: bytes) -> None:
    """The library that reads the head of a WebSocket takes less than the one that reads the request."""
    request = UPGRADE.removesuffix(b"\r\n") + header + b"\r\n" + behind
    with socket.create_connection(("127.0.0.1", one.broker.port), timeout=WAIT_S) as link:
        link.sendall(request)
        answer = b""
        while piece := link.recv(65_536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]


async def test_a_websocket_that_does_not_sign_in_is_ended_below_the_server() -> None:
    """The guard's own deadline does not need the handshake to come to its end."""
    async with running_broker(limits=Limits(handshake_s=3600, sign_in_s=2)) as broker:
        async with dial(broker.url) as link:
            await link.next("challenge")
            assert (await link.closed())[0] == 1006
        _, metrics = await http_request(broker.url, "GET", "/metrics")
        assert 'cm_broker_guard_limits_total{limit="sign_in_deadline"} 1.0' in metrics


async def test_refused_upgrades_do_not_fill_the_log(one: Mesh) -> None:
    """A stranger can ask for as many as it likes."""
    before = len(one.broker.log.read_text().splitlines())
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    upgrade["sec-websocket-key"] = "AAAAAAAAAAAAAAAAAAAAAA=="

    async def refused() -> None:
        for _ in range(TIMES // 80):
            status, _ = await http_request(one.broker.url, "GET", "/v1/ws", headers=upgrade)
            assert status == 400

    await asyncio.gather(*(refused() for _ in range(40)))
    assert len(one.broker.log.read_text().splitlines()) - before < FEW_LINES


async def test_frames_and_connections_of_a_member_do_not_fill_the_log(one: Mesh) -> None:
    """Errors that it reports, connections that it opens."""
    alice = member(one, "alice")
    async with alice.connect() as link:
        for _ in range(TIMES):
            await link.say({"type": "error", "code": "oops", "message": "again"})
        await link.settle()
    assert 0 < lines(one, "peer_reported_error") < FEW_LINES
    for _ in range(TIMES // 2):
        async with alice.connect():
            pass
    assert 0 < lines(one, "features_negotiated") < FEW_LINES
