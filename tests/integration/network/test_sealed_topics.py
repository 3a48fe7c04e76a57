"""Posts and jobs are sealed with the key of their topic: the broker can read none of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from claudemesh.home.topic_keyring import parse_keys
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.topic_keys import TopicKey, open_secret
from tests.support.living import files_in
from tests.support.processes import Daemon, Mesh, mesh, until

CANARY = "canary-7f3a-of-this-test"


@pytest.fixture
def team() -> Generator[Mesh]:
    """Alice, bob and carol, all connected."""
    with mesh("alice", "bob", "carol") as made:
        yield made


def subscribed(made: Mesh, topic: str, *names: str, mode: str = "topic") -> None:
    """Make a topic and subscribe members."""
    first = made.daemons[names[0]]
    assert first.request("POST", "/v1/topic/create", {"topic": topic, "mode": mode})[0] in (200, 201)
    for name in names:
        assert made.daemons[name].request("POST", "/v1/topic/subscribe", {"topic": topic})[0] == 200


def bodies(daemon: Daemon) -> list[str]:
    """The texts of an inbox, None for one that is sealed still."""
    return [item["body"] for item in daemon.inbox()]


def done(daemon: Daemon) -> bool:
    """Whether every send is with the broker."""
    return all(row["status"] == "done" for row in daemon.outbox().values())


def keys_of(daemon: Daemon) -> list[int]:
    """The epochs of which a daemon holds keys on disk."""
    path = daemon.root / "topic_keys.json"
    return [one["key_epoch"] for one in json.loads(path.read_bytes())["keys"]] if path.exists() else []


def held_by(folder: Path) -> list[TopicKey]:
    """The topic keys in the files of a member."""
    path = folder / "topic_keys.json"
    mesh_id = json.loads((folder / "membership.json").read_bytes())["mesh_id"]
    return [one.key for one in parse_keys(path.read_bytes(), mesh_id)]


def stored_post(made: Mesh, client_message_id: str) -> Envelope:
    """The envelope of a post as the broker keeps it."""
    with closing(sqlite3.connect(made.broker.data / "broker.db")) as raw:
        rows = raw.execute("SELECT envelope FROM topic_message").fetchall()
    found = [Envelope.decode(bytes(row[0])) for row in rows]
    [envelope] = [one for one in found if one.client_message_id == client_message_id]
    return envelope


def opens(envelope: Envelope, keys: list[TopicKey]) -> bool:
    """Whether one of these keys opens a post, of any epoch."""
    for one in keys:
        with suppress(ProtocolError):
            open_secret(envelope.body, envelope.seal.nonce, one.key)
            return True
    return False


def disk_of(folder: Path) -> bytes:
    """All bytes of the files below a folder."""
    return b"".join(path.read_bytes() for path in files_in(folder))


def test_the_broker_keeps_no_byte_of_a_post_or_a_job(team: Mesh) -> None:
    """Nor of their meta; the members read them."""
    alice, bob, carol = (team.daemons[name] for name in ("alice", "bob", "carol"))
    subscribed(team, "news", "bob", "carol")
    subscribed(team, "work", "bob", mode="queue")
    alice.post("news", CANARY, meta={"note": CANARY})
    alice.send("queue:work", CANARY)
    until(lambda: bodies(bob) == [CANARY, CANARY], "bob reads both")
    until(lambda: bodies(carol) == [CANARY], "carol reads the post")
    until(lambda: done(alice), "the sends are done")
    for daemon in (alice, bob, carol):
        daemon.stop()
    team.broker.stop()
    assert CANARY.encode() not in disk_of(team.broker.data)


def test_a_post_of_a_host_that_is_offline_is_sealed_before_it_leaves(team: Mesh) -> None:
    """It was accepted without a key, and waits for it."""
    alice, bob = team.daemons["alice"], team.daemons["bob"]
    subscribed(team, "news", "bob")
    until(lambda: alice.post("news", "a first one")[0] == 202, "alice knows the topic")
    until(lambda: bodies(bob) == ["a first one"], "bob reads it")
    alice.stop()
    (alice.root / "topic_keys.json").unlink()
    team.broker.stop()
    alice.start()
    alice.ready(connected=False)
    assert alice.post("news", CANARY)[0] == 202
    [row] = [row for row in alice.outbox().values() if row["status"] == "pending"]
    assert (row["waiting_for"], row["next_attempt_at"]) == ("topic_key", None)
    team.broker.start()
    until(lambda: bodies(bob)[-1] == CANARY, "bob reads it")
    team.broker.stop()
    assert CANARY.encode() not in disk_of(team.broker.data)


def test_a_host_that_is_killed_while_it_seals_a_post_seals_it_at_the_next_start(team: Mesh) -> None:
    """The post arrives once."""
    alice, bob = team.daemons["alice"], team.daemons["bob"]
    subscribed(team, "news", "bob")
    until(lambda: alice.request("GET", "/v1/topic/list")[1]["items"], "alice knows the topic")
    alice.stop()
    team.broker.stop()
    alice.start("seal.before_commit=kill")
    alice.ready(connected=False)
    assert alice.post("news", CANARY)[0] == 202
    team.broker.start()
    alice.wait_killed()
    alice.start()
    until(lambda: bodies(bob) == [CANARY], "bob reads it")
    until(lambda: done(alice), "it is done")
    assert bodies(bob) == [CANARY]


def test_a_subscriber_that_was_away_opens_the_posts_of_each_epoch(team: Mesh) -> None:
    """A post that was sealed before these epochs, and leaves after them, is sealed again under its id."""
    alice, bob, carol = (team.daemons[name] for name in ("alice", "bob", "carol"))
    subscribed(team, "news", "alice", "bob", "carol")
    alice.post("news", "post 1")
    until(lambda: bodies(bob) == bodies(carol) == ["post 1"], "both read it")
    bob.stop()
    team.broker.stop()
    assert alice.post("news", "late", client_message_id="late")[0] == 202
    assert alice.outbox()["late"]["waiting_for"] is None
    alice.stop()
    team.broker.start()
    for number in (2, 3, 4):
        until(
            lambda: carol.request("POST", "/v1/topic/rekey", {"topic": "news"})[0] == 200, "it is asked for"
        )
        until(lambda least=number: max(keys_of(carol)) >= least, "the next epoch is made")
        assert carol.post("news", f"post {number}")[0] == 202
        until(lambda: done(carol), "the post is done")
    alice.start()
    until(lambda: done(alice), "the late one is done")
    assert (stored_post(team, "late").seal.key_epoch or 0) > 1
    bob.start()
    expected = {"post 1", "post 2", "post 3", "post 4", "late"}
    until(lambda: set(bodies(bob)) == expected, "bob reads all of them")


def test_what_is_sent_after_a_member_has_left_a_topic_is_sealed_with_another_key(team: Mesh) -> None:
    """The member that has unsubscribed holds no key of the new epoch."""
    alice, bob, carol = (team.daemons[name] for name in ("alice", "bob", "carol"))
    subscribed(team, "news", "bob", "carol")
    alice.post("news", "for both")
    until(lambda: bodies(bob) == ["for both"] and bodies(carol) == ["for both"], "both read it")
    assert carol.request("POST", "/v1/topic/unsubscribe", {"topic": "news"})[0] == 200
    until(lambda: max(keys_of(alice) + keys_of(bob)) > 1, "the next epoch is made")
    alice.post("news", "for bob")
    until(lambda: bodies(bob)[-1] == "for bob", "bob reads the second")
    assert max(keys_of(bob)) > 1
    assert keys_of(carol) == [1]


def test_a_revoked_member_opens_nothing_later_with_its_own_keys(team: Mesh) -> None:
    """In the middle of a busy topic, from the answer to the revocation on; earlier posts stay open to it."""
    alice, bob, carol = (team.daemons[name] for name in ("alice", "bob", "carol"))
    subscribed(team, "news", "alice", "bob", "carol")
    before = alice.post("news", "for all")[1]["client_message_id"]
    until(lambda: bodies(bob) == ["for all"] and bodies(carol) == ["for all"], "both read it")
    posts = [alice.post("news", f"busy {number}")[1]["client_message_id"] for number in range(20)]
    team.cli(alice, "member", "revoke", "carol", "--yes")
    after = alice.post("news", CANARY)[1]["client_message_id"]
    until(lambda: not carol.running, "the daemon of carol has ended")
    until(lambda: bodies(bob)[-1] == CANARY, "bob reads the last one")
    until(lambda: done(alice), "every post is done")
    assert len(bodies(bob)) == len(posts) + 2
    keys = held_by(carol.root)
    assert opens(stored_post(team, before), keys)
    assert opens(stored_post(team, after), held_by(bob.root))
    assert not opens(stored_post(team, after), keys)
