"""Many members of one mesh in one process: `crowd.py SPEC`, commands on stdin, an answer on stdout for each.

A member here is as lean as it can be on two cores: a protocol of its own instead of a WebSocket library.
Its traffic is real: the upgrade, a signed hello, features, the calls of a daemon at link-up,
acknowledgements, and a daemon's backoff when the link is lost. Of the others it keeps a bit each, set and
cleared by what the broker says about presence.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from base64 import b64decode, b64encode
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import uvloop

from claudemesh.protocol.envelope import build_envelope
from claudemesh.protocol.ids import UlidFactory
from claudemesh.protocol.keys import Identity
from claudemesh.protocol.signing import sign_hello
from claudemesh.runtime.backoff import Backoff
from tests.support.cheapseal import cheap_epoch, cheap_seal

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_DRAINING = 4006


class Crowd:
    """The members, and what they have seen together."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.host, self.port = spec["host"], spec["port"]
        self.mesh_id = spec["mesh_id"]
        self.optional = spec["optional"]
        self.calls = [orjson.dumps({"type": "call", **call}) for call in spec["calls"]]
        self.places = {member_id: number for number, member_id in enumerate(spec["everybody"])}
        self.new_id = UlidFactory(lambda: time.time_ns() // 1_000_000, os.urandom).new
        self.members = [Member(self, kept) for kept in spec["members"]]
        self.expected = len(spec["everybody"])
        self.changes: dict[bytes, tuple[int, int]] = {}
        self.complete: set[Member] = set()
        self.last_open = self.last_complete = self.last_post = 0.0
        self.posts = self.keyed = 0
        self.reset()

    def reset(self) -> None:
        """Reset the counts."""
        self.frames: Counter[str] = Counter()
        self.bytes = 0
        self.posts = 0
        self.failures: Counter[str] = Counter()

    def status(self) -> dict[str, Any]:
        """Return the events since the last reset, and the present numbers."""
        return {
            "open": sum(member.is_open for member in self.members),
            "complete": len(self.complete),
            "last_open": self.last_open,
            "last_complete": self.last_complete,
            "posts": self.posts,
            "keyed": self.keyed,
            "last_post": self.last_post,
            "frames": dict(self.frames),
            "bytes": self.bytes,
            "failures": dict(self.failures),
        }

    def changes_of(self, payload: bytes) -> tuple[int, int]:
        """Return arrivals and departures of an event as bit sets. An event is parsed once for all members."""
        found = self.changes.get(payload)
        if found is None:
            frame = orjson.loads(payload)
            data, event = frame["data"], frame["event"]
            one = [data.get("member_id")]
            came = data["online"] if event == "presence" else one * (event == "peer_join")
            went = data["offline"] if event == "presence" else one * (event == "peer_leave")
            found = self.changes[payload] = (self._bits(came), self._bits(went))
            if len(self.changes) > 4096:
                self.changes.clear()
        return found

    def _bits(self, member_ids: list[str]) -> int:
        bits = 0
        for member_id in member_ids:
            if member_id in self.places:
                bits |= 1 << self.places[member_id]
        return bits


class Member(asyncio.Protocol):
    """One connection after the other, for as long as the crowd runs."""

    def __init__(self, crowd: Crowd, kept: dict[str, Any]) -> None:
        self.crowd = crowd
        self.identity = Identity.from_json(kept["identity"])
        self.name, self.member_id = kept["name"], kept["member_id"]
        self.instance_id = crowd.new_id()
        self.backoff = Backoff()
        self.transport: asyncio.Transport | None = None
        self.is_open = False
        self.online = 0
        self.lost = asyncio.Event()

    async def live(self) -> None:
        """Connect, and again whenever the link is lost, as a daemon does."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self._begin()
            try:
                # Each from an address of its own, as hosts have.
                place = self.crowd.places[self.member_id]
                source = (f"127.1.{place // 250}.{place % 250 + 1}", 0)
                await loop.create_connection(
                    lambda: self, self.crowd.host, self.crowd.port, local_addr=source
                )
                await self.lost.wait()
            except OSError as error:
                self.crowd.failures[type(error).__name__] += 1
            failures = 1 if self.was_open else failures + 1
            delay_s = self.backoff.delay_s(failures)
            if self.close_code == _DRAINING:
                delay_s = self.backoff.uniform(0, 1)
            await asyncio.sleep(delay_s)

    def _begin(self) -> None:
        self.lost.clear()
        self.buffer = bytearray()
        self.upgraded = self.is_open = self.was_open = False
        self.online = self.close_code = 0
        self.crowd.complete.discard(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        head = (
            f"GET /v1/ws HTTP/1.1\r\nHost: {self.crowd.host}:{self.crowd.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: claudemesh.v1\r\n\r\n"
        )
        self.transport.write(head.encode())  # type: ignore[union-attr]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.was_open:
            self.crowd.failures[f"refused {self.close_code}"] += 1
        self.is_open = False
        self.crowd.complete.discard(self)
        self.lost.set()

    def data_received(self, data: bytes) -> None:
        self.crowd.bytes += len(data)
        self.buffer += data
        if not self.upgraded:
            head, end, _ = bytes(self.buffer).partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head[:16]:
                self.crowd.failures[head.split(b"\r\n")[0].decode()] += 1
                self.transport.abort()  # type: ignore[union-attr]
                return
            del self.buffer[: len(head) + 4]
            self.upgraded = True
        while (frame := self._next()) is not None:
            self._take(*frame)

    def _next(self) -> tuple[int, bytes] | None:
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1], 2
        if size == 126:
            size, start = int.from_bytes(buffer[2:4]), 4
        elif size == 127:
            size, start = int.from_bytes(buffer[2:10]), 10
        if len(buffer) < start + size:
            return None
        opcode, payload = buffer[0] & 15, bytes(buffer[start : start + size])
        del buffer[: start + size]
        return opcode, payload

    def _write(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        head = bytes((0x80 | opcode,))
        # A mask of zeros is one.
        head += bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(head + bytes(4) + payload)

    def _say(self, **frame: Any) -> None:
        self._write(_TEXT, orjson.dumps(frame))

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self._write(_PONG, payload)
        elif opcode == _CLOSE:
            self.close_code = int.from_bytes(payload[:2])
            self._write(_CLOSE, payload[:2])
        elif opcode == _TEXT:
            self._read(payload)

    def _read(self, payload: bytes) -> None:
        crowd = self.crowd
        if payload.startswith(b'{"type":"event"'):
            crowd.frames[payload[:80].split(b'"')[7].decode()] += 1
            came, went = crowd.changes_of(payload)
            self.online = (self.online | came) & ~went
            self._look()
            return
        frame = orjson.loads(payload)
        kind = frame["type"]
        crowd.frames[kind] += 1
        if kind == "challenge":
            self._hello(frame)
        elif kind == "hello_ack":
            required = ["client_message_id_dedupe", "concurrent_connection_policy"]
            self._say(type="feature_negotiation_request", require=required, optional=crowd.optional)
        elif kind == "feature_negotiation_response":
            self.is_open = self.was_open = True
            crowd.last_open = time.monotonic()
            for call in crowd.calls:
                self._write(_TEXT, call)
            if not crowd.optional:
                self.online = (1 << crowd.expected) - 1
                self._look()
        elif kind == "reply" and frame["id"] == "key":
            crowd.keyed += 1
        elif kind == "deliver":
            crowd.posts += 1
            crowd.last_post = time.monotonic()
            self._say(type="deliver_ack", delivery_ids=[frame["delivery_id"]])

    def _look(self) -> None:
        crowd = self.crowd
        if (self.online | 1 << crowd.places[self.member_id]).bit_count() == crowd.expected:
            if self not in crowd.complete:
                crowd.complete.add(self)
                crowd.last_complete = time.monotonic()
        else:
            crowd.complete.discard(self)

    def _hello(self, challenge: dict[str, Any]) -> None:
        audience = f"{self.crowd.host}:{self.crowd.port}"
        signature = sign_hello(
            self.identity,
            audience=audience,
            mesh_id=self.crowd.mesh_id,
            nonce=b64decode(challenge["nonce"]),
            instance_id=self.instance_id,
        )
        self._say(
            type="hello",
            mesh_id=self.crowd.mesh_id,
            pubkey=self.identity.ed25519_pubkey,
            key_id=self.identity.key_id,
            name=self.name,
            host_fingerprint="ab" * 32,
            daemon_version="0",
            instance_id=self.instance_id,
            ephemeral=False,
            audience=audience,
            signature=b64encode(signature).decode(),
        )

    @property
    def mesh_id(self) -> str:
        """The mesh of the crowd."""
        return self.crowd.mesh_id  # type: ignore[no-any-return]

    def make_key(self) -> None:
        """Register an epoch of the topic of all."""
        self._say(type="call", id="key", method="topic_epoch_create", params=cheap_epoch(self, "all"))

    def post(self, text: str) -> None:
        """Post to the topic of all."""
        envelope = build_envelope(
            identity=self.identity,
            mesh_id=self.crowd.mesh_id,
            client_message_id=self.crowd.new_id(),
            destination_kind="topic",
            destination_ref="all",
            reply_to_id=None,
            priority="next",
            mentions=(),
            body=text.encode(),
            seal=cheap_seal(self.identity),
        )
        raw = orjson.dumps({"type": "send", "id": 1, "envelope": envelope.to_dict()})
        self._write(_TEXT, raw)


async def main(spec: dict[str, Any]) -> None:
    """Obey one command after the other until stdin ends."""
    crowd = Crowd(spec)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    tasks: list[asyncio.Task[None]] = []
    while line := (await reader.readline()).decode().split():
        if line[0] == "go":
            tasks += [asyncio.create_task(member.live()) for member in crowd.members]
        elif line[0] == "key":
            crowd.members[0].make_key()
        elif line[0] == "post":
            crowd.members[0].post("x" * 1024)
        elif line[0] == "reset":
            crowd.reset()
        print(json.dumps(crowd.status()), flush=True)
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main(orjson.loads(Path(sys.argv[1]).read_bytes())))
