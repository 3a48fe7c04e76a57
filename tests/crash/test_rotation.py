"""Rotation of a member's keys survives a crash at each step, and loses no message in flight."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.support.audit import assert_contract, wait_done, wait_received
from tests.support.processes import Daemon, Mesh, mesh, until

STEPS = ["rotate.after_next", "rotate.after_archive", "rotate.after_broker", "rotate.after_keypair"]


def pubkey(daemon: Daemon) -> str:
    """Return the key that a daemon uses."""
    return str(daemon.request("GET", "/v1/whoami")[1]["member_pubkey"])


def rotate(daemon: Daemon) -> dict[str, Any]:
    """Rotate, and return the answer."""
    status, answer = daemon.request("POST", "/v1/keys/rotate", {})
    assert status in (200, 202), answer
    return dict(answer)


def kept(daemon: Daemon) -> list[str]:
    """Return the ed25519 keys in the archive on disk, oldest first."""
    path = daemon.root / "keypair-archive.json"
    keys = json.loads(path.read_text())["keys"] if path.exists() else []
    return [key["ed25519_pubkey"] for key in keys]


def known(daemon: Daemon, name: str) -> str:
    """Return the key under which a daemon knows a member."""
    peers = daemon.request("GET", "/v1/peers")[1]["items"]
    return next((str(peer["pubkey"]) for peer in peers if peer["name"] == name), "")


def settled(daemon: Daemon) -> None:
    """Wait until no rotation is pending on this host."""
    until(lambda: not (daemon.root / "keypair.next.json").exists(), "the rotation is finished")


def exchange(made: Mesh, suffix: str) -> None:
    """Send both ways, and see both arrive."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    assert alice.send("bob", "text", client_message_id=f"to-bob-{suffix}")[0] in (200, 202)
    assert bob.send("alice", "text", client_message_id=f"to-alice-{suffix}")[0] in (200, 202)
    wait_received(bob, [f"to-bob-{suffix}"])
    wait_received(alice, [f"to-alice-{suffix}"])


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_leaves_a_daemon_that_finishes_by_itself(step: str) -> None:
    """The next start asks the broker which key is current. Messages to the older key are opened."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        before = pubkey(alice)
        alice.stop()
        waiting = [f"waiting-{number}" for number in range(20)]
        for client_message_id in waiting:
            assert bob.send("alice", "for the older key", client_message_id=client_message_id)[0] in (
                200,
                202,
            )
        wait_done(bob, waiting)
        alice.start(f"{step}=kill")
        alice.ready()
        with pytest.raises(OSError):
            rotate(alice)
        alice.wait_killed()
        alice.start()
        alice.ready()
        settled(alice)
        assert pubkey(alice) != before
        assert kept(alice) == [before]
        until(lambda: known(bob, "alice") == pubkey(alice), "bob follows the rotation")
        wait_received(alice, waiting)
        exchange(made, "after")
        assert [item["body"] for item in alice.inbox()][:20] == ["for the older key"] * 20
        assert_contract(made, bob, [alice], [*waiting, "to-alice-after"])


def test_a_broker_that_dies_before_its_answer_leaves_a_rotation_that_goes_on() -> None:
    """The answer is `pending`. The hello by the older key tells the daemon that the broker has committed."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.broker.stop()
        made.broker.start("rotate.after_commit=kill")
        made.broker.ready()
        alice.ready()
        before = pubkey(alice)
        answer = rotate(alice)
        assert (answer["status"], answer["old_pubkey"]) == ("pending", before)
        made.broker.wait_killed()
        assert alice.send("bob", "meanwhile", client_message_id="meanwhile")[0] == 202
        made.broker.start()
        made.broker.ready()
        settled(alice)
        assert pubkey(alice) == answer["pubkey"]
        wait_received(bob, ["meanwhile"])
        exchange(made, "after")


def test_sends_in_flight_are_neither_lost_nor_doubled_by_rotations() -> None:
    """Rows that an older key has signed are accepted under the newer one, also two rotations on."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        ids = []
        for round_ in range(3):
            for number in range(40):
                ids.append(f"send-{round_}-{number}")
                assert alice.send("bob", "text", client_message_id=ids[-1])[0] in (200, 202)
            assert rotate(alice)["status"] == "rotated"
            rotate(bob)
        # The result of these was lost with the link: they are offered again under the newest key.
        made.broker.kill()
        late = [f"late-{number}" for number in range(10)]
        for client_message_id in late:
            assert alice.send("bob", "text", client_message_id=client_message_id)[0] == 202
        made.broker.start()
        made.broker.ready()
        alice.ready()
        rotate(alice)
        for client_message_id in late:
            assert alice.send("bob", "text", client_message_id=client_message_id)[0] in (200, 202)
        wait_done(alice, [*ids, *late])
        wait_received(bob, [*ids, *late])
        assert_contract(made, alice, [bob], [*ids, *late])


def test_hosts_that_were_away_follow_two_rotations() -> None:
    """They open what was signed by keys that they never saw, and their sends to the older key arrive."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        assert alice.send("bob", "text", client_message_id="known")[0] in (200, 202)
        wait_received(bob, ["known"])
        bob.stop()
        for number in range(2):
            assert alice.send("bob", "text", client_message_id=f"before-{number}")[0] in (200, 202)
            wait_done(alice, [f"before-{number}"])
            assert rotate(alice)["status"] == "rotated"
        assert alice.send("bob", "text", client_message_id="last")[0] in (200, 202)
        wait_done(alice, ["last"])
        made.broker.stop()
        bob.start()
        bob.ready(connected=False)
        assert bob.send("alice", "to the older key", client_message_id="older")[0] == 202
        made.broker.start()
        made.broker.ready()
        wait_received(bob, ["before-0", "before-1", "last"])
        wait_received(alice, ["older"])
        assert alice.inbox()[-1]["body"] == "to the older key"
        assert {item["body"] for item in bob.inbox()} == {"text"}


def test_a_member_that_has_never_seen_the_older_keys_opens_what_they_have_sealed() -> None:
    """The sender rotates between the join and the first start: the chain has the older keys."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        bob = made.add("bob")
        until(lambda: known(alice, "bob"), "alice knows bob")
        assert alice.send("bob", "sealed by the older key", client_message_id="older")[0] in (200, 202)
        wait_done(alice, ["older"])
        rotate(alice)
        bob.start()
        bob.ready()
        wait_received(bob, ["older"])
        assert bob.inbox()[-1]["body"] == "sealed by the older key"


def key_files(daemon: Daemon) -> dict[str, bytes]:
    """The files with keys of a member, by name."""
    return {path.name: path.read_bytes() for path in daemon.root.glob("keypair*")}


def test_without_a_broker_a_rotation_changes_nothing() -> None:
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        before = key_files(alice)
        made.broker.stop()
        until(lambda: not alice.request("GET", "/v1/health")[1]["connected"], "the link is down")
        status, answer = alice.request("POST", "/v1/keys/rotate", {})
        assert (status, answer["error"]) == (503, "broker_unavailable")
        assert key_files(alice) == before


def test_an_older_copy_of_the_keys_is_told_that_they_were_rotated() -> None:
    """The broker knows the current key; the daemon says so and names the way out."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        copy = (alice.root / "keypair.json").read_bytes()
        rotate(alice)
        alice.stop()
        (alice.root / "keypair.json").write_bytes(copy)
        alice.start()
        assert alice.ended() == 77
        assert "daemon remint" in alice.log.read_text()


def test_a_broker_restored_from_before_two_rotations_takes_them_again() -> None:
    """The statements prove themselves: no invite and no other member is needed, and pins stay as they are."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.broker.stop()
        copy = made.root / "copy"
        shutil.copytree(made.broker.data, copy)
        made.broker.start()
        made.broker.ready()
        alice.ready()
        for _ in range(2):
            assert rotate(alice)["status"] == "rotated"
        until(lambda: known(bob, "alice") == pubkey(alice), "bob follows the rotations")
        made.broker.kill()
        shutil.rmtree(made.broker.data)
        shutil.copytree(copy, made.broker.data)
        made.broker.start()
        made.broker.ready()
        alice.ready()
        exchange(made, "after")
        assert known(bob, "alice") == pubkey(alice)


def test_a_send_waits_for_a_member_whose_rotation_a_restored_broker_has_lost() -> None:
    """The recipient's daemon is away: only it can put the rotation back, and the send lives until then."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.broker.stop()
        copy = made.root / "copy"
        shutil.copytree(made.broker.data, copy)
        made.broker.start()
        made.broker.ready()
        alice.ready()
        assert rotate(alice)["status"] == "rotated"
        until(lambda: known(bob, "alice") == pubkey(alice), "bob follows the rotation")
        newest = pubkey(alice)
        alice.stop()
        made.broker.kill()
        shutil.rmtree(made.broker.data)
        shutil.copytree(copy, made.broker.data)
        made.broker.start()
        made.broker.ready()
        bob.ready()
        assert bob.send("alice", "text", client_message_id="waits")[0] in (200, 202)
        until(lambda: bob.outbox()["waits"]["attempts"] > 0, "the broker has refused it once")
        assert bob.outbox()["waits"]["status"] in ("pending", "inflight")
        alice.start()
        wait_done(bob, ["waits"])
        wait_received(alice, ["waits"])
        assert known(bob, "alice") == newest
