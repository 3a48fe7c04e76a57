"""Receiving: believed after verification, durable before the ack, one event per message."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.bus import Bus
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.inbox.patient_store import PatientStore
from claudemesh.daemon.inbox.publisher import InboxPublisher
from claudemesh.daemon.inbox.receive import Receiver
from claudemesh.daemon.inbox.sealed import OpenedBody
from claudemesh.daemon.inbox.selection import Selection
from claudemesh.daemon.inbox.store import InboxRow, InboxStore
from claudemesh.daemon.inbox.unsealer import Unsealer
from claudemesh.daemon.inbox.verify import Invalid, OpeningNotes, Verifier
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.destinations import Destinations
from claudemesh.daemon.outbox.request import SendRequest, parse_post, parse_send
from claudemesh.daemon.outbox.sealer import Sealer
from claudemesh.daemon.sessions.loops import MAX_TURNS, LoopGuard
from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.envelope import Envelope, build_envelope
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.frames import Deliver, DeliverySender
from claudemesh.protocol.keys import Identity, new_identity
from claudemesh.protocol.receipts import Receipt
from claudemesh.protocol.replies import PeerEntry
from claudemesh.protocol.rotation import make_rotation
from claudemesh.protocol.sealing import BoxKeys, seal_box
from claudemesh.protocol.statements import sign_statement
from claudemesh.protocol.topic_keys import TopicKey
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.errors import StorageFull
from tests.support.clock import ManualClock
from tests.support.daemon import (
    MESH_ID,
    NOW,
    KeyOfEachTopic,
    Person,
    delivery,
    directory_of,
    keyring_of,
    new_ulid,
    person,
)
from tests.support.values import replace

ALICE, BOB, CAROL = person("alice"), person("bob"), person("carol")
FILE = Attachment(
    file_id="01HZ0000000000000000000000",
    name="build.log",
    size=3,
    sha256="ab" * 32,
    blob_id="blob-of-the-log",
    blob_sha256="cd" * 32,
    key=bytes(32),
    chunk_bytes=1 << 20,
)


class Host:
    """Bob's receiving half, with the acknowledgements it gives."""

    def __init__(self, store: InboxStore, directory: Directory) -> None:
        self.store = store
        self.directory = directory
        self.acked: list[int] = []
        self.hooks: tuple[str, ...] = ()
        self.woken = 0
        self.bus = Bus()
        self.refreshes = 0
        self.newcomers: list[PeerEntry] = []
        self.broker_away = False
        self.without_context = 0
        self.topic_keys = KeyOfEachTopic()
        keyring = keyring_of(BOB.identity)
        verifier = Verifier(
            keyring,
            MESH_ID,
            "demo",
            new_ulid,
            1 << 20,
            self._hooks_of,
            self.topic_keys,
            OpeningNotes(self._note_without_context),
        )
        self.publisher = InboxPublisher(self.bus, DaemonMetrics(), self._note_jobs)
        self.unsealer = Unsealer(
            store.sealed, verifier, directory, self.publisher.unsealed, lambda: None, lambda: 0.0
        )
        self.receipts: list[tuple[str, str]] = []
        self.disk_is_full = False
        self.unsealer.take_receipts = self._take_receipts
        self.receiver = Receiver(
            PatientStore(store),
            verifier,
            directory,
            self._refresh,
            self,
            self.publisher,
            ManualClock(),
            self.unsealer,
        )
        self.receiver.take_receipts = self._take_rows

    async def _take_receipts(self, receipts: Sequence[tuple[str, tuple[Receipt, ...]]]) -> None:
        if self.disk_is_full:
            raise StorageFull("the disk is full")
        self.receipts += [(member, one.client_message_id) for member, told in receipts for one in told]

    async def _take_rows(self, rows: Sequence[InboxRow]) -> None:
        await self._take_receipts([(row.sender_member_id, row.receipting.receipts) for row in rows])

    def _hooks_of(self, kind: str, topic: str | None, *, mentioned: bool, has_files: bool) -> tuple[str, ...]:
        return self.hooks

    def _note_without_context(self) -> None:
        self.without_context += 1

    def _note_jobs(self) -> None:
        self.woken += 1

    async def acknowledge(self, connection: int, delivery_ids: Sequence[int]) -> None:
        self.acked += delivery_ids

    async def _refresh(self, member_ids: Collection[str]) -> None:
        self.refreshes += 1
        if self.broker_away:
            raise ProtocolError("broker_unavailable", "away")
        self.directory.apply(self.newcomers)

    async def take(self, *deliveries: Deliver) -> list[dict[str, Any]]:
        """Hand these in together, wait until all is stored, and return the whole inbox."""
        for one in deliveries:
            self.receiver.handle(1, one)
        await self.receiver._batcher._tasks.join()
        items, _ = await self.store.page(limit=500)
        return items


@asynccontextmanager
async def host(tmp_path: Path) -> AsyncGenerator[Host]:
    store = await InboxStore.open(tmp_path / "inbox.db", ManualClock())
    try:
        yield Host(store, directory_of(tmp_path, ALICE, BOB))
    finally:
        await store.close()


async def test_a_genuine_dm_is_opened_stored_and_acknowledged(tmp_path: Path) -> None:
    """Verified, opened, inserted, committed, acknowledged."""
    async with host(tmp_path) as bob:
        request = parse_send({"to": "bob", "message": "hi", "meta": {"b": 1, "a": [True]}, "priority": "now"})
        [item] = await bob.take(delivery(ALICE, bob.directory, request))
        assert (item["body"], item["meta"].value(), item["priority"]) == ("hi", {"a": [True], "b": 1}, "now")
        assert (item["kind"], item["sender_name"], item["topic"]) == ("dm", "alice", None)
        assert bob.acked == [1]


async def test_a_repeated_delivery_is_acknowledged_again_without_a_second_event(tmp_path: Path) -> None:
    """Only a new row raises events."""
    async with host(tmp_path) as bob:
        first = delivery(ALICE, bob.directory)
        with bob.bus.subscribe() as stream:
            await bob.take(first, replace(first, delivery_id=2))
            items = await bob.take(replace(first, delivery_id=3))
            bob.bus.close()
            assert len([event async for event in stream]) == 1
        assert len(items) == 1
        assert bob.acked == [1, 2, 3]


async def test_the_sessions_of_a_message_are_those_that_its_sender_sealed(tmp_path: Path) -> None:
    """The envelope, which the broker reads, does not name them. A message to a topic is for no session."""
    async with host(tmp_path) as bob:
        request = parse_send({"to": "bob/api", "message": "deploy?", "from_session": "web", "hops": 2})
        sent = delivery(ALICE, bob.directory, request)
        assert "session" not in repr({**sent.envelope, "body": None})
        with bob.bus.subscribe() as stream:
            [item] = await bob.take(sent)
            bob.bus.close()
            [event] = [event async for event in stream]
        names = {"from_session": "web", "to_session": "api", "for_session": "api", "hops": 2}
        assert names.items() <= item.items()
        assert names.items() <= event.data.items()
        assert {"from_session", "to_session"} <= set(item["untrusted"])
        post = replace(parse_post({"topic": "all", "message": "hi"}), from_session="web")
        forged = replace(post, target=replace(post.target, session="api"))
        *_, item = await bob.take(delivery(ALICE, bob.directory, forged, delivery_id=2))
        assert (item["from_session"], item["to_session"], item["for_session"]) == ("web", None, None)


async def test_announced_files_are_shown_without_their_keys(tmp_path: Path) -> None:
    """Keys and blobs stay in the database; each file raises an event behind its message."""
    async with host(tmp_path) as bob:
        request = replace(parse_send({"to": "bob", "message": "the log"}), attachments=(FILE,))
        with bob.bus.subscribe() as stream:
            [item] = await bob.take(delivery(ALICE, bob.directory, request))
            bob.bus.close()
            events = [event async for event in stream]
        shown = {"file_id": FILE.file_id, "name": "build.log", "size": 3, "sha256": FILE.sha256}
        assert item["attachments"] == [{**shown, "media_type": None}]
        assert [event.event for event in events] == ["message", "file_shared"]
        assert (events[1].data["file_id"], events[1].data["seq"]) == (FILE.file_id, item["seq"])
        assert FILE.blob_id not in repr((item, events))
        found = await bob.store.files.find(FILE.file_id)
        assert found is not None and (found.file, found.fetched_at) == (FILE, None)


async def test_a_later_message_does_not_take_the_id_of_an_earlier_file(tmp_path: Path) -> None:
    """An id that another member repeats names no file any more, unless the message is named too."""
    async with host(tmp_path) as bob:
        bob.directory.apply([ALICE.listed(), BOB.listed(), CAROL.listed()])
        first = replace(parse_send({"to": "bob", "message": "one"}), attachments=(FILE,))
        other = replace(first, attachments=(replace(FILE, key=bytes(range(32)), name="other"),))
        await bob.take(delivery(ALICE, bob.directory, first))
        await bob.take(delivery(CAROL, bob.directory, other, 2))
        with pytest.raises(ProtocolError, match="file_id_ambiguous") as caught:
            await bob.store.files.find(FILE.file_id)
        message_ids = caught.value.fields["message_ids"]
        assert isinstance(message_ids, list)
        found = await bob.store.files.find(FILE.file_id, message_ids[0])
        assert found is not None and (found.file, found.sender_name) == (FILE, "alice")
        assert [one.file.name for one in await bob.store.files.page(None, 9)] == ["other", "build.log"]
        await bob.store.files.fetched(found.number, NOW)
        assert [one.item()["state"] for one in await bob.store.files.page(None, 9)] == [
            "announced",
            "fetched",
        ]


async def test_a_topic_post_says_its_topic(tmp_path: Path) -> None:
    """Topic bodies travel unsealed until topic keys exist."""
    async with host(tmp_path) as bob:
        request = parse_post({"topic": "news", "message": "hi"})
        [item] = await bob.take(delivery(ALICE, bob.directory, request))
        assert (item["kind"], item["topic"], item["body"]) == ("topic", "news", "hi")


def _changed(**changes: Any) -> Callable[[Deliver], Deliver]:
    return lambda good: replace(good, envelope={**good.envelope, **changes})


FORGERIES: dict[str, Callable[[Deliver], Deliver]] = {
    "another id": _changed(client_message_id="again"),
    "another priority": _changed(priority="now"),
    "another body": _changed(body="AAAA"),
    "a reply to something": _changed(reply_to_id="01HQXW5Z3Y8C6T0V9R4N2M7K1P"),
    "other mentions": _changed(mentions=[BOB.identity.ed25519_pubkey]),
    "another recipient": _changed(destination_ref=CAROL.identity.ed25519_pubkey),
    "a topic": _changed(destination_kind="topic", destination_ref="all"),
    "another sender": lambda good: replace(
        good, sender=replace(good.sender, member_id=BOB.member_id, name="bob")
    ),
    "not an envelope": lambda good: replace(good, envelope={"v": 1}),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_delivery_is_dropped_counted_and_never_shown(tmp_path: Path, forgery: str) -> None:
    """Neither the broker nor another member can change a sender, a destination, an id or a text."""
    async with host(tmp_path) as bob:
        good = delivery(ALICE, bob.directory)
        assert await bob.take(FORGERIES[forgery](good)) == []
        assert bob.receiver.invalid == 1
        assert bob.acked == [1]


def rewrapped(good: Deliver, by: Person, **changes: Any) -> Deliver:
    """Return an envelope signed by another sender around a delivery's ciphertext."""
    original = Envelope.parse(good.envelope)
    fields: dict[str, Any] = {
        "client_message_id": original.client_message_id,
        "destination_kind": original.destination_kind,
        "destination_ref": original.destination_ref,
        "reply_to_id": None,
        "priority": "next",
        "mentions": (),
        "body": original.body,
        "seal": original.seal._replace(sender_key_id=by.identity.key_id),
    }
    mesh_id = changes.pop("mesh_id", MESH_ID)
    envelope = build_envelope(identity=by.identity, mesh_id=mesh_id, **(fields | changes))
    sender = DeliverySender(by.member_id, by.name, by.identity.ed25519_pubkey)
    return replace(good, sender=sender, envelope=envelope.to_dict())


# As if its holder had handed over its x25519 key: otherwise mallory's envelope would not open at all.
MALLORY = replace(
    person("mallory"),
    identity=replace(
        person("mallory").identity,
        x25519_privkey=ALICE.identity.x25519_privkey,
        x25519_pubkey=ALICE.identity.x25519_pubkey,
    ),
)


async def test_a_captured_ciphertext_is_nobody_elses_message(tmp_path: Path) -> None:
    """Neither another sender's, nor the same sender's under another id; the true one is opened."""
    async with host(tmp_path) as bob:
        good = delivery(ALICE, bob.directory)
        alice = bob.directory.by_id(ALICE.member_id)
        assert alice is not None
        as_mallory = replace(alice, pubkey=MALLORY.identity.ed25519_pubkey)
        verifier = bob.receiver._verifier
        assert await verifier.open(rewrapped(good, MALLORY), as_mallory, 0) == Invalid("wrong_context")
        again = rewrapped(good, ALICE, client_message_id="again")
        assert await bob.take(again) == []
        assert bob.receiver.invalid == 1
        [item] = await bob.take(good)
        assert item["body"] == "hello"


@pytest.mark.parametrize("kind", ["topic", "queue"])
async def test_a_post_is_nobody_elses_and_belongs_to_one_topic(tmp_path: Path, kind: str) -> None:
    """In another topic the body does not open under the key, and the message is set aside."""
    async with host(tmp_path) as bob:
        mark = {"topic": "", "queue": "queue:"}[kind]
        good = delivery(ALICE, bob.directory, parse_post({"topic": f"{mark}news", "message": "hi"}))
        other = {"topic": "queue", "queue": "topic"}[kind]
        for wrong in (
            rewrapped(good, BOB),
            rewrapped(good, ALICE, client_message_id="again"),
            rewrapped(good, ALICE, destination_kind=other),
        ):
            assert await bob.take(wrong) == []
        assert bob.receiver.invalid == 3
        moved = rewrapped(good, ALICE, destination_ref="other", client_message_id="moved")
        items = await bob.take(good, moved)
        assert [(item["body"], item["unreadable"]) for item in items] == [
            ("hi", None),
            (None, "wrong_topic_key"),
        ]


async def test_a_body_of_an_older_version_is_opened_and_counted(tmp_path: Path) -> None:
    """It was sealed before the upgrade and says nothing of its envelope."""
    async with host(tmp_path) as bob:
        good = delivery(ALICE, bob.directory)
        shared = BoxKeys(ALICE.identity.x25519_privkey).shared(BOB.identity.x25519_pubkey)
        nonce = Envelope.parse(good.envelope).seal.nonce
        old = rewrapped(good, ALICE, body=seal_box(b'{"message":"old","meta":{"k":1}}', nonce, shared))
        [item] = await bob.take(old)
        assert (item["body"], item["meta"].value(), bob.without_context) == ("old", {"k": 1}, 1)


async def test_a_signature_by_a_key_that_was_signed_over_still_counts(tmp_path: Path) -> None:
    """It was sent before the sender changed its keys; a key that was not signed over proves nothing."""
    async with host(tmp_path) as bob:
        good = delivery(ALICE, bob.directory)
        new = replace(ALICE, identity=person("alice").identity)
        statement = make_rotation(ALICE.identity, new.identity, mesh_id=MESH_ID, rotated_at_ms=1)
        bob.directory.apply([new.listed(rotations=[statement.to_dict()])])
        stored = await bob.take(good)
        # Genuine; the box needs the older x25519 key, which the sender has given up.
        assert [item["sealed"] for item in stored] == [True]
        assert bob.receiver.invalid == 0


async def test_a_dropped_delivery_is_logged_once_for_its_reason_and_sender(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The count goes on."""
    async with host(tmp_path) as bob:
        good = delivery(ALICE, bob.directory)
        with caplog.at_level("WARNING"):
            for number in range(5):
                await bob.take(rewrapped(good, ALICE, client_message_id=f"again-{number}"))
        assert bob.receiver.invalid == 5
        assert sum("invalid_inbound" in record.getMessage() for record in caplog.records) == 1


async def test_a_message_that_a_revoked_member_sent_before_stays_and_a_later_one_is_dropped(
    tmp_path: Path,
) -> None:
    """The statement counts, also against a broker that takes messages of the revoked key."""
    async with host(tmp_path) as bob:
        bob.directory.apply([CAROL.listed(role="admin")])
        statement = sign_statement(
            CAROL.identity,
            "revocation",
            mesh_id=MESH_ID,
            subject=ALICE.member_id,
            at_ms=NOW,
            pubkey=ALICE.identity.ed25519_pubkey,
        )
        assert bob.directory.revoke(statement)
        before = delivery(
            ALICE, bob.directory, parse_send({"to": BOB.identity.ed25519_pubkey, "message": "1"})
        )
        later = delivery(
            ALICE, bob.directory, parse_send({"to": BOB.identity.ed25519_pubkey, "message": "2"})
        )
        later = replace(later, accepted_at=NOW + 1, delivery_id=2)
        assert [item["body"] for item in await bob.take(before, later)] == ["1"]
        # Neither comes again.
        assert sorted(bob.acked) == [1, 2]


def receipts_of(to: str, **changes: Any) -> SendRequest:
    """A message of receipts."""
    told = (Receipt(client_message_id="m", shown_at=NOW),)
    return replace(parse_send({"to": to, "message": ""}), receipts=told, **changes)


async def test_receipts_are_taken_and_no_inbox_shows_them(tmp_path: Path) -> None:
    """They are acknowledged behind their commit, and start no hook."""
    async with host(tmp_path) as bob:
        bob.hooks = ("on-dm",)
        post = replace(parse_post({"topic": "news", "message": ""}), receipts=receipts_of("bob").receipts)
        items = await bob.take(
            delivery(ALICE, bob.directory, receipts_of("bob")), delivery(ALICE, bob.directory, post, 2)
        )
        assert (items, bob.receipts, bob.woken) == ([], [(ALICE.member_id, "m")], 0)
        # A topic has no receipts: this one is dropped.
        assert (sorted(bob.acked), bob.receiver.invalid) == ([1, 2], 1)


async def test_receipts_that_cannot_be_written_stay_at_the_broker(tmp_path: Path) -> None:
    """They come again."""
    async with host(tmp_path) as bob:
        bob.disk_is_full = True
        bob.receiver.handle(1, delivery(ALICE, bob.directory, receipts_of("bob")))
        await bob.receiver.finish(30)
        assert (bob.acked, bob.receipts) == ([], [])


async def test_receipts_of_a_revoked_member_are_dropped(tmp_path: Path) -> None:
    """Those of before count."""
    async with host(tmp_path) as bob:
        bob.directory.apply([CAROL.listed(role="admin")])
        of_alice = {"subject": ALICE.member_id, "pubkey": ALICE.identity.ed25519_pubkey}
        statement = sign_statement(CAROL.identity, "revocation", mesh_id=MESH_ID, at_ms=NOW, **of_alice)
        assert bob.directory.revoke(statement)
        before = delivery(ALICE, bob.directory, receipts_of(BOB.identity.ed25519_pubkey))
        await bob.take(replace(before, accepted_at=NOW + 1))
        assert bob.receipts == []
        await bob.take(before)
        assert bob.receipts == [(ALICE.member_id, "m")]


async def test_receipts_that_came_before_their_key_are_taken_when_it_arrives(tmp_path: Path) -> None:
    """They leave the inbox then."""
    async with host(tmp_path) as bob:
        renewed = replace(ALICE, identity=_with_new_sealing_key(ALICE.identity))
        full = directory_of(tmp_path / "x", renewed, BOB)
        [item] = await bob.take(delivery(renewed, full, receipts_of("bob")))
        assert item["sealed"]
        bob.directory.apply([renewed.listed()])
        await bob.unsealer.open_all()
        assert bob.receipts == [(ALICE.member_id, "m")]
        assert (await bob.store.page())[0] == []


async def test_a_member_that_joined_a_moment_ago_is_looked_up(tmp_path: Path) -> None:
    """Its keys come from the directory before its first message is judged."""
    async with host(tmp_path) as bob:
        bob.newcomers = [CAROL.listed()]
        full = directory_of(tmp_path / "x", ALICE, BOB, CAROL)
        [item] = await bob.take(delivery(CAROL, full))
        assert (item["sender_name"], bob.refreshes) == ("carol", 1)


async def test_a_sender_that_cannot_be_looked_up_now_is_left_unacknowledged(tmp_path: Path) -> None:
    """The message comes again; it is neither shown unverified nor dropped."""
    async with host(tmp_path) as bob:
        bob.broker_away = True
        full = directory_of(tmp_path / "x", ALICE, BOB, CAROL)
        items = await bob.take(delivery(CAROL, full), delivery(ALICE, full, delivery_id=2))
        assert [item["sender_name"] for item in items] == ["alice"]
        assert bob.acked == [2]


async def test_a_body_sealed_to_a_key_that_is_not_here_is_kept_sealed(tmp_path: Path) -> None:
    """Genuine but not yet readable: stored, acknowledged, never dropped."""
    async with host(tmp_path) as bob:
        elsewhere = replace(BOB, identity=_with_new_sealing_key(BOB.identity))
        full = directory_of(tmp_path / "x", ALICE, elsewhere)
        [item] = await bob.take(delivery(ALICE, full))
        assert (item["body"], item["sealed"]) == (None, True)
        assert bob.acked == [1]
        sealed = await bob.store._db.run(lambda raw: raw.execute("SELECT id FROM inbox_sealed").fetchall())
        assert sealed == [(item["id"],)]


async def test_the_key_opens_whatever_the_broker_calls_it(tmp_path: Path) -> None:
    """The id of a key is not signed."""
    async with host(tmp_path) as bob:
        renamed = replace(BOB, identity=replace(BOB.identity, key_id=f"k_{new_ulid()}"))
        [item] = await bob.take(delivery(ALICE, directory_of(tmp_path / "x", ALICE, renamed)))
        assert item["body"] == "hello"


@asynccontextmanager
async def with_sealed(tmp_path: Path, *texts: str, **fields: Any) -> AsyncGenerator[tuple[Host, Unsealer]]:
    """Bob with messages of alice that she sealed with a new key, which his directory does not know yet."""
    async with host(tmp_path) as bob:
        bob.hooks = ("on-dm",)
        renewed = replace(ALICE, identity=_with_new_sealing_key(ALICE.identity))
        full = directory_of(tmp_path / "x", renewed, BOB)
        for number, text in enumerate(texts):
            request = parse_send({"to": "bob", "message": text, **fields})
            await bob.take(delivery(renewed, full, request, number + 1))
        yield bob, bob.unsealer


def _with_new_sealing_key(identity: Identity) -> Identity:
    secrets = iter([identity.ed25519_seed, bytes(range(32))])
    return new_identity(lambda size: next(secrets), identity.key_id)


async def test_a_sealed_message_is_opened_when_its_key_arrives(tmp_path: Path) -> None:
    """It is published to followers and hooks then, at a position that no follower has passed."""
    async with with_sealed(tmp_path, "first", "second") as (bob, unsealer):
        await bob.take(delivery(BOB, bob.directory, delivery_id=9))
        items, _ = await bob.store.page()
        assert [(item["body"], item["sealed"]) for item in items[:2]] == [(None, True)] * 2
        assert [item["body"] for item in await bob.store.replay(0, 9)] == ["hello"]
        assert [job.event["body"] for job in await bob.store.jobs.after(0, 9)] == ["hello"]
        await bob.store.mark([items[0]["id"]], "acked", 1)
        with bob.bus.subscribe() as stream:
            await unsealer.open_all()
            bob.directory.apply([replace(ALICE, identity=_with_new_sealing_key(ALICE.identity)).listed()])
            await unsealer.open_all()
            await unsealer.open_all()
            bob.bus.close()
            events = [(event.id, event.data["body"], event.data["sealed"]) async for event in stream]
        assert events == [("4", "first", False), ("5", "second", False)]
        replayed = await bob.store.replay(3, 9)
        assert [(item["seq"], item["body"], item["acked_at"]) for item in replayed] == [
            (4, "first", None),
            (5, "second", None),
        ]
        assert [job.event["body"] for job in await bob.store.jobs.after(0, 9)] == ["hello", "first", "second"]
        assert await bob.store.position() == 5
        await bob.take(delivery(BOB, bob.directory, delivery_id=10))
        assert [item["seq"] for item in await bob.store.replay(5, 9)] == [6]
        assert await bob.store.sealed.senders() == []


async def test_a_message_that_is_opened_late_is_a_turn_of_its_sessions(tmp_path: Path) -> None:
    """Of a loop, those beyond the limit wake no session, as if their key had been there."""
    texts = [f"thanks {number}" for number in range(MAX_TURNS + 1)]
    async with with_sealed(tmp_path, *texts, hops=1, from_session="web") as (bob, unsealer):
        unsealer.on_bodies(LoopGuard(ManualClock().monotonic, bob.directory).opened)
        bob.directory.apply([replace(ALICE, identity=_with_new_sealing_key(ALICE.identity)).listed()])
        await unsealer.open_all()
        items = await bob.store.replay(0, 9)
        assert [(item["body"], item["hops"]) for item in items] == [(text, 1) for text in texts]
        assert [item["in_loop"] for item in items] == [False] * MAX_TURNS + [True]


async def test_a_message_of_the_history_that_is_opened_later_is_a_new_one(tmp_path: Path) -> None:
    """No reader has seen its text."""
    async with with_sealed(tmp_path, "text") as (bob, unsealer):
        await bob.store.database.transaction(lambda raw: raw.execute("UPDATE inbox SET recovered = 1"))
        bob.directory.apply([replace(ALICE, identity=_with_new_sealing_key(ALICE.identity)).listed()])
        await unsealer.open_all()
        [item] = await bob.store.replay(0, 9)
        assert (item["body"], item["recovered"], item["acked_at"]) == ("text", False, None)


async def test_a_key_that_comes_between_the_attempt_and_the_commit_is_not_missed(tmp_path: Path) -> None:
    """The message is tried again with the key that is known by then."""
    renewed = replace(ALICE, identity=_with_new_sealing_key(ALICE.identity))
    async with host(tmp_path) as bob:

        async def before_the_commit() -> None:
            bob.directory.apply([renewed.listed()])
            bob.unsealer.directory_changed()
            await bob.unsealer.open_all()

        before_commit(bob, before_the_commit)
        full = directory_of(tmp_path / "x", renewed, BOB)
        await bob.take(delivery(renewed, full, parse_send({"to": "bob", "message": "text"})))
        await bob.unsealer.open_all()
        assert [item["body"] for item in await bob.store.replay(0, 9)] == ["text"]


async def test_a_topic_key_that_comes_between_the_attempt_and_the_commit_is_not_missed(
    tmp_path: Path,
) -> None:
    """The post is in no table yet when the key comes."""
    async with host(tmp_path) as bob:
        bob.topic_keys.is_missing = True

        async def before_the_commit() -> None:
            bob.topic_keys.is_missing = False
            bob.unsealer.topic_key_came("news")
            await bob.unsealer.open_all()

        # An earlier post of alice has been tried already.
        await bob.take(delivery(ALICE, bob.directory, parse_post({"topic": "news", "message": "first"})))
        await bob.unsealer.open_all()
        before_commit(bob, before_the_commit)
        post = parse_post({"topic": "news", "message": "second"})
        await bob.take(delivery(ALICE, bob.directory, post, delivery_id=2))
        await bob.unsealer.open_all()
        assert [item["body"] for item in await bob.store.replay(0, 9)] == ["first", "second"]


async def test_a_topic_key_that_comes_during_an_attempt_is_not_missed(tmp_path: Path) -> None:
    """A post that was tried without it is tried once more."""
    async with host(tmp_path) as bob:
        bob.topic_keys.is_missing = True
        await bob.take(delivery(ALICE, bob.directory, parse_post({"topic": "news", "message": "post"})))
        reopen = bob.unsealer._verifier.reopen

        async def slow_reopen(envelope: bytes, peer: Peer) -> OpenedBody | Invalid | None:
            found = await reopen(envelope, peer)
            if bob.topic_keys.is_missing:
                bob.topic_keys.is_missing = False
                bob.unsealer.topic_key_came("news")
            return found

        bob.unsealer._verifier.reopen = slow_reopen  # type: ignore[method-assign]
        await bob.unsealer.open_all()
        assert await bob.store.replay(0, 9) == []
        await bob.unsealer.open_all()
        assert [item["body"] for item in await bob.store.replay(0, 9)] == ["post"]


async def test_posts_of_several_senders_are_opened_in_the_order_of_their_acceptance(tmp_path: Path) -> None:
    """The keys of both epochs come after all of them; one sender went on with the older one for a while."""
    async with host(tmp_path) as bob:
        bob.topic_keys.is_missing = True
        for number, sender, key_epoch in ((3, ALICE, 1), (1, BOB, 1), (4, BOB, 2), (2, ALICE, 2)):
            post = parse_post({"topic": "news", "message": f"post {number}"})
            one = delivery(sender, bob.directory, post, delivery_id=number, key_epoch=key_epoch)
            await bob.take(replace(one, history_id=number))
        bob.topic_keys.is_missing = False
        bob.unsealer.topic_key_came("news")
        await bob.unsealer.open_all()
        bodies = [item["body"] for item in await bob.store.replay(0, 9)]
        assert bodies == ["post 1", "post 2", "post 3", "post 4"]


@pytest.mark.parametrize("comes_later", [False, True])
async def test_a_body_that_does_not_open_under_the_right_key_is_set_aside(
    tmp_path: Path, comes_later: bool
) -> None:
    """It is kept with its reason, counted, and not tried again."""
    async with host(tmp_path) as bob:
        wrong = Sealer(keyring_of(ALICE.identity), MESH_ID, os.urandom, BodyLimit(), OtherKey())
        request, one = parse_post({"topic": "news", "message": "x"}), new_ulid()
        envelope = wrong.seal(request, Destinations(bob.directory).resolve(request.target), (), one)
        good = delivery(ALICE, bob.directory, request)
        bob.topic_keys.is_missing = comes_later
        await bob.take(replace(good, envelope=envelope.to_dict()))
        bob.topic_keys.is_missing = False
        bob.unsealer.topic_key_came("news")
        await bob.unsealer.open_all()
        [item], _ = await bob.store.page(Selection(sealed=True))
        assert (item["body"], item["sealed"], item["unreadable"]) == (None, True, "wrong_topic_key")
        assert bob.acked == [1]
        assert await bob.store.sealed.senders() == []
        found = await bob.store.sealed.without_text()
        assert (found.waiting, found.since_ms, found.unreadable) == (0, None, 1)
        kept = await bob.store._db.run(lambda raw: raw.execute("SELECT id FROM inbox_sealed").fetchall())
        assert kept == [(item["id"],)]


class OtherKey(KeyOfEachTopic):
    """Has another key of each topic than the other members."""

    def _key(self, topic: str, key_epoch: int) -> TopicKey:
        return TopicKey(topic, key_epoch, bytes(32))


async def test_messages_that_wait_for_a_key_are_counted_and_listed(tmp_path: Path) -> None:
    """With the time since when."""
    async with host(tmp_path) as bob:
        bob.topic_keys.is_missing = True
        await bob.take(delivery(BOB, bob.directory))
        await bob.take(delivery(ALICE, bob.directory, parse_post({"topic": "news", "message": "x"})))
        [item], _ = await bob.store.page(Selection(sealed=True))
        assert (item["topic"], item["unreadable"]) == ("news", None)
        found = await bob.store.sealed.without_text()
        assert (found.waiting, found.unreadable) == (1, 0)
        assert found.since_ms is not None and iso_ms(found.since_ms) == item["received_at"]


def before_commit(bob: Host, act: Callable[[], Awaitable[None]]) -> None:
    """Do something once after messages were tried, and before they are stored."""
    store, insert = bob.receiver._store, bob.receiver._store.insert

    async def insert_later(rows: Sequence[InboxRow]) -> Any:
        store.insert = insert  # type: ignore[method-assign]
        await act()
        return await insert(rows)

    store.insert = insert_later  # type: ignore[method-assign]


async def test_a_message_pruned_from_the_inbox_is_not_shown_again(tmp_path: Path) -> None:
    """Its id is remembered for as long as the broker may deliver it again."""
    async with host(tmp_path) as bob:
        old = delivery(ALICE, bob.directory)
        [item] = await bob.take(old)
        assert await bob.store.prune(-1, 1, 10) == 1
        assert await bob.take(replace(old, delivery_id=2)) == []
        assert bob.acked == [1, 2]
        assert item["id"]


async def test_a_damaged_inbox_is_moved_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    """Receiving goes on; the old file is kept."""
    (tmp_path / "inbox.db").write_bytes(b"this is not a database" * 500)
    async with host(tmp_path) as bob:
        assert len(await bob.take(delivery(ALICE, bob.directory))) == 1
    assert len(list(tmp_path.glob("inbox.db.corrupt-*"))) == 1
