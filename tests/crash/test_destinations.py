"""A send that cannot succeed is refused, and a destination means the same everywhere."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.audit import wait_done, wait_received
from tests.support.processes import Daemon, Mesh, mesh, until


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    """A broker, alice and bob."""
    with mesh("alice", "bob") as made:
        yield made


@pytest.fixture
def pair(made: Mesh) -> Mesh:
    """All of them running, in any state that the test before has left."""
    made.heal()
    return made


def away(made: Mesh) -> None:
    """Stop the broker, and wait until no daemon is connected."""
    made.broker.stop()
    for daemon in made.daemons.values():
        until(lambda daemon=daemon: not _health(daemon)["connected"], f"{daemon.name} has lost the broker")


def back(made: Mesh) -> None:
    """Start the broker again, and wait for all daemons."""
    made.broker.start()
    made.broker.ready()
    for daemon in made.daemons.values():
        daemon.ready()


def _health(daemon: Daemon) -> dict[str, object]:
    found: dict[str, object] = daemon.request("GET", "/v1/health")[1]
    return found


def create(daemon: Daemon, topic: str) -> None:
    """Make a topic or queue."""
    assert daemon.request("POST", "/v1/topic/create", {"topic": topic})[0] == 201


@pytest.mark.parametrize(("to", "kind"), [("#no-such", "topic"), ("queue:no-such", "queue")])
def test_a_send_to_a_topic_that_does_not_exist_is_refused(pair: Mesh, to: str, kind: str) -> None:
    """404 with the command that creates it, and no row."""
    alice = pair.daemons["alice"]
    status, answer = alice.send(to, "hi", client_message_id=f"lost-{kind}")
    assert (status, answer["error"]) == (404, "topic_not_found"), answer
    made = "queue:no-such" if kind == "queue" else "no-such"
    assert answer["next"] == f"claudemesh topic create {made}"
    assert answer["next"] in answer["message"]
    assert f"lost-{kind}" not in alice.outbox()


def test_a_near_topic_is_named_and_the_other_kind_too(pair: Mesh) -> None:
    """`#builds` for a queue of that name says so."""
    alice = pair.daemons["alice"]
    create(alice, "queue:near-jobs")
    assert alice.send("queue:near-job", "hi")[1]["near"] == ["queue:near-jobs"]
    status, answer = alice.send("#near-jobs", "hi")
    assert (status, answer["near"]) == (404, ["queue:near-jobs"])


def test_a_topic_that_another_member_has_just_made_takes_a_post(pair: Mesh) -> None:
    """The broker is asked before anything is refused, however often."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    for number in range(3):
        create(bob, f"fresh-{number}")
        assert alice.send(f"#fresh-{number}", "hi")[0] == 202


def test_without_the_broker_the_last_list_decides_and_a_retry_is_answered(pair: Mesh) -> None:
    """Also after a restart of the daemon."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    create(alice, "kept-topic")
    assert bob.request("POST", "/v1/topic/subscribe", {"topic": "kept-topic"})[0] == 200
    away(pair)
    alice.stop()
    alice.start()
    alice.ready(connected=False)
    assert alice.send("#kept-topic", "hi", client_message_id="kept")[0] == 202
    assert alice.send("#never-made", "hi")[1]["error"] == "topic_not_found"
    assert alice.send("#kept-topic", "hi", client_message_id="kept")[0] == 202
    back(pair)
    wait_received(bob, ["kept"])


def test_a_retry_of_a_known_id_is_answered_though_its_topic_is_not_listed(pair: Mesh) -> None:
    """Look-up comes first."""
    alice = pair.daemons["alice"]
    create(alice, "listed-once")
    assert alice.send("#listed-once", "hi", client_message_id="early")[0] == 202
    wait_done(alice, ["early"])
    away(pair)
    alice.stop()
    (alice.root / "topics.json").write_text('{"topics": []}')
    alice.start()
    alice.ready(connected=False)
    assert alice.send("#listed-once", "hi")[1]["error"] == "topic_not_found"
    status, answer = alice.send("#listed-once", "hi", client_message_id="early")
    assert (status, answer["duplicate"]) == (200, True)
    back(pair)


def test_a_daemon_that_never_saw_a_list_accepts(pair: Mesh) -> None:
    """Nothing is known to be missing."""
    alice = pair.daemons["alice"]
    away(pair)
    alice.stop()
    (alice.root / "topics.json").unlink()
    alice.start()
    alice.ready(connected=False)
    assert alice.send("#all", "hi", client_message_id="unlisted")[0] == 202
    back(pair)
    wait_received(pair.daemons["bob"], ["unlisted"])


@pytest.mark.parametrize("to", ["queue:patched", "#patched-topic", "bob"])
def test_a_patched_requeue_keeps_the_destination(pair: Mesh, to: str) -> None:
    """A queue stays a queue, a topic a topic, a member a member."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    if to != "bob":
        create(alice, to.removeprefix("#"))
        assert bob.request("POST", "/v1/topic/subscribe", {"topic": to})[0] == 200
    label = to.strip("#").replace(":", "-")
    away(pair)
    assert alice.send(to, "wrong", client_message_id=f"{label}-old")[0] == 202
    before = alice.outbox()[f"{label}-old"]
    patch = {"new_client_message_id": f"{label}-new", "patch": {"message": "right"}}
    status, answer = alice.request("POST", f"/v1/outbox/{before['id']}/requeue", patch)
    assert status == 200, answer
    after = alice.outbox()[f"{label}-new"]
    for name in ("destination_kind", "destination_ref"):
        assert after[name] == before[name]
    back(pair)
    wait_received(bob, [f"{label}-new"])
    [item] = [item for item in bob.inbox() if item["client_message_id"] == f"{label}-new"]
    assert item["body"] == "right"
