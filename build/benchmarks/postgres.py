"""The same accept, with the data in Postgres: a server of the bench's own, with its usual durability."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from benchmarks.client import peer_of, pipelined
from benchmarks.lab import Lab
from benchmarks.size import size
from claudemesh.broker.store.postgres.accept import arguments
from claudemesh.broker.store.postgres.queries import QUERIES
from claudemesh.broker.store.postgres.sessions import SESSION, connect
from claudemesh.broker.store.types import NewSend, SendKey
from tests.support.postgres import Server, sql
from tests.support.processes import Mesh
from tests.support.wspeer import Peer, new_id

_MESSAGES = size(6000, 256)
_BATCH = 128
_ENVELOPE = b"x" * 1900
_POSTS = size(1000, 20)
_SUBSCRIBERS = (
    """INSERT INTO mesh.topic SELECT id, 'hundred', 'topic', id, now() FROM mesh.mesh
       ON CONFLICT DO NOTHING""",
    """INSERT INTO mesh.member
       SELECT md5('s' || n)::uuid, id, 's' || n, 'member', 'active', sha256(n::text::bytea), '\\x00',
              '\\x00', 'k', false, NULL, NULL, true, NULL, NULL, now()
       FROM mesh.mesh, generate_series(1, 100) AS n ON CONFLICT DO NOTHING""",
    """INSERT INTO mesh.topic_subscription
       SELECT mesh_id, 'hundred', id, now() FROM mesh.member WHERE name ~ '^s[0-9]+$'
       ON CONFLICT DO NOTHING""",
)
_OLD = size(10_000_000, 1_000)
# Ids that grow, as real ones do; delivered long ago.
_TEN_MILLION = (
    f"""CREATE UNLOGGED TABLE old AS
       SELECT lpad(to_hex(n), 32, '0')::uuid AS id, n AS number, 'old-' || lpad(n::text, 22, '0') AS own,
              m.mesh_id, m.id AS sender FROM mesh.member AS m, generate_series(1, {_OLD}) AS n""",  # noqa: S608 - a number
    """INSERT INTO mesh.client_message_dedupe
       SELECT mesh_id, own, id, number, '\\x00', 'dm', '', sender, now(), now() + interval '1 year'
       FROM old""",
    "INSERT INTO mesh.message_queue SELECT id, mesh_id, own, 'dm', '', sender, '\\x00', now() FROM old",
    "INSERT INTO mesh.message_history SELECT number, id, mesh_id, 'dm', '', sender, now() FROM old",
    "SELECT setval('mesh.message_history_history_id_seq', 20000000)",
    "DROP TABLE old",
    "ANALYZE",
    "CHECKPOINT",
)


def rate(lab: Lab) -> tuple[float, float]:
    """Messages/s of a broker on Postgres, and of the accept function alone, called with batches of 128."""
    server, made = lab.on_postgres()
    owner = peer_of(made.daemons["olga"])
    measured = asyncio.run(pipelined(owner))[1]
    return measured, asyncio.run(_function_alone(server, made, owner))


def two_brokers(lab: Lab) -> tuple[float, float]:
    """Messages/s of two brokers on one database, a client each; the other side is one of them alone."""
    _, made = lab.on_postgres()
    owner = peer_of(made.daemons["olga"])
    elsewhere = replace(owner, broker_url=lab.second_broker())

    async def both() -> float:
        rates = await asyncio.gather(pipelined(owner), pipelined(elsewhere))
        return sum(measured for _, measured in rates)

    alone = asyncio.run(pipelined(owner))[1]
    return asyncio.run(both()), alone


def topic(lab: Lab) -> tuple[float, float]:
    """Deliveries/s of posts to 100 subscribers that are not connected; beside ten times those of dms."""
    server, made = lab.on_postgres()
    owner = peer_of(made.daemons["olga"])
    asyncio.run(sql(server.url("bench"), *_SUBSCRIBERS, "SELECT 1"))
    posts = asyncio.run(pipelined(owner, messages=_POSTS, topic="hundred"))[1]
    dms = asyncio.run(pipelined(owner))[1]
    return posts * 100, dms * 10


def grown(lab: Lab) -> tuple[float, float]:
    """Messages/s with ten million messages in the tables; the other side is without them."""
    _, made = lab.on_postgres()
    large = lab.grown(_TEN_MILLION)
    return (
        asyncio.run(pipelined(peer_of(large.daemons["quin"])))[1],
        asyncio.run(pipelined(peer_of(made.daemons["olga"])))[1],
    )


async def _function_alone(server: Server, made: Mesh, owner: Peer) -> float:
    connection = await connect(server.url("bench"), SESSION)
    try:
        recipient = peer_of(made.daemons["paul"])
        sends = [_send(owner, recipient) for _ in range(_MESSAGES)]
        statement = await connection.prepare(QUERIES["accept"])
        started = time.perf_counter()
        for first in range(0, _MESSAGES, _BATCH):
            batch = arguments(sends[first : first + _BATCH], time.time_ns() // 1_000_000)
            await statement.fetch(*batch, None)
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
        envelope=_ENVELOPE,
    )
