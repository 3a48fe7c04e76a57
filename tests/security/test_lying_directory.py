"""A broker that lies about its members' keys: it is refused what the owners of the keys did not sign.

The lies are told by a real broker whose database was changed.
"""

from __future__ import annotations

import json
import sqlite3
from base64 import b64decode
from contextlib import closing
from typing import Any

import pytest

from claudemesh.protocol.keys import Identity
from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.wspeer import make_identity


def lie(made: Mesh, statement: str, *values: Any) -> None:
    """Change the broker's database, and let every daemon read its list again."""
    made.broker.stop()
    with closing(sqlite3.connect(made.broker.data / "broker.db")) as database, database:
        assert database.execute(statement, values).rowcount == 1
    made.broker.start()
    made.broker.ready()
    for daemon in made.daemons.values():
        if daemon.running:
            daemon.ready()


def keys(daemon: Daemon) -> dict[str, str]:
    """A member's key file."""
    value: dict[str, str] = json.loads((daemon.root / "keypair.json").read_bytes())
    return value


def degraded(daemon: Daemon) -> dict[str, str]:
    """The conditions that a daemon shows."""
    _, health = daemon.request("GET", "/v1/health")
    return {item["code"]: item["message"] for item in health["degraded"]}


def test_a_message_to_a_key_is_not_sealed_to_whom_the_broker_names_as_its_heir() -> None:
    """The holder of the key has signed no rotation."""
    stranger = make_identity()
    with mesh("alice", "bob") as made:
        alice = made.daemons["alice"]
        # A host that reads the whole list.
        alice.stop()
        (alice.root / "peers.json").unlink()
        lie(
            made,
            "INSERT INTO member_key"
            " (key_id, mesh_id, member_id, ed25519_pubkey, x25519_pubkey, state, created_at)"
            " SELECT ?, mesh_id, id, ?, ?, 'rotated_out', 1 FROM member WHERE name = 'bob'",
            *(stranger.key_id, stranger.ed25519_pubkey, stranger.x25519_pubkey),
        )
        alice.start()
        alice.ready()
        until(lambda: "earlier_keys_without_proof" in alice.log.read_text(), "the claim was read")
        status, answer = alice.send(stranger.ed25519_pubkey, "for the holder of this key only")
        assert (status, answer["error"]) == (404, "destination_not_found")
        assert alice.send("bob", "still here")[0] == 202
        until(lambda: [item["body"] for item in made.daemons["bob"].inbox()] == ["still here"], "bob has it")


def test_a_member_that_is_shown_with_another_key_gets_nothing_by_its_name() -> None:
    """The send is refused with the reason, the condition is shown, and both end with the lie."""
    forger = make_identity()
    change = (
        "UPDATE member SET ed25519_pubkey = ?, x25519_pubkey = ?, x25519_signature = ?, key_id = ?"
        " WHERE name = 'bob'"
    )
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        true = keys(bob)
        bob.stop()
        forged = (forger.ed25519_pubkey, forger.x25519_pubkey, forger.x25519_signature, forger.key_id)
        lie(made, change, *forged)
        until(lambda: "directory_refused" in degraded(alice), "the lie is shown")
        assert "bob" in degraded(alice)["directory_refused"]
        status, answer = alice.send("bob", "a secret", client_message_id="one")
        assert (status, answer["error"], answer["shown_pubkey"]) == (
            409,
            "key_changed",
            forger.ed25519_pubkey,
        )
        # A key means that key.
        assert alice.send(true["ed25519_pubkey"], "to the key")[0] == 202
        assert "directory_refused" in run(alice.home, "doctor").out
        own = (true["x25519_pubkey"], bytes.fromhex(true["x25519_signature"]), true["key_id"])
        lie(made, change, true["ed25519_pubkey"], *own)
        until(lambda: "directory_refused" not in degraded(alice), "the truth ends it")
        assert alice.send("bob", "a secret", client_message_id="one")[0] == 202


def test_a_member_with_the_sealing_key_of_another_is_not_used() -> None:
    """The holder of that key could read messages sealed to the other; the first member stays as it is."""
    with mesh("alice", "bob", "mallory") as made:
        alice = made.daemons["alice"]
        bob, mallory = keys(made.daemons["bob"]), keys(made.daemons["mallory"])
        # Mallory signs bob's x25519 key for its own.
        signer = Identity.from_json(mallory)
        binding = b"\0".join(
            (b"claudemesh-x25519-v1", signer.ed25519_pubkey.encode(), bob["x25519_pubkey"].encode())
        )
        alice.stop()
        (alice.root / "peers.json").unlink()
        lie(
            made,
            "UPDATE member SET x25519_pubkey = ?, x25519_signature = ? WHERE name = 'mallory'",
            bob["x25519_pubkey"],
            signer.sign(binding),
        )
        alice.start()
        alice.ready()
        until(lambda: "directory_refused" in degraded(alice), "the lie is shown")
        assert alice.send("mallory", "x")[1]["error"] == "sealing_key_taken"
        assert alice.send("bob", "still here")[0] == 202


@pytest.mark.parametrize("hidden", [False, True], ids=["exchanged", "hidden"])
def test_a_host_that_has_just_joined_knows_its_inviters_key(hidden: bool) -> None:
    """The first list of all cannot put another key under the inviter's name."""
    forger = make_identity()
    with mesh("alice", start=False) as made:
        bob = made.add("bob")
        forged = (forger.ed25519_pubkey, forger.x25519_pubkey, forger.x25519_signature, forger.key_id)
        change = "ed25519_pubkey = ?, x25519_pubkey = ?, x25519_signature = ?, key_id = ?"
        if hidden:
            # The list shows another member under the name.
            change += ", id = '00000000-0000-4000-8000-000000000000'"
        made.broker.stop()
        with closing(sqlite3.connect(made.broker.data / "broker.db")) as database, database:
            database.execute("PRAGMA foreign_keys = OFF")
            database.execute(f"UPDATE member SET {change} WHERE name = 'alice'", forged)
        made.broker.start()
        made.broker.ready()
        bob.start()
        bob.ready(connected=False)
        until(lambda: "inviter_unlisted" in degraded(bob), "the missing inviter is shown")
        until(lambda: "directory_refused" in degraded(bob), "the refusal is shown")
        status, answer = bob.send("alice", "a secret")
        assert (status, answer["error"]) == (409, "name_rebound" if hidden else "key_changed")


def test_an_honest_mesh_shows_nothing_of_this() -> None:
    """Neither the inviter nor a newcomer is doubted."""
    with mesh("alice", "bob") as made:
        link = json.loads(made.cli(made.daemons["alice"], "invite", "create", "--json"))["invite"]
        payload = link.rpartition("/")[2]
        invite = json.loads(b64decode(payload + "=" * (-len(payload) % 4), altchars=b"-_"))
        assert invite["introduction"]["name"] == "alice"
        for one, other in (("alice", "bob"), ("bob", "alice")):
            assert made.daemons[one].send(other, "hello")[0] == 202
            until(made.daemons[other].inbox, "it has arrived")
            assert degraded(made.daemons[one]) == {}
