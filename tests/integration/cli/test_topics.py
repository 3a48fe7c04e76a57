"""`topic show` and `topic delete`: for every member, also for one that is away."""

from __future__ import annotations

from typing import Any

from tests.support.audit import wait_received
from tests.support.cli import Ran, run
from tests.support.processes import Daemon, mesh, until

OK, USAGE, PERMISSION = 0, 64, 77


def delete(daemon: Daemon, name: str, *options: str) -> Ran:
    """Delete a topic without asking."""
    return run(daemon.home, "topic", "delete", name, "--yes", "--json", *options)


def topics(daemon: Daemon) -> dict[str, Any]:
    """The topics of the mesh by name."""
    items = daemon.request("GET", "/v1/topic/list")[1]["items"]
    return {item["topic"]: item for item in items}


def test_a_topic_is_shown_and_a_wrong_name_is_answered_with_near_ones() -> None:
    """With or without its sign; deletion needs a terminal or --yes."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        assert made.cli(alice, "topic", "create", "queue:builds") == "created queue:builds\n"
        shown = run(alice.home, "topic", "show", "builds", "--json").json
        assert (shown["topic"], shown["mode"], shown["subscribers"]) == ("builds", "queue", 0)
        assert "queue:builds" in run(alice.home, "topic", "show", "queue:builds").out
        wrong = run(alice.home, "topic", "show", "bilds", "--json")
        assert (wrong.code, wrong.json["near"]) == (USAGE, ["builds"])
        asked = run(alice.home, "topic", "delete", "builds")
        assert (asked.code, asked.err.splitlines()[-1]) == (
            USAGE,
            "try: claudemesh topic delete builds --yes",
        )
        assert "builds" in topics(alice)
        assert delete(alice, "all").code == PERMISSION
        near = delete(alice, "queue:bilds")
        assert (near.code, near.json["near"]) == (USAGE, ["queue:builds"])


def test_a_deleted_topic_does_not_come_back_with_a_member_that_was_away() -> None:
    """It had created it, and was subscribed: a restore of the database would be put right."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        for name in ("deploys", "kept"):
            made.cli(bob, "topic", "create", name)
            made.cli(bob, "topic", "subscribe", name)
        posted = alice.post("deploys", "before")[1]["client_message_id"]
        wait_received(bob, [posted])
        bob.stop()
        late = alice.post("deploys", "late")[1]["client_message_id"]
        until(lambda: alice.outbox()[late]["status"] == "done", "it is accepted")
        done = delete(alice, "#deploys")
        assert (done.code, done.json["mode"], done.json["dropped"]) == (OK, "topic", 0)
        assert run(alice.home, "send", "#deploys", "after", "--json").json["error"] == "topic_not_found"
        bob.start()
        bob.ready()
        # The post that was accepted before arrives.
        wait_received(bob, [late])
        assert "deploys" not in topics(bob)
        assert topics(bob)["kept"]["subscribed"]
        bob.stop()
        bob.start()
        bob.ready()
        assert "deploys" not in topics(alice)


def test_members_that_are_connected_refuse_sends_to_it_at_once() -> None:
    """Also while the broker is away."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.cli(alice, "topic", "create", "deploys")
        until(lambda: bob.post("deploys", "x")[0] == 202, "bob knows it")
        assert delete(alice, "deploys").code == OK
        until(lambda: bob.post("deploys", "x")[0] == 404, "bob knows that it is gone")


def test_a_queue_with_jobs_is_kept_unless_forced_and_only_by_a_member_that_may() -> None:
    """bob is neither its creator nor privileged."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.cli(alice, "topic", "create", "queue:jobs")
        sent = alice.send("queue:jobs", "work")[1]["client_message_id"]
        until(lambda: alice.outbox()[sent]["status"] == "done", "it waits")
        assert delete(bob, "queue:jobs").json["error"] == "not_authorized"
        kept = delete(alice, "queue:jobs")
        assert (kept.code, kept.json["error"]) == (USAGE, "queue_not_empty")
        assert kept.json["next"] == "claudemesh topic delete queue:jobs --force"
        assert delete(alice, "queue:jobs", "--force").json["dropped"] == 1
        made.cli(alice, "topic", "create", "queue:jobs")
        made.cli(bob, "topic", "subscribe", "jobs")
        new = alice.send("queue:jobs", "new work")[1]["client_message_id"]
        wait_received(bob, [new])
        assert [item["body"] for item in bob.inbox()] == ["new work"]
