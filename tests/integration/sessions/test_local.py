"""Sends from one session of a host to another: through no broker, also when there is none."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sessions.test_mcp import server
from tests.integration.sessions.test_receipts import mark, progress, reached, received
from tests.support.processes import Daemon, Mesh, mesh, until


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    """One host whose broker is down."""
    with mesh("alice", "bob") as running:
        running.daemons["bob"].stop()
        running.broker.stop()
        until(lambda: not alice_of(running).request("GET", "/v1/health")[1]["connected"], "the link is down")
        yield running


def alice_of(made: Mesh) -> Daemon:
    return made.daemons["alice"]


def session(daemon: Daemon, name: str) -> dict[str, Any]:
    about = {"client": "test", "reach": "pull", "name": name, "cwd": f"/src/{name}"}
    status, found = daemon.request("POST", "/v1/sessions", about)
    assert status == 200, found
    return dict(found)


def listed(daemon: Daemon, name: str) -> list[str]:
    status, page = daemon.request("GET", f"/v1/inbox?session={name}&unseen=true")
    assert status == 200, page
    return [item["client_message_id"] for item in page["items"]]


def test_two_sessions_of_a_host_talk_without_a_broker(made: Mesh) -> None:
    """Delivered, shown and acked are told with the session, and a reply acknowledges."""
    alice = alice_of(made)
    session(alice, "api")
    session(alice, "web")
    about = {"from_session": "web", "receipt": "acked"}
    status, answer = alice.send("alice/api", "ready?", client_message_id="asked", **about)
    assert (status, answer["status"], answer["duplicate"], answer["history_id"]) == (200, "done", False, None)
    row = progress(alice, "asked")
    assert (row["local"], row["state"], row["status"], row["history_id"]) == (True, "delivered", "done", None)
    assert (listed(alice, "api"), listed(alice, "web")) == (["asked"], [])
    item = received(alice, "asked")
    assert (item["from_session"], item["to_session"], item["body"]) == ("web", "api", "ready?")
    assert item["broker_message_id"] == answer["broker_message_id"] and item["sent_at"]
    mark(alice, item, "shown", "api")
    [one] = reached(alice, "asked", "shown")["recipients"]
    assert (one["name"], one["session"]) == ("alice", "api")
    reply = {"reply_to_id": item["broker_message_id"], "from_session": "api"}
    assert alice.send("alice/web", "yes", client_message_id="answer", **reply)[0] == 200
    assert reached(alice, "asked", "acked")["detail"] == "acked on this host in session api"
    assert listed(alice, "web") == ["answer"]
    assert not [name for name in alice.outbox() if name.startswith("receipt:")]


def test_a_message_for_the_own_host_is_given_to_one_session(made: Mesh) -> None:
    """Without a session in the address too, and it outlives a restart."""
    alice = alice_of(made)
    session(alice, "one")
    assert alice.send("alice", "to anyone here", client_message_id="host")[0] == 200
    alice.kill()
    alice.start()
    alice.ready(connected=False)
    assert progress(alice, "host")["state"] == "delivered"
    assert "host" in listed(alice, "one")


def test_an_id_stands_for_one_local_send(made: Mesh) -> None:
    """Repeated it is a duplicate. With another text or recipient it is refused, and nothing is kept."""
    alice = alice_of(made)
    sent = {"client_message_id": "once"}
    first = alice.send("alice/api", "x", **sent)[1]
    status, again = alice.send("alice/api", "x", **sent)
    assert (status, again) == (200, {**first, "duplicate": True})
    assert alice.send("alice/api", "y", **sent)[0] == 409
    assert alice.send("alice/web", "x", **sent)[0] == 409
    assert alice.send("bob", "x", **sent)[0] == 409
    assert alice.send("bob", "x", client_message_id="to-bob")[0] == 202
    assert alice.send("alice/api", "x", client_message_id="to-bob")[0] == 409
    bodies = [item["body"] for item in alice.inbox() if item["client_message_id"] in ("once", "to-bob")]
    assert bodies == ["x"]


def test_a_hundred_sends_at_once_are_each_one_message_in_their_order(made: Mesh) -> None:
    """A batch keeps its order, also with an id that stands in it twice."""
    alice = alice_of(made)
    names = [f"batch-{number:02}" for number in range(50)]
    items = [
        {"to": "alice/batch", "message": name, "client_message_id": name} for name in names for _ in "xy"
    ]
    status, answer = alice.request("POST", "/v1/send/batch", {"items": items})
    assert status == 200
    assert [one["http_status"] for one in answer["items"]] == [200] * 100
    assert [one["duplicate"] for one in answer["items"]] == [False, True] * 50
    bodies = [item["body"] for item in alice.inbox() if item["to_session"] == "batch"]
    assert bodies == names


def test_an_agent_sends_to_a_session_beside_it(made: Mesh, tmp_path: Path) -> None:
    """By MCP: mesh_peers shows the address that mesh_send takes, and the sender reads of the delivery."""
    alice = alice_of(made)
    with server(alice.home, tmp_path / "left") as left, server(alice.home, tmp_path / "right") as right:
        for client in (left, right):
            client.begin()
            client.call("mesh_status")
        assert "alice/right (test-client): " in left.call("mesh_peers")
        assert "delivered on this host" in left.call("mesh_send", to="alice/right", message="your turn")
        assert "your turn" in right.call("mesh_inbox")


def test_the_broker_is_told_nothing_of_local_sends(made: Mesh) -> None:
    """Neither when it is back nor when it has forgotten: no local send is offered to it."""
    alice = alice_of(made)
    assert alice.send("alice/api", "here", client_message_id="here")[0] == 200
    made.broker.start()
    made.broker.ready()
    alice.ready()
    assert alice.send("bob", "the last", client_message_id="last")[0] == 202
    reached(alice, "last", "accepted")
    status, page = alice.request("GET", "/v1/history?limit=100")
    assert status == 200
    known = {item["client_message_id"] for item in page["items"]}
    assert "last" in known and "here" not in known
