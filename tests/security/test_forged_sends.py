"""A send whose signature does not hold is not accepted: the answer says so, and nothing is kept of it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.signing import sign_envelope
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.processes import mesh, until
from tests.support.wspeer import Frame, make_identity


@pytest.mark.parametrize("kind", ["dm", "topic", "queue"])
async def test_a_forged_send_is_refused_and_its_id_stays_free(kind: str) -> None:
    """Between good sends on the same connection: those are accepted, and the forged one is delivered to no
    member."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        mallory = make_identity()

        def envelope(text: str, **changes: str) -> Frame:
            if kind == "dm":
                return ada.envelope(bob, text, **changes)
            name = "jobs" if kind == "queue" else "all"
            return ada.envelope(name, text, destination_kind=kind, **changes)

        good = envelope("good", client_message_id="one")
        part = Envelope.parse(good).signed_part()
        by_mallory = to_base64(sign_envelope(mallory, ada.mesh_id, part))
        elsewhere = to_base64(sign_envelope(ada.identity, "another-mesh", part))
        other = envelope("good", client_message_id="two")["signature"]
        async with ada.connect() as link, bob.connect() as recipient:
            if kind == "queue":
                await link.call("topic_create", topic="jobs", mode="queue")
                await recipient.call("topic_subscribe", topic="jobs")
            for number, signature in enumerate((by_mallory, elsewhere, other)):
                sent = await link.request(envelope(f"before {number}"))
                assert sent["status"] == 201
                answer = await link.request(good | {"signature": signature})
                assert (answer["status"], answer["error"]) == (400, "invalid_envelope")
                assert "signature" in answer["message"]
            reply = await link.call("send_status", client_message_ids=["one"])
            assert not reply["ok"]["items"]["one"]["known"]
            assert (await link.request(good))["status"] == 201
            # A retry of an accepted send is answered from its row, for any content.
            assert (await link.request(good | {"signature": by_mallory}))["status"] == 200
            deliveries = await recipient.deliveries(4)
            assert deliveries[-1]["envelope"] == good


async def test_a_forged_send_among_many_is_refused_alone() -> None:
    """A batch is verified together: each is answered for itself, and the order stays."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        sends = [ada.envelope(bob, f"number {number}") for number in range(200)]
        forged = range(3, 200, 7)
        for number in forged:
            sends[number] = sends[number] | {"signature": sends[number - 1]["signature"]}
        async with ada.connect() as link, bob.connect() as recipient:
            requests = [await link.send(envelope) for envelope in sends]
            answers = [await link.result(request) for request in requests]
            refused = [number for number, answer in enumerate(answers) if answer["status"] != 201]
            assert refused == list(forged)
            assert {answers[number]["error"] for number in forged} == {"invalid_envelope"}
            good = [envelope for number, envelope in enumerate(sends) if number not in forged]
            got = []
            while len(got) < len(good):
                deliveries = await recipient.deliveries(1)
                await recipient.acknowledge(deliveries)
                got += [delivery["envelope"] for delivery in deliveries]
            assert got == good


def test_a_row_signed_with_keys_that_were_replaced_ends_visibly_and_can_be_requeued() -> None:
    """Otherwise the broker says 201 and every recipient drops it."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        made.broker.kill()
        assert alice.send("bob", "hello", client_message_id="stuck")[0] == 202
        alice.stop()
        with closing(sqlite3.connect(alice.root / "outbox.db")) as database, database:
            [raw] = database.execute("SELECT payload FROM outbox").fetchone()
            envelope = json.loads(raw)
            forged = sign_envelope(make_identity(), "mesh", Envelope.parse(envelope).signed_part())
            raw = json.dumps(envelope | {"signature": to_base64(forged)}).encode()
            database.execute("UPDATE outbox SET payload = ?", (raw,))
        made.broker.start()
        made.broker.ready()
        alice.start()
        alice.ready()
        until(lambda: alice.outbox()["stuck"]["status"] == "dead", "the row is dead")
        assert alice.outbox()["stuck"]["last_error"].startswith("invalid_envelope")
        row = alice.outbox()["stuck"]
        status, answer = alice.request("POST", f"/v1/outbox/{row['id']}/requeue")
        assert status == 200, answer
        until(lambda: [item["body"] for item in bob.inbox()] == ["hello"], "bob has it")
