"""A client of a broker: sends over one WebSocket, with a fixed number in flight.

It needs nothing of the product but its test support, so it drives the broker of an older build with the
support of that build.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import orjson

from benchmarks.lab import BODY, Lab
from benchmarks.size import size
from claudemesh.protocol.keys import Identity
from tests.support.broker import join_mesh
from tests.support.processes import Daemon
from tests.support.wspeer import Link, Peer, make_invite, new_id

MESSAGES = size(6000, 256)
_WINDOW = 512
_BATCHES = "frame_batches"
_MOST_ITEMS = 32
_FRAME_BYTES = 64 << 10


def peer_of(daemon: Daemon) -> Peer:
    """The member that a daemon is."""
    membership = json.loads((daemon.root / "membership.json").read_bytes())
    fields: dict[str, Any] = {
        name: membership[name] for name in ("name", "mesh_id", "slug", "member_id", "broker_url")
    }
    fields["identity"] = Identity.from_json(json.loads((daemon.root / "keypair.json").read_bytes()))
    # Builds without proofs of possession have no key for them.
    if "challenge" in {field.name for field in dataclasses.fields(Peer)}:
        from claudemesh.client.broker import BrokerClient

        fields["challenge"] = BrokerClient(membership["broker_url"]).challenge().key
    return Peer(**fields)


async def pipelined(
    owner: Peer,
    *,
    messages: int = MESSAGES,
    window: int = _WINDOW,
    topic: str | None = None,
    body: str = BODY,
) -> tuple[list[bytes], float]:
    """Send through a broker, from a new member to another, or to a topic, with `window` in flight.

    Returns the envelopes, and messages/s.
    """
    sender, absent = [await join_mesh(owner, f"m-{new_id()}", invite=make_invite(owner)) for _ in range(2)]
    sealed = body + "x" * 16
    envelopes = [sender.envelope(topic or absent, sealed) for _ in range(messages)]
    items = [
        orjson.dumps({"id": number, "envelope": envelope}).decode()
        for number, envelope in enumerate(envelopes)
    ]
    async with sender.connect(negotiate=False) as link:
        # As a daemon does: several sends in a frame, where the broker offers it.
        offered = await link.negotiate(optional=[_BATCHES])
        if topic is not None:
            await link.have_key(topic)
        await link.settle()
        most = _MOST_ITEMS if _BATCHES in offered["supported"] else 1
        started = time.perf_counter()
        await _pipeline(link, items, window, most)
        measured = messages / (time.perf_counter() - started)
    return [orjson.dumps(envelope) for envelope in envelopes], measured


async def _pipeline(link: Link, items: list[str], window: int, most: int) -> None:
    free, waiting = window, len(items)
    may_write = asyncio.Event()

    async def read() -> None:
        nonlocal free, waiting
        while waiting:
            frame = orjson.loads(await link.websocket.recv())
            if frame["type"] not in ("send_result", "send_results"):
                continue
            results = frame.get("items", [frame])
            assert all(result["status"] == 201 for result in results), frame
            waiting -= len(results)
            free += len(results)
            may_write.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        first = 0
        while first < len(items):
            while not free:
                may_write.clear()
                await may_write.wait()
            last = _end_of_frame(items, first, min(free, most))
            free -= last - first
            await link.websocket.send(_frame(items[first:last]))
            first = last


def _end_of_frame(items: list[str], first: int, most: int) -> int:
    """Return the end of the items that leave in one frame: the most of them, up to 64 KiB."""
    length, last = 0, first
    while last < min(first + most, len(items)):
        length += len(items[last])
        if last > first and length > _FRAME_BYTES:
            break
        last += 1
    return last


def _frame(items: list[str]) -> str:
    if len(items) == 1:
        return '{"type":"send",' + items[0][1:]
    return '{"type":"sends","items":[' + ",".join(items) + "]}"


def accepted(lab: Lab) -> float:
    """Messages/s of the embedded broker. The recipient is not connected."""
    return asyncio.run(pipelined(peer_of(lab.alice)))[1]


def accepted_on_postgres(lab: Lab) -> float:
    """Messages/s of a broker on Postgres."""
    return asyncio.run(pipelined(peer_of(lab.on_postgres()[1].daemons["olga"])))[1]
