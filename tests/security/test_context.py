"""A ciphertext means nothing in another envelope, in whichever hands it is."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from claudemesh.protocol.envelope import Envelope, Seal, build_envelope
from claudemesh.protocol.keys import Identity
from claudemesh.protocol.sealing import BoxKeys, seal_box
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.wspeer import Peer, new_id


def member(daemon: Daemon) -> Peer:
    """The member that a daemon is, to be driven by hand."""
    membership = json.loads((daemon.root / "membership.json").read_bytes())
    identity = Identity.from_json(json.loads((daemon.root / "keypair.json").read_bytes()))
    names = ("name", "mesh_id", "slug", "member_id", "broker_url")
    return Peer(identity=identity, **{name: membership[name] for name in names})


def metric(daemon: Daemon, name: str) -> float:
    """The value of a metric without labels."""
    connection = daemon.connection()
    with closing(connection):
        connection.request("GET", "/v1/metrics")
        text = connection.getresponse().read().decode()
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


async def test_a_message_sent_back_by_its_recipient_is_not_shown_as_the_recipients() -> None:
    """Both ends of a box share one key, so the box itself opens; it says whose and for whom it was made."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        bob.stop()
        hand = member(bob)
        assert alice.send("bob", "I owe you 100", client_message_id="debt")[0] == 202
        async with hand.connect() as link:
            [taken] = await link.deliveries(1)
            original = Envelope.parse(taken["envelope"])

            def turned(client_message_id: str, **changes: Any) -> dict[str, Any]:
                fields: dict[str, Any] = {
                    "client_message_id": client_message_id,
                    "destination_kind": "dm",
                    "destination_ref": member(alice).pubkey,
                    "reply_to_id": None,
                    "priority": "next",
                    "mentions": (),
                    "body": original.body,
                    "seal": Seal(
                        "box",
                        original.seal.nonce,
                        hand.identity.key_id,
                        member(alice).identity.key_id,
                    ),
                }
                return build_envelope(
                    identity=hand.identity, mesh_id=hand.mesh_id, **(fields | changes)
                ).to_dict()

            for client_message_id in ("debt", "another"):
                assert (await link.request(turned(client_message_id)))["status"] == 201
            until(lambda: metric(alice, "cm_daemon_invalid_inbound_total") == 2, "both were refused")
            assert alice.inbox() == []
            assert alice.log.read_text().count("wrong_context") == 1
            # A body that its sender seals without a context, as older versions do, is opened and counted.
            shared = BoxKeys(hand.identity.x25519_privkey).shared(member(alice).identity.x25519_pubkey)
            old = seal_box(b'{"message":"from an older version","meta":null}', original.seal.nonce, shared)
            assert (await link.request(turned("old", body=old)))["status"] == 201
            until(lambda: alice.inbox(), "alice has it")
            assert [item["body"] for item in alice.inbox()] == ["from an older version"]
            assert metric(alice, "cm_daemon_bodies_without_context_total") == 1


def as_an_older_version_sealed(made: Mesh, client_message_id: str) -> None:
    """Put the row of a stopped daemon into the form in which version 0.1.0 froze it."""
    alice, bob = member(made.daemons["alice"]), member(made.daemons["bob"])
    shared = BoxKeys(alice.identity.x25519_privkey).shared(bob.identity.x25519_pubkey)
    nonce = bytes(range(24))
    body = seal_box(b'{"message":"frozen before the upgrade","meta":{"k":[1]}}', nonce, shared)
    seal = Seal("box", nonce, alice.identity.key_id, bob.identity.key_id)
    envelope = build_envelope(
        identity=alice.identity,
        mesh_id=alice.mesh_id,
        client_message_id=client_message_id,
        destination_kind="dm",
        destination_ref=bob.pubkey,
        reply_to_id=None,
        priority="next",
        mentions=(),
        body=body,
        seal=seal,
    )
    path = made.daemons["alice"].root / "outbox.db"
    with closing(sqlite3.connect(path)) as database, database:
        changed = database.execute(
            "UPDATE outbox SET payload = ? WHERE client_message_id = ?",
            (envelope.encode(), client_message_id),
        )
        assert changed.rowcount == 1


def test_a_send_that_was_accepted_before_the_upgrade_arrives_and_can_be_requeued() -> None:
    """It is frozen, so it is sent unchanged; under a new id it is sealed again."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        made.broker.kill()
        names = [f"old-{new_id()}" for _ in range(2)]
        for name in names:
            assert alice.send("bob", "to be replaced", client_message_id=name)[0] == 202
        alice.stop()
        for name in names:
            as_an_older_version_sealed(made, name)
        alice.start()
        alice.ready(connected=False)
        status, answer = alice.request(
            "POST", f"/v1/outbox/{names[1]}/requeue", {"new_client_message_id": "new"}
        )
        assert status == 200, answer
        with closing(sqlite3.connect(alice.root / "outbox.db")) as database:
            [fresh] = database.execute(
                "SELECT payload FROM outbox WHERE client_message_id = 'new'"
            ).fetchone()
        made.broker.start()
        made.broker.ready()
        until(lambda: len(bob.inbox()) == 2, "bob has both")
        assert {item["client_message_id"] for item in bob.inbox()} == {names[0], "new"}
        for item in bob.inbox():
            assert (item["body"], item["meta"]) == ("frozen before the upgrade", {"k": [1]})
        assert metric(bob, "cm_daemon_bodies_without_context_total") == 1
        assert Envelope.decode(fresh).seal.nonce != bytes(range(24))
