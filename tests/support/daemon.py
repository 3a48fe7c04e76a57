"""Builders for daemon tests: identities, a directory of peers, sealed deliveries."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.destinations import Destinations
from claudemesh.daemon.outbox.request import SendRequest, parse_send
from claudemesh.daemon.outbox.sealer import Sealer
from claudemesh.home.keyring import Keyring
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.frames import Deliver, DeliverySender
from claudemesh.protocol.ids import UlidFactory, uuid_from_ulid
from claudemesh.protocol.keys import Identity, new_identity
from claudemesh.protocol.replies import PeerEntry, peer_entry
from claudemesh.protocol.topic_keys import TopicKey

MESH_ID = "01899e2d-0000-7000-8000-000000000001"
NOW = 1_780_000_000_000

_random = random.Random(7)
new_ulid = UlidFactory(lambda: NOW, _random.randbytes).new


class KeyOfEachTopic:
    """Holds one key of every topic, unless `is_missing`; notes the keys that are wanted."""

    def __init__(self, *, is_missing: bool = False) -> None:
        self.is_missing = is_missing
        self.key_epoch = 1
        self.wanted: list[str] = []

    def current(self, topic: str) -> TopicKey | None:
        return None if self.is_missing else self._key(topic, self.key_epoch)

    def find(self, topic: str, key_epoch: int) -> TopicKey | None:
        return None if self.is_missing else self._key(topic, key_epoch)

    def want(self, topic: str, key_epoch: int) -> None:
        self.wanted.append(topic)

    def present(self, topic: str) -> TopicKey | None:
        return self.current(topic)

    def begin(self, topic: str) -> None:
        self.wanted.append(topic)

    def written(self, topic: str) -> None:
        return

    def want_to_send(self, topic: str) -> None:
        self.wanted.append(topic)

    def renew(self, topic: str, key_epoch: int | None = None) -> None:
        self.wanted.append(topic)

    def _key(self, topic: str, key_epoch: int) -> TopicKey:
        return TopicKey(topic, key_epoch, hashlib.sha256(f"{topic} {key_epoch}".encode()).digest())


@dataclass(frozen=True, slots=True)
class Person:
    """A member with its keys."""

    name: str
    member_id: str
    identity: Identity

    def entry(self, **changes: object) -> dict[str, object]:
        """The member as the broker lists it."""
        return {
            "name": self.name,
            "pubkey": self.identity.ed25519_pubkey,
            "x25519_pubkey": self.identity.x25519_pubkey,
            "x25519_signature": base64.b64encode(self.identity.x25519_signature).decode(),
            "key_id": self.identity.key_id,
            "member_id": self.member_id,
            "role": "member",
            "status": "active",
            "online": True,
            "presence_status": None,
            "summary": None,
            "visible": True,
            "last_seen_at": None,
            "earlier_keys": [],
            **changes,
        }

    def listed(self, **changes: object) -> PeerEntry:
        """The same, as a daemon reads it."""
        return peer_entry(self.entry(**changes))


def person(name: str) -> Person:
    """A new member."""
    return Person(name, uuid_from_ulid(new_ulid()), new_identity(_random.randbytes, f"k_{new_ulid()}"))


def directory_of(folder: Path, *people: Person) -> Directory:
    """A directory that knows these members."""
    directory = Directory(folder / "peers.json", MESH_ID)
    directory.apply([one.listed() for one in people])
    return directory


def keyring_of(identity: Identity) -> Keyring:
    """A keyring of these keys, that no test lets write."""
    return Keyring(Path("/dev/null/keypair.json"), identity)


def sealer_of(one: Person, key_epoch: int = 1) -> Sealer:
    """Return the sealer of this member, for which this epoch of every topic is the present one."""
    keys = KeyOfEachTopic()
    keys.key_epoch = key_epoch
    return Sealer(keyring_of(one.identity), MESH_ID, _random.randbytes, BodyLimit(), keys)


def sealed(
    one: Person, directory: Directory, request: SendRequest, client_message_id: str, key_epoch: int = 1
) -> Envelope:
    """A send of this member as its envelope."""
    to = Destinations(directory).resolve(request.target)
    mentions = Destinations(directory).references(request.mentions)
    return sealer_of(one, key_epoch).seal(request, to, mentions, client_message_id)


def delivery(
    sender: Person,
    directory: Directory,
    request: SendRequest | None = None,
    delivery_id: int = 1,
    key_epoch: int = 1,
) -> Deliver:
    """A message of `sender` as the broker delivers it; by default a dm to bob."""
    request = request or parse_send({"to": "bob", "message": "hello"})
    client_message_id = request.client_message_id or new_ulid()
    envelope = sealed(sender, directory, request, client_message_id, key_epoch)
    from_ = DeliverySender(sender.member_id, sender.name, sender.identity.ed25519_pubkey)
    return Deliver(delivery_id, new_ulid(), 1, from_, NOW, envelope.to_dict())
