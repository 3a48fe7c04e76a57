"""A message that cannot be opened yet survives until its key arrives, also when any process is killed
meanwhile."""

from __future__ import annotations

import json
import secrets

import pytest

from claudemesh.protocol.keys import new_identity
from tests.support.audit import wait_received
from tests.support.cli import run
from tests.support.processes import Daemon, mesh, until


def other_box(daemon: Daemon) -> str:
    """Give this host another x25519 key, and return the file with the one that it had."""
    path = daemon.root / "keypair.json"
    before = path.read_text()
    secret = iter([bytes.fromhex(json.loads(before)["ed25519_seed"]), secrets.token_bytes(32)])
    other = new_identity(lambda size: next(secret), json.loads(before)["key_id"])
    path.write_text(json.dumps({"schema_version": 1, **other.to_json()}))
    return before


@pytest.mark.parametrize("failpoint", ["", "unseal.before_commit=kill", "unseal.after_commit=kill"])
def test_a_message_sealed_to_a_key_that_comes_later_reaches_followers_once(failpoint: str) -> None:
    """Listed as sealed until then; it is opened at the start with the key, also after a crash within that."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        bob.stop()
        known = other_box(bob)
        bob.start()
        bob.ready()
        sealed = alice.send("bob", "for later")[1]["client_message_id"]
        wait_received(bob, [sealed], opened=False)
        (item,) = bob.inbox()
        assert (item["body"], item["sealed"]) == (None, True)
        assert "encrypted for a key that is not on this host yet" in run(bob.home, "inbox").out
        position = item["seq"]
        bob.stop()
        (bob.root / "keypair.json").write_text(known)
        bob.start(failpoint)
        if failpoint:
            bob.wait_killed()
            bob.start()
        bob.ready()
        shown = until(lambda: [item for item in bob.inbox() if not item["sealed"]], "it is opened")
        assert [(item["body"], item["seq"] > position) for item in shown] == [("for later", True)]
        assert run(bob.home, "listen", "--since", str(position), "--one").json["body"] == "for later"
        again = alice.send("bob", "and another")[1]["client_message_id"]
        wait_received(bob, [again])
        assert [item["body"] for item in bob.inbox()] == ["for later", "and another"]
