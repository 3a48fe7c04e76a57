"""A member at the level of frames: keys, joining over HTTP, and one WebSocket driven step by step.

Nothing here reads behind the test's back: frames are taken from the socket only while a test
waits for one, so a peer that does not read is simply a peer that is not asked.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from claudemesh.protocol.envelope import Envelope, Seal, build_envelope
from claudemesh.protocol.ids import UlidFactory
from claudemesh.protocol.invites import sign_invite
from claudemesh.protocol.keys import Identity, new_identity
from claudemesh.protocol.possession import prove_possession
from claudemesh.protocol.signing import sign_hello, sign_join
from tests.support.cheapseal import cheap_epoch, cheap_seal, is_cheap

REQUIRED = ("client_message_id_dedupe", "concurrent_connection_policy")
_ulids = UlidFactory(lambda: time.time_ns() // 1_000_000, secrets.token_bytes)

Frame = dict[str, Any]


def make_identity() -> Identity:
    """Make a key pair of each kind."""
    return new_identity(secrets.token_bytes, f"k_{_ulids.new()}")


def new_id() -> str:
    """Return a fresh ULID."""
    return _ulids.new()


def make_invite(
    owner: Peer, *, role: str = "member", uses: int = 1, ttl_s: float = 3600, **changes: Any
) -> str:
    """Return an invite link that the owner has signed; `changes` replace its signed fields."""
    fields: dict[str, Any] = {
        "broker_url": owner.broker_url,
        "mesh_id": owner.mesh_id,
        "slug": owner.slug,
        "invite_id": new_id(),
        "role": role,
        "expires_at_ms": round((time.time() + ttl_s) * 1000),
        "uses": uses,
    }
    return sign_invite(owner.identity, **(fields | changes)).to_link()


def owner_body(name: str, identity: Identity) -> Frame:
    """Return how a member's name and keys travel over HTTP."""
    return {
        "name": name,
        "ed25519_pubkey": identity.ed25519_pubkey,
        "x25519_pubkey": identity.x25519_pubkey,
        "x25519_signature": b64encode(identity.x25519_signature).decode(),
        "key_id": identity.key_id,
    }


async def http_request(
    url: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any]:
    """Make one HTTP request; return the status and the JSON (or the text). Bytes go out as they are."""
    address = urlsplit(url)
    raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    lines = {
        "host": address.netloc,
        "connection": "close",
        "content-length": str(len(raw)),
        **(headers or {}),
    }
    if token is not None:
        lines["authorization"] = f"Bearer {token}"
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {text}\r\n" for name, text in lines.items())
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(head.encode("latin-1") + b"\r\n" + raw)
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    top, _, content = answer.partition(b"\r\n\r\n")
    is_json = b"application/json" in top
    return int(top.split(b" ", 2)[1]), orjson.loads(content) if is_json and content else content.decode()


@dataclass(frozen=True)
class Peer:
    """A member of a mesh, with everything it needs to connect."""

    name: str
    identity: Identity
    mesh_id: str
    slug: str
    member_id: str
    broker_url: str
    # The broker's key for proofs of possession.
    challenge: str = ""

    @property
    def pubkey(self) -> str:
        """The member's key."""
        return self.identity.ed25519_pubkey

    @property
    def audience(self) -> str:
        """The broker as this peer dials it."""
        return urlsplit(self.broker_url).netloc

    def join_body(
        self, link: str, name: str, identity: Identity, signed: Mapping[str, str] | None = None
    ) -> Frame:
        """Return the body of a join; `signed` replaces what the proof covers."""
        invite, signed = invite_fields(link), signed or {}
        proof = sign_join(
            identity,
            audience=signed.get("audience", urlsplit(invite["broker_url"]).netloc),
            mesh_id=signed.get("mesh_id", invite["mesh_id"]),
            invite_id=signed.get("invite_id", invite["invite_id"]),
            name=signed.get("name", name),
        )
        return {
            "invite": link,
            **owner_body(name, identity),
            "ephemeral": False,
            "proof": b64encode(proof).decode(),
            "x25519_proof": b64encode(
                prove_possession(identity.x25519_privkey, self.challenge, identity.ed25519_pubkey)
            ).decode(),
        }

    def envelope(self, to: Peer | str, text: str = "hello", **changes: Any) -> Frame:
        """Return a signed envelope to a peer or a topic. The body only looks sealed: a broker cannot tell."""
        dm = isinstance(to, Peer)
        fields: dict[str, Any] = {
            "client_message_id": new_id(),
            "destination_kind": "dm" if isinstance(to, Peer) else "topic",
            "destination_ref": to.pubkey if isinstance(to, Peer) else to,
            "reply_to_id": None,
            "priority": "next",
            "mentions": (),
            "body": text.encode().ljust(16),
            "seal": Seal("box", bytes(24), self.identity.key_id, self.identity.key_id)
            if dm
            else cheap_seal(self.identity),
        }
        return build_envelope(identity=self.identity, mesh_id=self.mesh_id, **(fields | changes)).to_dict()

    @asynccontextmanager
    async def connect(
        self,
        *,
        negotiate: bool = True,
        hello: Mapping[str, Any] | None = None,
        optional: Iterable[str] = (),
        **options: Any,
    ) -> AsyncGenerator[Link]:
        """Open a connection and bring it into traffic; `hello` replaces fields of that frame. `optional` are
        features that it asks for besides the required ones.
        """
        async with dial(self.broker_url, **options) as link:
            link.peer = self
            await link.say(self.hello(await link.next("challenge"), **(hello or {})))
            link.ack = await link.next("hello_ack")
            if negotiate:
                await link.negotiate(optional=optional)
            yield link

    def hello(self, challenge: Frame, **changes: Any) -> Frame:
        """Return the hello that answers a challenge; `changes` are made before it is signed."""
        fields: Frame = {
            "type": "hello",
            "mesh_id": self.mesh_id,
            "pubkey": self.pubkey,
            "key_id": self.identity.key_id,
            "name": self.name,
            "host_fingerprint": "",
            "daemon_version": "0",
            "instance_id": new_id(),
            "ephemeral": False,
            "audience": self.audience,
        } | changes
        signature = sign_hello(
            self.identity,
            audience=fields["audience"],
            mesh_id=fields["mesh_id"],
            nonce=b64decode(challenge["nonce"]),
            instance_id=fields["instance_id"],
        )
        return {"signature": b64encode(signature).decode()} | fields


def invite_fields(link: str) -> Frame:
    """Return what an invite link holds."""
    text = link.rpartition("/")[2]
    fields: Frame = orjson.loads(b64decode(text + "=" * (-len(text) % 4), altchars=b"-_"))
    return fields


@asynccontextmanager
async def dial(url: str, *, subprotocol: str = "claudemesh.v1", **options: Any) -> AsyncGenerator[Link]:
    """Open the WebSocket and nothing more; the challenge is still to be read."""
    async with connect(
        f"{url}/v1/ws",
        subprotocols=[subprotocol],  # type: ignore[list-item]
        compression=None,
        max_size=None,
        ping_interval=None,
        close_timeout=2,
        **options,
    ) as websocket:
        yield Link(websocket)


@dataclass
class Link:
    """One connection. Frames that came before they were asked for wait in `seen`."""

    websocket: ClientConnection
    ack: Frame = field(default_factory=dict)
    features: Frame = field(default_factory=dict)
    seen: deque[Frame] = field(default_factory=deque)
    peer: Peer | None = None
    # The topics of which this connection has registered the epoch of the cheap seal.
    _keyed: set[str] = field(default_factory=set)
    _requests: int = 0

    async def negotiate(self, require: Iterable[str] = REQUIRED, optional: Iterable[str] = ()) -> Frame:
        """Negotiate features; the answer is kept in `features`."""
        await self.say(
            {"type": "feature_negotiation_request", "require": list(require), "optional": list(optional)}
        )
        self.features = await self.next("feature_negotiation_response")
        return self.features

    async def say(self, frame: Mapping[str, Any]) -> None:
        """Send a frame."""
        await self.websocket.send(orjson.dumps(frame).decode())

    async def send(self, envelope: Mapping[str, Any]) -> int:
        """Send an envelope without waiting; return the request's id.

        The first one with the cheap seal to a topic registers its epoch at the broker.
        """
        if is_cheap(envelope) and envelope["destination_ref"] not in self._keyed:
            await self.have_key(envelope["destination_ref"])
        self._requests += 1
        await self.say({"type": "send", "id": self._requests, "envelope": envelope})
        return self._requests

    async def result(self, request_id: int) -> Frame:
        """Wait for one send's result."""
        return await self._await(lambda frame: frame["type"] == "send_result" and frame["id"] == request_id)

    async def request(self, envelope: Mapping[str, Any]) -> Frame:
        """Send an envelope and wait for its result."""
        return await self.result(await self.send(envelope))

    async def call(self, method: str, **params: Any) -> Frame:
        """Call a method and return its reply frame."""
        self._requests += 1
        wanted = self._requests
        await self.say({"type": "call", "id": wanted, "method": method, "params": params})
        return await self._await(lambda frame: frame["type"] == "reply" and frame["id"] == wanted)

    async def have_key(self, topic: str) -> None:
        """Register the epoch of the cheap seal, with a wrap for each subscriber. An error is kept quiet."""
        if self.peer is None:
            return
        missing = (await self.call("topic_key", topic=topic)).get("ok", {}).get("missing", ())
        recipients = [entry["pubkey"] for entry in missing]
        if "ok" in await self.call("topic_epoch_create", **cheap_epoch(self.peer, topic, recipients)):
            self._keyed.add(topic)

    async def work(self, queue: str) -> bool:
        """Subscribe to a queue as a worker that can open what is sent with the cheap seal."""
        reply = await self.call("topic_subscribe", topic=queue)
        await self.have_key(queue)
        return "ok" in reply and reply["ok"]["subscribed"] is True

    async def next(self, kind: str) -> Frame:
        """Wait for the next frame of a type; others wait in `seen`."""
        return await self._await(lambda frame: frame["type"] == kind)

    async def event(self, name: str) -> Frame:
        """Wait for an event and return its data."""
        frame = await self._await(lambda frame: frame["type"] == "event" and frame["event"] == name)
        data: Frame = frame["data"]
        return data

    async def deliveries(self, count: int) -> list[Frame]:
        """Wait for so many deliveries."""
        return [await self.next("deliver") for _ in range(count)]

    async def acknowledge(self, deliveries: Iterable[Frame]) -> None:
        """Acknowledge deliveries in one frame; there is no answer to it."""
        await self.say({"type": "deliver_ack", "delivery_ids": [item["delivery_id"] for item in deliveries]})

    async def settle(self) -> None:
        """Return once the broker has handled every frame sent before, and what it said until then is seen."""
        await self.call("send_status", client_message_ids=[])

    def waiting(self, kind: str) -> list[Frame]:
        """Return the frames of a type that came and were not asked for yet."""
        return [frame for frame in self.seen if frame["type"] == kind]

    async def closed(self) -> tuple[int, Frame]:
        """Read until the broker closes; return the code and the reason."""
        try:
            while True:
                self.seen.append(orjson.loads(await self.websocket.recv()))
        except ConnectionClosed as closed:
            received = closed.rcvd
            if received is None:
                return 1006, {}
            # Codes of the WebSocket standard come with the library's words, ours with JSON.
            is_ours = received.reason.startswith("{")
            return received.code, orjson.loads(received.reason) if is_ours else {}

    async def _await(self, wanted: Callable[[Frame], bool]) -> Frame:
        for earlier in self.seen:
            if wanted(earlier):
                self.seen.remove(earlier)
                return earlier
        while True:
            frame: Frame = orjson.loads(await self.websocket.recv())
            if wanted(frame):
                return frame
            self.seen.append(frame)


async def nothing_else_is_delivered(link: Link, to: Peer, sending: Link, by: Peer) -> None:
    """Send a message and see that it is the next delivery: nothing was under way ahead of it."""
    sent = await sending.request(by.envelope(to, "the last one"))
    [frame] = await link.deliveries(1)
    assert frame["broker_message_id"] == sent["broker_message_id"], frame
    assert link.waiting("deliver") == []


def parsed(envelope: Mapping[str, Any]) -> Envelope:
    """Return an envelope of a deliver frame as a value."""
    return Envelope.parse(dict(envelope))
