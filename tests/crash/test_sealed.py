"""A message that cannot be opened yet survives until its key is here, whatever dies meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claudemesh.protocol.ids import UlidFactory
from tests.support.audit import wait_received
from tests.support.cli import run
from tests.support.processes import Daemon, mesh, until

new_ulid = UlidFactory(lambda: 0, bytes).new


def rename_key(daemon: Daemon, key_id: str) -> str:
    """Give this host's key another id, and return the one that it had."""
    path = daemon.root / "keypair.json"
    keys: dict[str, Any] = json.loads(path.read_text())
    before, keys["key_id"] = keys["key_id"], key_id
    path.write_text(json.dumps(keys))
    return str(before)


@pytest.mark.parametrize("failpoint", ["", "unseal.before_commit=kill", "unseal.after_commit=kill"])
def test_a_message_sealed_to_a_key_that_comes_later_reaches_followers_once(failpoint: str) -> None:
    """Listed as sealed until then; it is opened at the start with the key, also after a crash within that."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        bob.stop()
        known = rename_key(bob, f"k_{new_ulid()}")
        bob.start()
        bob.ready()
        sealed = alice.send("bob", "for later")[1]["client_message_id"]
        wait_received(bob, [sealed])
        (item,) = bob.inbox()
        assert (item["body"], item["sealed"]) == (None, True)
        assert "sealed to a key that is not on this host yet" in run(bob.home, "inbox").out
        position = item["seq"]
        bob.stop()
        rename_key(bob, known)
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
