"""The handshake of one connection in single steps, with a peer of the test in place of a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from claudemesh.broker.settings import Limits
from claudemesh.broker.ws.connection import Connection
from tests.support.broker import running_broker
from tests.support.waiting import WAIT_S

ARRIVED = ("127.0.0.1", 7900)


class ScriptedPeer:
    """A peer that sends what it is given, then is silent, and remembers what it gets."""

    def __init__(self, *messages: Mapping[str, Any]) -> None:
        self._messages = list(messages)
        self.got: list[Mapping[str, Any]] = []

    async def receive(self) -> Mapping[str, Any]:
        """Return the next message of the script."""
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Remember a message of the broker's."""
        self.got.append(message)

    @property
    def frames(self) -> list[Mapping[str, Any]]:
        """The frames that it got."""
        return [orjson.loads(one["text"]) for one in self.got if one["type"] == "websocket.send"]

    @property
    def close_codes(self) -> Sequence[int]:
        """The codes of the close frames that it got."""
        return [one["code"] for one in self.got if one["type"] == "websocket.close"]


def text(content: str) -> Mapping[str, Any]:
    """A text message of the peer's."""
    return {"type": "websocket.receive", "text": content}


async def served(peer: ScriptedPeer, **limits: Any) -> list[str]:
    """Serve a connection to its end; return when it was let past the guard."""
    admitted: list[str] = []
    async with running_broker() as broker:
        context: Any = broker.context
        connection = Connection(context, ARRIVED, peer.receive, peer.send, lambda: admitted.append("in"))  # type: ignore[arg-type]
        connection._limits = Limits(**limits)
        async with asyncio.timeout(WAIT_S):
            await connection.run()
        assert context.state.handshakes == 0
        assert len(context.hub) == 0
    return admitted


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (text("x" * 9000), 1009),
        (text("not JSON"), 4000),
        (text('{"type":"send","id":1,"envelope":{}}'), 4000),
        ({"type": "websocket.receive", "bytes": b"x", "text": None}, 4000),
    ],
    ids=["too long", "not JSON", "a send before the hello", "binary"],
)
async def test_a_first_frame_that_is_no_hello_closes_the_connection(
    message: Mapping[str, Any], code: int
) -> None:
    peer = ScriptedPeer(message)
    assert await served(peer) == []
    assert [frame["type"] for frame in peer.frames] == ["challenge"]
    assert peer.close_codes == [code]


async def test_a_peer_that_says_nothing_is_closed_after_the_deadline_of_the_handshake() -> None:
    peer = ScriptedPeer()
    assert await served(peer, handshake_s=0.05) == []
    assert peer.close_codes == [4000]


async def test_a_peer_that_goes_before_its_hello_gets_no_close_frame() -> None:
    peer = ScriptedPeer({"type": "websocket.disconnect", "code": 1006})
    assert await served(peer) == []
    assert peer.close_codes == []


async def test_each_challenge_has_a_nonce_of_its_own() -> None:
    nonces = set()
    for _ in range(2):
        peer = ScriptedPeer(text("not JSON"))
        await served(peer)
        nonces.add(peer.frames[0]["nonce"])
    assert len(nonces) == 2
