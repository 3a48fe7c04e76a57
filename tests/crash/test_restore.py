"""A broker whose database was restored from any copy: nothing that it acknowledged is missing in the end."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator

import pytest

from tests.support.audit import assert_contract, broker_rows, wait_done, wait_received
from tests.support.copies import POSTGRES, SQLITE, Copy, Directory
from tests.support.postgres import Server
from tests.support.processes import Daemon, Mesh, mesh, until

DEDUPE = "SELECT client_message_id FROM client_message_dedupe"


@pytest.fixture
def pair() -> Generator[Mesh]:
    """A broker, alice and bob."""
    with mesh("alice", "bob") as made:
        yield made


@pytest.fixture
def server() -> Generator[Server]:
    """A Postgres server whose files a test may exchange."""
    made = Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


def send(sender: Daemon, to: str, ids: list[str]) -> None:
    """Send a message under each id."""
    for client_message_id in ids:
        assert sender.send(to, "text", client_message_id=client_message_id)[0] in (200, 202)


def restart(made: Mesh) -> None:
    """Start a broker that is stopped."""
    made.broker.start()
    made.broker.ready()


def copied(made: Mesh, copy: Copy) -> None:
    """Take a copy of a broker that goes on afterwards."""
    made.broker.stop()
    copy.take()
    restart(made)
    for daemon in made.daemons.values():
        if daemon.running:
            daemon.ready()


def restored(made: Mesh, copy: Copy) -> None:
    """Put a copy back and start the broker on it."""
    if made.broker.running:
        made.broker.stop()
    copy.put_back()
    restart(made)


def logged(daemon: Daemon, event: str) -> int:
    """Return how many times a daemon has logged an event."""
    return daemon.log.read_text().count(f'"event":"{event}"')


def at_the_broker(made: Mesh, ids: list[str]) -> None:
    """Wait until the broker knows all of these."""
    until(lambda: {row[0] for row in broker_rows(made, DEDUPE)} >= set(ids), "all is at the broker again")


def check_is_clean(made: Mesh, daemon: Daemon) -> None:
    """`broker check` finds no message that is not whole."""
    token = str(made.broker.data / "admin_token")
    made.cli(daemon, "broker", "check", "--broker", made.broker.url, "--admin-token-file", token)


def forget_and_mend(made: Mesh, copy: Copy) -> None:
    """Messages after a copy, received or owed to an absent recipient, all survive a restore."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    send(alice, "bob", ["before"])
    wait_received(bob, ["before"])
    wait_done(alice, ["before"])
    copied(made, copy)
    seen = [f"seen-{number}" for number in range(8)]
    send(alice, "bob", seen)
    assert alice.post("all", "text", client_message_id="seen-post")[0] in (200, 202)
    wait_received(bob, [*seen, "seen-post"])
    bob.stop()
    owed = [f"owed-{number}" for number in range(8)]
    send(alice, "bob", owed)
    everything = ["before", *seen, "seen-post", *owed]
    wait_done(alice, everything)
    restored(made, copy)
    bob.start()
    bob.ready()
    wait_received(bob, everything)
    at_the_broker(made, everything)
    until(lambda: logged(alice, "reoffer_done"), "alice has offered everything")
    assert_contract(made, alice, [bob], everything)
    check_is_clean(made, alice)
    # The mesh goes on, and the next start finds nothing to mend.
    made.broker.stop()
    restart(made)
    alice.ready()
    send(alice, "bob", ["after"])
    wait_received(bob, ["after"])
    assert logged(alice, "broker_went_back") == 1


@pytest.mark.parametrize("kind", SQLITE)
def test_a_broker_restored_from_any_copy_has_everything_again(pair: Mesh, kind: str) -> None:
    """Nothing beside the database can vouch for it: its clients do."""
    forget_and_mend(pair, SQLITE[kind](pair))


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_postgres_restored_from_any_copy_has_everything_again(server: Server, kind: str) -> None:
    """A cold copy of the cluster is the same system, database and timeline as before."""
    with mesh("alice", "bob", database_url=server.url()) as made:
        forget_and_mend(made, POSTGRES[kind](made, server))


@pytest.mark.parametrize("kind", ["directory", "rows"])
def test_a_postgres_restored_under_a_running_broker_has_everything_again(server: Server, kind: str) -> None:
    """The broker notices, and sends its daemons to ask."""
    with mesh("alice", "bob", database_url=server.url()) as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        copy = POSTGRES[kind](made, server)
        copied(made, copy)
        bob.stop()
        ids = [f"owed-{number}" for number in range(8)]
        send(alice, "bob", ids)
        wait_done(alice, ids)
        copy.put_back()
        until(lambda: logged(alice, "reoffer_done"), "alice has offered everything")
        bob.start()
        wait_received(bob, ids)
        assert_contract(made, alice, [bob], ids)
        made.broker.ready()
        check_is_clean(made, alice)


# More than a question at a link-up covers one by one.
MANY = [f"waiting-{number}" for number in range(200)]


def hidden_and_mended(made: Mesh, ids: list[str]) -> None:
    """Everything arrives, although the lost sends lie behind many that the restored broker has accepted."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    wait_done(alice, MANY)
    until(lambda: logged(alice, "reoffer_done"), "alice has offered what was lost")
    bob.start()
    wait_received(bob, [*ids, *MANY])
    assert_contract(made, alice, [bob], [*ids, *MANY])


def test_sends_that_waited_for_a_restored_broker_do_not_hide_the_lost_ones(pair: Mesh) -> None:
    """The broker is asked about the newest accepted sends before any other one leaves."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    copy = Directory(pair)
    copied(pair, copy)
    bob.stop()
    ids = ["lost-0", "lost-1", "lost-2"]
    send(alice, "bob", ids)
    wait_done(alice, ids)
    pair.broker.stop()
    send(alice, "bob", MANY)
    restored(pair, copy)
    hidden_and_mended(pair, ids)


def test_sends_that_waited_for_a_restored_postgres_do_not_hide_the_lost_ones(server: Server) -> None:
    """The broker runs on: it accepts nothing before its daemons have been sent to ask."""
    with mesh("alice", "bob", database_url=server.url()) as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        copy = POSTGRES["directory"](made, server)
        copied(made, copy)
        bob.stop()
        ids = ["lost-0", "lost-1", "lost-2"]
        send(alice, "bob", ids)
        wait_done(alice, ids)
        server.stop(signal.SIGQUIT)
        send(alice, "bob", MANY)
        copy.put_back()
        hidden_and_mended(made, ids)


def test_a_daemon_that_dies_while_it_mends_begins_again(pair: Mesh) -> None:
    """At each step: the restore is noted, everything was asked about, a part is offered. Live sends go on."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    copy = Directory(pair)
    copied(pair, copy)
    bob.stop()
    ids = [f"forgotten-{number}" for number in range(200)]
    send(alice, "bob", ids)
    wait_done(alice, ids)
    alice.stop()
    restored(pair, copy)
    for point in ("restore.after_noted=kill", "restore.after_scan=kill", "reoffer.before_page=kill@2"):
        alice.start(point)
        alice.wait_killed()
    # New sends leave at once when the link is up, so the newest done sends are ones that the broker knows.
    pair.broker.stop()
    alice.start("reoffer.before_page=kill@3")
    alice.ready(connected=False)
    live = [f"live-{number}" for number in range(40)]
    send(alice, "bob", live)
    pair.broker.start()
    alice.wait_killed()
    alice.start()
    bob.start()
    bob.ready(connected=False)
    wait_received(bob, [*ids, *live])
    at_the_broker(pair, [*ids, *live])
    until(lambda: logged(alice, "reoffer_done"), "alice has offered everything")
    assert_contract(pair, alice, [bob], [*ids, *live])


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_topics_and_subscriptions_made_since_the_copy_come_back(pair: Mesh, first: str) -> None:
    """Whichever host is there first: what was posted reaches those who were subscribed."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    copy = Directory(pair)
    copied(pair, copy)
    for topic in ("plans", "queue:builds"):
        assert bob.request("POST", "/v1/topic/create", {"topic": topic})[0] == 201
        assert bob.request("POST", "/v1/topic/subscribe", {"topic": topic})[0] == 200
    assert bob.request("POST", "/v1/topic/unsubscribe", {"topic": "all"})[0] == 200
    bob.stop()
    posts = {"plans": "post-plans", "queue:builds": "post-builds", "all": "post-all"}
    for topic, client_message_id in posts.items():
        assert alice.post(topic, "text", client_message_id=client_message_id)[0] in (200, 202)
    wait_done(alice, list(posts.values()))
    alice.stop()
    restored(pair, copy)
    second = "bob" if first == "alice" else "alice"
    pair.daemons[first].start()
    until(lambda: logged(pair.daemons[first], "link_up") >= 2, f"{first} is back")
    if first == "alice":
        until(lambda: logged(alice, "reoffer_done") or logged(alice, "degraded"), "alice has offered once")
    pair.daemons[second].start()
    wait_received(bob, ["post-plans", "post-builds"])
    wait_done(alice, list(posts.values()))
    at_the_broker(pair, list(posts.values()))
    wanted = {"all": False, "builds": True, "plans": True}
    until(lambda: subscriptions(bob) == wanted, "bob's subscriptions are what he wants")
    # A copy from before an unsubscription may bring a post too many, but each once.
    received = [item["client_message_id"] for item in bob.inbox()]
    assert len(received) == len(set(received))


def test_a_live_send_is_not_given_up_while_its_topic_is_not_back(pair: Mesh) -> None:
    """The sender is there before the host that made the topic."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    copy = Directory(pair)
    copied(pair, copy)
    assert bob.request("POST", "/v1/topic/create", {"topic": "plans"})[0] == 201
    assert bob.request("POST", "/v1/topic/subscribe", {"topic": "plans"})[0] == 200
    send(alice, "bob", ["noticed-by-this"])
    wait_done(alice, ["noticed-by-this"])
    bob.stop()
    pair.broker.stop()
    assert alice.post("plans", "text", client_message_id="live")[0] in (200, 202)
    restored(pair, copy)
    until(lambda: logged(alice, "topic_key_not_here"), "the broker has told that it has no such topic")
    assert alice.outbox()["live"]["status"] in ("pending", "inflight")
    bob.start()
    wait_received(bob, ["live", "noticed-by-this"])
    wait_done(alice, ["live"])


def test_a_member_that_joined_after_the_copy_is_taken_back(pair: Mesh) -> None:
    """Its daemon goes on, an owner's daemon confirms it, and what was sent to it and by it is there again."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    copy = Directory(pair)
    copied(pair, copy)
    carol = pair.add("carol")
    carol.start()
    carol.ready()
    member_id = carol.request("GET", "/v1/health")[1]["member_id"]
    send(carol, "bob", ["from-carol"])
    send(alice, "carol", ["to-carol"])
    wait_received(bob, ["from-carol"])
    wait_received(carol, ["to-carol"])
    wait_done(carol, ["from-carol"])
    carol.stop()
    send(bob, "carol", ["owed-to-carol"])
    assert bob.post("all", "text", client_message_id="owed-post")[0] in (200, 202)
    wait_done(bob, ["owed-to-carol", "owed-post"])
    # No owner is there at first: the member waits, and accepts sends.
    alice.stop()
    restored(pair, copy)
    until(lambda: logged(bob, "broker_went_back"), "bob has noticed")
    carol.start()
    until(lambda: "membership_unconfirmed" in degraded(carol), "carol waits")
    send(carol, "bob", ["while-waiting"])
    until(lambda: "reoffer_refused" in degraded(bob), "bob cannot reach carol yet")
    alice.start()
    wait_received(carol, ["to-carol", "owed-to-carol", "owed-post"])
    wait_received(bob, ["from-carol", "while-waiting"])
    everything = ["from-carol", "to-carol", "owed-to-carol", "owed-post", "while-waiting"]
    at_the_broker(pair, everything)
    for daemon in (alice, bob, carol):
        until(lambda one=daemon: degraded(one) == [], f"{daemon.name} has nothing left to mend")
        received = [item["client_message_id"] for item in daemon.inbox()]
        assert len(received) == len(set(received))
    assert carol.request("GET", "/v1/health")[1]["member_id"] == member_id
    check_is_clean(pair, alice)


def test_a_member_that_cannot_prove_itself_says_so_and_keeps_its_queue(pair: Mesh) -> None:
    """Exit 77 names the way back: a new invite, and the same member with all that was queued."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    copy = Directory(pair)
    copied(pair, copy)
    carol = pair.add("carol")
    carol.start()
    carol.ready()
    send(alice, "carol", ["received"])
    wait_received(carol, ["received"])
    carol.stop()
    membership = carol.root / "membership.json"
    known = json.loads(membership.read_text())
    membership.write_text(json.dumps({**known, "invite": None}))
    pair.broker.stop()
    carol.start()
    carol.ready(connected=False)
    send(carol, "bob", ["queued"])
    restored(pair, copy)
    assert carol.ended() == 77
    said = carol.log.read_text()
    assert "not_a_member" in said
    assert "database was restored from before this host joined" in said
    invite = json.loads(pair.cli(alice, "invite", "create", "--json"))["invite"]
    joined = json.loads(pair.cli(carol, "join", invite, "--json"))
    assert (joined["member_id"], joined["name"]) == (known["member_id"], "carol")
    carol.start()
    carol.ready()
    wait_received(bob, ["queued"])
    assert [item["client_message_id"] for item in carol.inbox()] == ["received"]
    # A member that is known stays one: the invite is not used up by joining twice.
    again = json.loads(pair.cli(alice, "invite", "create", "--json"))["invite"]
    with pytest.raises(AssertionError, match="already"):
        pair.cli(carol, "join", again)


@pytest.mark.parametrize("joined", ["before", "after"])
def test_a_revoked_member_does_not_come_back_with_an_older_copy(pair: Mesh, joined: str) -> None:
    """The owner's daemon knows of the revocation, and says so to the broker."""
    alice = pair.daemons["alice"]
    copy = Directory(pair)
    if joined == "after":
        copied(pair, copy)
    mallory = pair.add("mallory")
    mallory.start()
    mallory.ready()
    send(alice, "mallory", ["known"])
    wait_received(mallory, ["known"])
    if joined == "before":
        copied(pair, copy)
    token = str(pair.broker.data / "admin_token")
    at = ("--broker", pair.broker.url, "--admin-token-file", token)
    pair.cli(alice, "broker", "member", "revoke", "demo", "mallory", *at)
    assert mallory.ended() == 77
    until(lambda: "mallory" not in names(alice), "alice knows of it")
    restored(pair, copy)
    alice.ready()
    # With this note the daemon does not even ask. A member that wants to come back removes it.
    (mallory.root / "ended.json").unlink()
    mallory.start()
    assert mallory.ended() == 77
    assert '"error":"not_a_member"' not in mallory.log.read_text()
    members = json.loads(pair.cli(alice, "broker", "member", "list", "demo", "--json", *at))["items"]
    assert {one["name"]: one["status"] for one in members}["mallory"] == "revoked"
    assert "mallory" not in names(alice)


def subscriptions(daemon: Daemon) -> dict[str, bool]:
    """Return the subscriptions of a daemon's member, as the broker lists them."""
    listed = daemon.request("GET", "/v1/topic/list")[1].get("items", ())
    return {item["topic"]: item["subscribed"] for item in listed}


def degraded(daemon: Daemon) -> list[str]:
    """Return the conditions in a daemon's health, by code."""
    found = daemon.request("GET", "/v1/health")[1]["degraded"]
    return [entry["code"] if isinstance(entry, dict) else entry for entry in found]


def names(daemon: Daemon) -> list[str]:
    """Whom a daemon knows as active members."""
    return [peer["name"] for peer in daemon.request("GET", "/v1/peers")[1]["items"]]
