"""No text that a client chooses is an error of the broker, on either engine: it is accepted or refused.

Every text in the body, the query and the frames of every route, call and frame is replaced in turn, and
signed again where it is signed. PostgreSQL stores no NUL, and a lone surrogate has no UTF-8.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from websockets.exceptions import ConnectionClosed

from claudemesh.broker.app import Broker
from claudemesh.broker.calls.table import METHODS
from claudemesh.broker.http.routes import ROUTES
from claudemesh.broker.settings import Limits
from claudemesh.protocol.errors import CloseCode, ProtocolError
from claudemesh.protocol.statements import MOVE, REVOCATION, ROLE, sign_statement
from tests.integration.broker import test_topic_keys as keys
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.rotations import request_of
from tests.support.stores import database
from tests.support.wspeer import (
    Frame,
    Peer,
    dial,
    http_request,
    make_identity,
    make_invite,
    new_id,
    owner_body,
)

HOSTILE = (
    "",
    "\0",
    "a\0b",
    "bob\0",
    "\x1b[2J",
    "\x7f\x9b",
    "\u2028",
    "\ufffe\uffff",
    "\ud800",
    "\U000e0001",
    "e\u0301" * 40,
    "'; --",
    "%00",
    "x" * 5000,
)
# Codes of the broker's own failures, and of the WebSocket for an error of the server.
_FAILURES = {"internal_error", "storage_unavailable", "storage_full", "broker_busy"}
_SERVER_ERRORS = {1011, 1013}


@asynccontextmanager
async def broker_on(engine: str, **settings: Any) -> AsyncGenerator[Broker]:
    """A broker that stores in SQLite or in Postgres."""
    if engine == "sqlite":
        async with running_broker(**settings) as broker:
            yield broker
    else:
        async with database() as url, running_broker(database_url=url, **settings) as broker:
            yield broker


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def changed(value: Any) -> Generator[Any]:
    """A JSON value with each of its texts, and each name in its objects, replaced in turn."""
    if isinstance(value, str):
        yield from HOSTILE
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from ({**value, name: other} for other in changed(inner))
        yield from ({**value, name: "x"} for name in HOSTILE)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in changed(inner))


def text_of(value: Any) -> str:
    """JSON that may hold a lone surrogate, which travels as an escape."""
    return json.dumps(value)


def signed_invites(owner: Peer) -> Generator[str]:
    """Links whose texts were hostile before they were signed."""
    for name in ("broker_url", "mesh_id", "slug", "invite_id", "role"):
        for text in HOSTILE:
            try:
                yield make_invite(owner, **{name: text})
            except (ProtocolError, ValueError):
                # The client's own library does not sign this one.
                continue


def stated(signer: Peer, subject: Peer | str, kind: str, **details: str) -> Frame:
    """A statement about a member, or about the mesh."""
    about = subject.member_id if isinstance(subject, Peer) else subject
    made = sign_statement(
        signer.identity, kind, mesh_id=signer.mesh_id, subject=about, at_ms=1_700_000_000_000, **details
    )
    return made.to_dict()


def bodies(owner: Peer, bob: Peer) -> Mapping[str, Any]:
    """A body that is valid for each route that has one."""
    join = owner.join_body(make_invite(owner), "newcomer", make_identity())
    rejoin = {name: value for name, value in join.items() if name not in ("ephemeral", "x25519_proof")}
    return {
        "/v1/join": {**join, "member_id": bob.member_id},
        "/v1/rejoin": {**rejoin, "member_id": bob.member_id, "audience": owner.audience},
        "/v1/rotate": {"mesh_id": owner.mesh_id, **request_of(owner, make_identity())},
        "/v1/meshes/move": {
            "statement": stated(
                owner, owner.mesh_id, MOVE, **{"from": owner.broker_url, "to": "ws://127.0.0.1:1"}
            )
        },
        "/v1/invites": {"invite": make_invite(owner)},
        "/v1/admin/meshes": {"slug": "another", "owner": owner_body("ada", make_identity())},
        "/v1/admin/meshes/set": {
            "mesh": owner.slug,
            "clone_concurrency_policy": "prefer_newest",
            "dedupe_retention_mode": "permanent",
        },
        "/v1/admin/members/revoke": {"mesh": owner.slug, "member": "nobody"},
        "/v1/admin/invites/revoke": {"mesh": owner.slug, "invite_id": new_id()},
        "/v1/admin/jobs/run": {"job": "message-sweep"},
        "/v1/admin/console/code": {},
        "/v1/console/session": {"code": "A" * 22},
    }


async def test_no_text_in_a_body_or_a_query_is_an_error_of_the_broker(engine: str) -> None:
    async with broker_on(engine) as broker:
        owner = await create_mesh(broker)
        bob = await join_mesh(owner, "bob")
        valid = bodies(owner, bob)
        assert {route.path for route in ROUTES if route.body is not None} == valid.keys()
        failed, asked = [], 0

        async def ask(method: str, path: str, body: str | None = None) -> None:
            nonlocal asked
            raw = None if body is None else body.encode()
            status, answer = await http_request(broker.url, method, path, raw, token=broker.admin_token)
            asked += 1
            if status >= 500:
                failed.append((method, path, body and body[:200], status, answer))

        for path, body in valid.items():
            for other in changed(body):
                await ask("POST", path, text_of(other))
        for name in HOSTILE:
            identity = make_identity()
            try:
                body = owner.join_body(make_invite(owner), name, identity)
            except (ProtocolError, ValueError):
                continue
            await ask("POST", "/v1/join", text_of(body))
        for link in signed_invites(owner):
            await ask("POST", "/v1/invites", text_of({"invite": link}))
            join = owner.join_body(make_invite(owner), "another", make_identity())
            await ask("POST", "/v1/join", text_of(join | {"invite": link}))
        for route in ROUTES:
            for parameter in route.query or ():
                for text in HOSTILE:
                    value = quote(text.encode("utf-8", "surrogatepass"))
                    rest = "" if parameter.name == "mesh" else f"&mesh={owner.slug}"
                    rest = rest if any(each.name == "mesh" for each in route.query or ()) else ""
                    await ask(route.method, f"{route.path}?{parameter.name}={value}{rest}")
        assert failed == []
        assert asked > 500
        assert (await http_request(broker.url, "GET", "/readyz"))[1]["degraded"] == []


def calls(owner: Peer, bob: Peer) -> Mapping[str, Frame]:
    """Valid parameters for each method."""
    key = keys.TopicKey("all", 1, bytes(32))
    epoch = keys.sign_epoch(owner.identity, owner.mesh_id, key, "ab" * 32).to_dict()
    wraps = [keys.wrap(key, owner, bob)]
    return {
        "topic_key": {"topic": "all", "key_epochs": [1], "wanted": False},
        "topic_epoch_create": {"topic": "all", "expected": 0, "epoch": epoch, "wraps": wraps},
        "topic_wrap_add": {"topic": "all", "key_epoch": 1, "wraps": wraps},
        "topic_rekey": {"topic": "all"},
        "topic_create": {"topic": "one", "mode": "topic"},
        "topic_subscribe": {"topic": "all"},
        "topic_unsubscribe": {"topic": "one"},
        "topic_list": {"after": "a"},
        "topic_delete": {"topic": "one"},
        "topics_deleted": {"topics": ["one"]},
        "invite_list": {"after": new_id()},
        "invite_revoke": {"invite_id": new_id()},
        "peers": {"since": "1:x", "after": bob.member_id},
        "profile": {"summary": "a summary", "status": "here"},
        # Of another member, so that the caller's own connection stays.
        "rotate_keys": request_of(bob, make_identity()),
        "send_status": {"client_message_ids": [new_id()]},
        "history": {"after": 1, "before": 9, "limit": 5, "destination": "#all"},
        "leave": {"force": False},
        "member_rename": {"name": "another"},
        "member_revoke": {"statement": stated(owner, bob, REVOCATION, pubkey=bob.pubkey)},
        "member_role": {"statement": stated(owner, bob, ROLE, role="admin")},
        "member_restate": {"statement": stated(owner, bob, ROLE, role="admin")},
        "members_left": {"member_ids": [bob.member_id]},
        "members_seen": {"member_ids": [bob.member_id]},
        "mesh_moved": {},
        "blob_begin": {"size": 100, "sha256": "ab" * 32, "blob_id": new_id()},
        "blob_open": {"blob_id": new_id()},
        "blob_attach": {"blob_id": new_id(), "client_message_id": new_id(), "persistent": False},
        "blob_fetched": {"blob_id": new_id()},
        "blob_delete": {"blob_id": new_id()},
        "member_vouch": {
            "member_id": bob.member_id,
            "name": "bob",
            "role": "member",
            "status": "active",
            "invite_id": new_id(),
            "pubkey": bob.pubkey,
            "x25519_pubkey": bob.identity.x25519_pubkey,
            "x25519_signature": owner_body("bob", bob.identity)["x25519_signature"],
            "key_id": bob.identity.key_id,
        },
    }


def traffic(owner: Peer, bob: Peer) -> Generator[Frame]:
    """Frames of a connection that is open, each with one hostile text."""
    for method, params in calls(owner, bob).items():
        for other in changed(params):
            yield {"type": "call", "id": 1, "method": method, "params": other}
    sends = (
        owner.envelope(bob, reply_to_id=new_id(), mentions=(bob.pubkey,)),
        owner.envelope("all", mentions=(owner.pubkey,)),
    )
    frames: Sequence[Frame] = (
        {"type": "call", "id": "one", "method": "topic_list", "params": {}},
        {"type": "error", "code": "one", "message": "two", "id": "three"},
        {"type": "event", "event": "one", "data": {"a": "b"}},
        {"type": "reply", "id": "one", "ok": {"a": "b"}},
        *({"type": "send", "id": 1, "envelope": envelope} for envelope in sends),
    )
    for frame in frames:
        yield from changed(frame)


async def asked(link: Any, frame: Frame, failed: list[Any]) -> bool:
    """Send a frame, and note a failure of the broker. False: the broker closed the connection."""
    try:
        await link.websocket.send(text_of(frame))
        await link.settle()
    except ConnectionClosed as closed:
        if closed.rcvd is None or closed.rcvd.code in _SERVER_ERRORS:
            failed.append((frame, str(closed)[:200]))
        return False
    for answer in link.seen:
        error = answer.get("error") or answer.get("code")
        code = error.get("code") if isinstance(error, dict) else error
        if code in _FAILURES or answer.get("status", 0) in (500, 503):
            failed.append((frame, answer))
    link.seen.clear()
    return True


async def test_no_text_in_a_frame_is_an_error_of_the_broker(engine: str) -> None:
    async with broker_on(engine) as broker:
        owner = await create_mesh(broker)
        bob = await join_mesh(owner, "bob")
        assert calls(owner, bob).keys() == METHODS.keys()
        failed: list[Any] = []
        async with owner.connect() as link:
            await link.have_key("all")
        waiting = list(traffic(owner, bob))
        assert len(waiting) > 500
        while waiting:
            async with owner.connect() as link:
                while waiting and await asked(link, waiting.pop(), failed):
                    pass
        assert failed == []
        assert (await http_request(broker.url, "GET", "/readyz"))[1]["degraded"] == []


def batched(values: Iterable[Any], size: int) -> Generator[list[Any]]:
    """The values in lists of a size."""
    found = iter(values)
    while some := list(islice(found, size)):
        yield some


async def ended(link: Any) -> int:
    """Return the code with which the broker closes, or 0 once it answers with a frame that is no error."""
    try:
        while orjson.loads(await link.websocket.recv())["type"] == "error":
            pass
    except ConnectionClosed as closed:
        return 1006 if closed.rcvd is None else closed.rcvd.code
    return 0


async def test_no_text_in_a_handshake_is_an_error_of_the_broker(engine: str) -> None:
    async with broker_on(engine, limits=Limits(handshake_s=3)) as broker:
        owner = await create_mesh(broker)
        async with dial(broker.url) as link:
            valid = owner.hello(await link.next("challenge"))
        seen: Counter[int] = Counter()

        async def say(other: Any) -> None:
            async with dial(broker.url) as link:
                challenge = await link.next("challenge")
                try:
                    signed = {name: value for name, value in other.items() if name != "signature"}
                    hello = owner.hello(challenge, **signed)
                except (KeyError, ValueError):
                    hello = other
                await link.websocket.send(text_of({**other, "signature": hello["signature"]}))
                seen[await ended(link)] += 1

        # Most end with the time for a handshake.
        for some in batched(changed(valid), 64):
            await asyncio.gather(*map(say, some))
        for frame in changed({"type": "feature_negotiation_request", "require": ["a"], "optional": ["b"]}):
            async with owner.connect(negotiate=False) as link:
                await link.websocket.send(text_of(frame))
                seen[await ended(link)] += 1
        assert not seen.keys() & {1006, *_SERVER_ERRORS}, seen
        # A connection that has signed in is closed when the next one of the member signs in.
        assert seen[0] + seen[CloseCode.REPLACED] > 50 and seen.total() > 200, seen
        assert (await http_request(broker.url, "GET", "/readyz"))[1]["degraded"] == []
