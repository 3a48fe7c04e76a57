"""Frames that violate the protocol: answered with an error, or closed with a documented code."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from claudemesh.protocol.frames import encode_frame
from claudemesh.protocol.session import ANYTIME, TRANSITIONS, State
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.frames import FRAMES
from tests.support.waiting import WAIT_S
from tests.support.wspeer import Frame, Link, Peer, dial

DOCUMENTED = {1000, 1002, 1007, 1009, 4000, 4001, 4003, 4004, 4005, 4006}


async def test_an_unknown_type_is_answered_and_ignored() -> None:
    """A newer daemon's frame does not end the connection."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            await link.say({"type": "from_the_future", "id": 9, "cargo": [1]})
            error = await link.next("error")
            assert (error["code"], error["id"]) == ("unknown_type", 9)
            assert (await link.request(ada.envelope("all")))["status"] == 201


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "send"},
        {"type": "send", "id": 1},
        {"type": "send", "id": True, "envelope": {}},
        {"type": "send", "id": [], "envelope": {}},
        {"type": "send", "id": 1, "envelope": "x"},
        {"type": "deliver_ack", "delivery_ids": "all"},
        {"type": "deliver_ack", "delivery_ids": [1.5]},
        {"type": "deliver_ack", "delivery_ids": [2**70]},
        {"type": "deliver_ack", "delivery_ids": [True]},
        {"type": "call", "id": 1, "method": 3},
        {"type": "call", "id": 1, "method": "peers", "params": []},
        {"type": 7},
        {},
        [],
        "text",
    ],
)
async def test_a_malformed_frame_is_answered_with_an_error(frame: object) -> None:
    """A frame of a known type with a wrong field changes nothing and ends nothing."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            await link.websocket.send(json.dumps(frame))
            error = await link.next("error")
            assert error["code"] == "invalid_frame"
            assert error["message"]
            assert (await link.request(ada.envelope("all")))["status"] == 201


@pytest.mark.parametrize("text", ["", "{", "\x00", "nonsense", '{"type": "send"', "NaN"])
async def test_what_is_not_json_ends_the_connection(text: str) -> None:
    """4000: a peer that loses its framing cannot be trusted with the rest."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            await link.websocket.send(text)
            assert (await link.closed())[0] == 4000


async def test_a_frame_that_the_open_session_does_not_allow_is_a_protocol_error() -> None:
    """The session table checks every frame, after the handshake too."""
    allowed = {*TRANSITIONS["daemon"][State.OPEN], *ANYTIME}
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        for frame in FRAMES:
            if type(frame) in allowed:
                continue
            async with ada.connect() as link:
                await link.websocket.send(encode_frame(frame))
                code, reason = await link.closed()
                assert (code, reason["kind"]) == (4000, "protocol_error"), frame


async def test_text_that_is_not_utf8_ends_the_connection() -> None:
    """1007, as the WebSocket standard has it."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            await link.websocket.send(b"\xff\xfe\xfd", text=True)
            with pytest.raises(ConnectionClosed) as caught:
                await link.next("never")
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1007


async def test_mutated_traffic_never_breaks_the_broker(caplog: pytest.LogCaptureFixture) -> None:
    """Every frame is answered or closed with a documented code; no crash is logged."""
    caplog.set_level(logging.ERROR)
    chance = random.Random(20260)
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        for _ in range(60):
            await one_round(chance, ada, bob)
        async with ada.connect() as link:
            assert (await link.request(ada.envelope(bob)))["status"] == 201
    assert [record.getMessage() for record in caplog.records] == []


async def one_round(chance: random.Random, ada: Peer, bob: Peer) -> None:
    """Send some damaged frames on a fresh connection, before or after its handshake."""
    try:
        if chance.random() < 0.3:
            async with dial(ada.broker_url) as link:
                hello = ada.hello(await link.next("challenge"))
                await link.websocket.send(damaged(chance, hello))
                await finish(link)
        else:
            async with ada.connect() as link:
                await link.have_key("all")
                for frame in traffic(ada, bob):
                    await link.websocket.send(damaged(chance, frame))
                await finish(link)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "the broker closed without a word"
        assert closed.rcvd.code in DOCUMENTED


async def finish(link: Link) -> None:
    """Wait until the broker has answered or closed."""
    await link.say({"type": "anybody_there", "id": "end"})
    websocket: ClientConnection = link.websocket
    while True:
        frame = orjson.loads(await asyncio.wait_for(websocket.recv(), WAIT_S))
        assert frame["type"] in ("send_result", "reply", "error", "event", "deliver", "hello_ack")
        if frame["type"] == "send_result":
            assert frame["status"] not in (500, 503)
        if frame.get("id") == "end":
            return


def traffic(ada: Peer, bob: Peer) -> list[Frame]:
    return [
        {"type": "send", "id": 1, "envelope": ada.envelope(bob)},
        {"type": "send", "id": 2, "envelope": ada.envelope("all")},
        {"type": "deliver_ack", "delivery_ids": [1, 2, 3]},
        {"type": "call", "id": 3, "method": "topic_create", "params": {"topic": "ops"}},
        {"type": "call", "id": 4, "method": "send_status", "params": {"client_message_ids": ["x"]}},
        {"type": "call", "id": 5, "method": "profile", "params": {"summary": "x", "visible": True}},
    ]


STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    "",
    "\u0000",
    "\u202e",
    "x" * 300,
    [],
    {},
    [[]],
    {"a": {"b": []}},
)


def damaged(chance: random.Random, frame: Frame) -> str:
    """Return a frame's text after one to three changes: of a value, of a field, of a byte."""
    value = orjson.loads(orjson.dumps(frame))
    for _ in range(chance.randrange(3)):
        inside = value
        for _ in range(chance.randrange(3)):
            inner = [item for item in inside.values() if isinstance(item, dict) and item]
            inside = chance.choice(inner) if inner else inside
        key = chance.choice(list(inside))
        if chance.random() < 0.2:
            del inside[key]
        else:
            inside[key] = chance.choice(STRANGE)
        if not value:
            break
    text = orjson.dumps(value).decode()
    if chance.random() < 0.3:
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice('{}[]",:\\x7') + text[at + chance.randrange(2) :]
    return text


async def answers_to(link: Link, count: int) -> tuple[dict[Any, Frame], set[str]]:
    """Return so many results by their ids, and the types of the frames that brought them."""
    results: dict[Any, Frame] = {}
    kinds = set()
    while len(results) < count:
        frame = orjson.loads(await link.websocket.recv())
        if frame["type"] in ("send_result", "send_results"):
            kinds.add(frame["type"])
            results.update({item["id"]: item for item in frame.get("items", [frame])})
    return results, kinds


@pytest.mark.parametrize("batches", [True, False], ids=["negotiated", "older daemon"])
async def test_sends_of_one_frame_are_answered_and_delivered_each(batches: bool) -> None:
    """In one frame when the peer takes it, in single ones otherwise; a wrong item is answered alone."""
    optional = ("frame_batches",) if batches else ()
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect(optional=optional) as sending, bob.connect(optional=optional) as receiving:
            await receiving.settle()
            good = [ada.envelope(bob, f"m{number}") for number in range(6)]
            twice = orjson.dumps(good[1]).replace(b'"v":1', b'"v":1,"v":1')
            parts = [orjson.dumps(one) for one in (*good[:3], {**good[3], "extra": 1}, *good[4:])]
            parts[1] = twice
            items = b",".join(b'{"id":%d,"envelope":%b}' % (name, raw) for name, raw in enumerate(parts))
            await sending.websocket.send(b'{"type":"sends","items":[%b]}' % items, text=True)
            results, kinds = await answers_to(sending, 6)
            statuses = {name: result["status"] for name, result in results.items()}
            assert statuses == {0: 201, 1: 400, 2: 201, 3: 400, 4: 201, 5: 201}
            assert {results[name]["error"] for name in (1, 3)} == {"invalid_envelope"}
            delivered, told = [], set()
            while len(delivered) < 4:
                frame = orjson.loads(await receiving.websocket.recv())
                if frame["type"] in ("deliver", "delivers"):
                    told.add(frame["type"])
                    delivered += frame.get("items", [frame])
            # The same in one frame again: each is a duplicate of its own.
            await sending.say(
                {"type": "sends", "items": [{"id": f"n{n}", "envelope": good[n]} for n in (0, 2, 4, 5)]}
            )
            again, _ = await answers_to(sending, 4)
    accepted = [results[name] for name in (0, 2, 4, 5)]
    assert [one["broker_message_id"] for one in delivered] == [one["broker_message_id"] for one in accepted]
    assert [again[f"n{n}"]["broker_message_id"] for n in (0, 2, 4, 5)] == [
        one["broker_message_id"] for one in accepted
    ]
    assert {one["duplicate"] for one in again.values()} == {True}
    if batches:
        assert "send_results" in kinds
    else:
        assert kinds == {"send_result"}
        assert told == {"deliver"}


async def test_owed_deliveries_leave_in_frames_with_several_items() -> None:
    """In order, and acknowledged by their ids as always; a large one has a frame of its own."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending:
            for number in range(40):
                text = "x" * 70_000 if number == 10 else f"m{number}"
                assert (await sending.request(ada.envelope(bob, text)))["status"] == 201
        async with bob.connect(optional=("frame_batches",)) as receiving:
            frames: list[list[Frame]] = []
            while sum(map(len, frames)) < 40:
                frame = orjson.loads(await receiving.websocket.recv())
                if frame["type"] in ("deliver", "delivers"):
                    frames.append(frame.get("items", [frame]))
            items = [item for frame in frames for item in frame]
            await receiving.acknowledge(items)
            while await broker.context.store.messages.deliveries_pending():
                await broker.context.store.ping()
    assert [item["history_id"] for item in items] == sorted(item["history_id"] for item in items)
    assert len(frames) < 40
    assert max(map(len, frames)) <= 32
    assert [len(frame) for frame in frames if len(orjson.dumps(frame)) > 70_000] == [1]
