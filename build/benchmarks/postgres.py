"""The same accept, with the data in Postgres: a server of the bench's own, with its usual durability."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from benchmarks.accept import peer_of, pipelined
from benchmarks.lab import Lab
from claudemesh.broker.store.base import NewSend, SendKey
from claudemesh.broker.store.postgres.accepting import arguments
from claudemesh.broker.store.postgres.pools import SESSION, prepare_session
from claudemesh.broker.store.postgres.queries import QUERIES
from tests.support.postgres import Server
from tests.support.processes import Mesh
from tests.support.wspeer import Peer, new_id

_MESSAGES = 6000
_BATCH = 128
_ENVELOPE = b"x" * 1900


def rate(lab: Lab) -> tuple[float, float]:
    """Messages/s of a broker on Postgres, and of the accept function alone, called with batches of 128."""
    server, made = lab.on_postgres()
    owner = peer_of(made.daemons["olga"])
    measured = asyncio.run(pipelined(owner))[1]
    return measured, asyncio.run(_function_alone(server, made, owner))


async def _function_alone(server: Server, made: Mesh, owner: Peer) -> float:
    connection = await asyncpg.connect(server.url("bench"), server_settings=SESSION)
    try:
        await prepare_session(connection)
        recipient = peer_of(made.daemons["paul"])
        sends = [_send(owner, recipient) for _ in range(_MESSAGES)]
        statement = await connection.prepare(QUERIES["accept"])
        started = time.perf_counter()
        for first in range(0, _MESSAGES, _BATCH):
            await statement.fetch(*arguments(sends[first : first + _BATCH], time.time_ns() // 1_000_000))
        return _MESSAGES / (time.perf_counter() - started)
    finally:
        await connection.close()


def _send(sender: Peer, recipient: Peer) -> NewSend:
    return NewSend(
        key=SendKey(sender.mesh_id, sender.member_id, new_id()),
        broker_message_id=new_id(),
        request_fingerprint=bytes(32),
        destination_kind="dm",
        destination_ref=recipient.pubkey,
        priority=1,
        mentions=(),
        envelope=_ENVELOPE,
    )
