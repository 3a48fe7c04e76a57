"""The link keeps trying after every kind of failure."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

import orjson
import pytest
from websockets.asyncio.server import ServerConnection, serve

from claudemesh.daemon.address import BrokerAddress
from claudemesh.daemon.calls import WrongReplies
from claudemesh.daemon.link.handshake import Handshake
from claudemesh.daemon.link.link import Link, LinkHandlers
from claudemesh.home.membership import Membership
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.features import broker_offer
from claudemesh.protocol.frames import (
    Challenge,
    Deliver,
    ErrorFrame,
    FeatureResponse,
    Frame,
    HelloAck,
    UnknownFrame,
    decode_frame,
    encode_frame,
)
from claudemesh.protocol.session import ANYTIME, TRANSITIONS, State
from claudemesh.protocol.wire import SUBPROTOCOL
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.clock import SystemClock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.exits import PERMISSION, ExitWith
from tests.support.daemon import keyring_of
from tests.support.envelopes import MEMBER_ID, MESH_ID, ULID_TEXT
from tests.support.frames import FRAMES
from tests.support.streams import listening
from tests.support.values import replace
from tests.support.waiting import WAIT_S
from tests.support.wspeer import make_identity

CHALLENGE = Challenge(b"\2" * 32, 1_700_000_000_000, "1.2.3", (1,))
HELLO_ACK = HelloAck(MEMBER_ID, ULID_TEXT, {"slug": "prod"}, 1_700_000_000_000, ULID_TEXT)
OFFER = FeatureResponse(
    broker_offer(
        mode="permanent",
        retention_days=None,
        inline_bytes=4096,
        blob_bytes=4096,
        policy="prefer_newest",
        key_epochs=3,
    ),
    (),
)
DELIVER = next(frame for frame in FRAMES if isinstance(frame, Deliver))
NOT_FOR_DAEMONS = [
    frame for frame in FRAMES if type(frame) not in {*TRANSITIONS["broker"][State.OPEN], *ANYTIME}
]


def link_to(port: int, mesh_id: str, backoff: Backoff) -> Link:
    """A link of alice's to a broker on this port."""
    one = Membership(mesh_id, "demo", f"ws://127.0.0.1:{port}", "id", "alice", "member", None)
    address = BrokerAddress(one.broker_url)
    keys = keyring_of(make_identity())
    handshake = Handshake(one, address, keys, instance_id="one", host_fingerprint="")
    return Link(address, handshake, backoff, WrongReplies(Conditions(SystemClock()), _ignore))


def _ignore(*_: Any) -> None:
    """A handler that nothing reaches."""


async def _end() -> ExitWith:
    """A member that is never taken back."""
    return ExitWith(PERMISSION, "not_a_member", "It is not a member.")


HANDLERS = LinkHandlers(
    link_up=_ignore,
    link_down=_ignore,
    on_result=_ignore,
    on_deliver=_ignore,
    on_event=_ignore,
    readmit=_end,
    rotated_out=lambda: ExitWith(PERMISSION, "key_rotated_out", "Its keys are old."),
)


async def test_an_unforeseen_error_is_one_more_failed_attempt() -> None:
    """A transport that closes at the wrong moment raises what no library promises."""
    attempts: asyncio.Queue[None] = asyncio.Queue(maxsize=100)

    def connect(*_: Any, **__: Any) -> Any:
        attempts.put_nowait(None)
        raise RuntimeError("unable to perform operation on a closed transport")

    one = Membership("m", "demo", "ws://127.0.0.1:1", "id", "alice", "member", None)
    link = Link(
        BrokerAddress(one.broker_url),
        Handshake(
            one,
            BrokerAddress(one.broker_url),
            keyring_of(make_identity()),
            instance_id="one",
            host_fingerprint="",
        ),
        Backoff(initial_s=0.001, cap_s=0.001),
        WrongReplies(Conditions(SystemClock()), _ignore),
        dial=connect,
    )
    running = asyncio.create_task(link.run(HANDLERS))
    for _ in range(3):
        await asyncio.wait_for(attempts.get(), WAIT_S)
    assert not running.done()
    assert "RuntimeError" in (link.last_error or "")
    running.cancel()


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 101 Switching", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"]
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_link_cut_during_the_upgrade_is_an_ordinary_failure(
    part: bytes, reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """At any byte of the answer, closed or reset: no traceback, and the next attempt follows."""
    attempts: asyncio.Queue[None] = asyncio.Queue(maxsize=100)

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(part)
        await writer.drain()
        if reset:
            link = writer.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        attempts.put_nowait(None)

    async with listening(cut) as port:
        link = link_to(port, "m", Backoff(initial_s=0.001, cap_s=0.001))
        running = asyncio.create_task(link.run(HANDLERS))
        for _ in range(3):
            await asyncio.wait_for(attempts.get(), WAIT_S)
        assert not running.done()
        assert (link.last_error or "").startswith(f"cannot reach ws://127.0.0.1:{port}")
        running.cancel()
        await asyncio.wait([running])
    assert not [record for record in caplog.records if record.exc_info]
    assert "link_error_unlisted" not in caplog.text


class _ScriptedBroker:
    """A broker that completes the handshake, with frames of an unknown type in between, then sends frames."""

    def __init__(self, *frames: Frame) -> None:
        self.frames = frames
        self.refused: list[str] = []
        self.closed: asyncio.Queue[int | None] = asyncio.Queue(maxsize=100)

    async def __call__(self, websocket: ServerConnection) -> None:
        for answer in (CHALLENGE, HELLO_ACK, OFFER):
            await websocket.send(encode_frame(UnknownFrame("from_the_future", "x")))
            await websocket.send(encode_frame(answer))
            for _ in range(2 if answer is not OFFER else 1):
                self._note(decode_frame(await websocket.recv()))
        for frame in self.frames:
            await websocket.send(encode_frame(frame))
        await websocket.wait_closed()
        self.closed.put_nowait(websocket.close_code)

    def _note(self, frame: Frame) -> None:
        if isinstance(frame, ErrorFrame):
            self.refused.append(frame.code)


async def _close_code_after(broker: _ScriptedBroker) -> int | None:
    async with serve(broker, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:  # type: ignore[list-item]
        port = next(iter(server.sockets)).getsockname()[1]
        link = link_to(port, MESH_ID, Backoff(initial_s=60, cap_s=60))
        running = asyncio.create_task(link.run(HANDLERS))
        try:
            return await asyncio.wait_for(broker.closed.get(), WAIT_S)
        finally:
            running.cancel()


@pytest.mark.parametrize("frame", NOT_FOR_DAEMONS, ids=lambda frame: type(frame).__name__)
async def test_a_frame_that_the_open_session_does_not_allow_closes_the_link(frame: Frame) -> None:
    """The session table checks every frame, after the handshake too."""
    broker = _ScriptedBroker(frame)
    assert await _close_code_after(broker) == CloseCode.PROTOCOL_ERROR


async def test_frames_of_an_unknown_type_are_answered_during_the_handshake() -> None:
    """They change no state: the handshake completes."""
    broker = _ScriptedBroker(NOT_FOR_DAEMONS[0])
    await _close_code_after(broker)
    assert broker.refused == ["unknown_type"] * 3


@pytest.mark.parametrize("offered", [True, False], ids=["batches", "older broker"])
async def test_envelopes_leave_in_as_few_frames_as_the_broker_takes(offered: bool) -> None:
    """Several in one frame when the broker offers it, single ones otherwise; what comes back is handed on."""
    supported = {
        name: feature for name, feature in OFFER.supported.items() if offered or name != "frame_batches"
    }
    heard: list[Frame] = []
    told: list[Any] = []
    up, done = asyncio.Event(), asyncio.Event()

    async def broker(connection: ServerConnection) -> None:
        await connection.send(encode_frame(CHALLENGE))
        await connection.recv()
        await connection.send(encode_frame(HELLO_ACK))
        await connection.recv()
        await connection.send(encode_frame(FeatureResponse(supported, ())))
        async for text in connection:
            heard.append(decode_frame(text))
            if sum(len(getattr(frame, "items", [frame])) for frame in heard) == 3:
                results = {"items": [{"id": 1, "status": 201}, {"id": 2}, {"id": 3, "status": 503}]}
                await connection.send(json.dumps({"type": "send_results", **results}))
                delivery = json.loads(encode_frame(DELIVER))
                items = [delivery, {**delivery, "envelope": 5}, {**delivery, "delivery_id": 9}]
                await connection.send(json.dumps({"type": "delivers", "items": items}))

    def deliver(connection: int, frame: Deliver) -> None:
        told.append(frame.delivery_id)
        if frame.delivery_id == 9:
            done.set()

    handlers = replace(
        HANDLERS,
        link_up=lambda opened: up.set(),
        on_result=lambda result: told.append((result.id, result.status)),
        on_deliver=deliver,
    )
    async with serve(broker, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:  # type: ignore[list-item]
        port = next(iter(server.sockets)).getsockname()[1]
        one = Membership(MESH_ID, "demo", f"ws://127.0.0.1:{port}", "id", "alice", "member", None)
        address = BrokerAddress(one.broker_url)
        replies = WrongReplies(Conditions(SystemClock()), _ignore)
        shake = Handshake(one, address, keyring_of(make_identity()), instance_id="one", host_fingerprint="")
        link = Link(address, shake, Backoff(initial_s=0.001, cap_s=0.001), replies)
        running = asyncio.create_task(link.run(handlers))
        await asyncio.wait_for(up.wait(), WAIT_S)
        frozen = orjson.dumps(DELIVER.envelope)
        await link.send_envelopes([(ULID_TEXT, frozen), (ULID_TEXT, frozen), (ULID_TEXT, frozen)])
        await asyncio.wait_for(done.wait(), WAIT_S)
        await link.close()
        running.cancel()
        await asyncio.wait([running])
    assert [type(frame).__name__ for frame in heard] == (["Sends"] if offered else ["Send"] * 3)
    assert told == [(1, 201), (3, 503), DELIVER.delivery_id, 9]
