"""Sessions of real daemons: addressed from another host, kept by a restart, listed by the command."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh, until


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    with mesh("alice", "bob") as running:
        yield running


@pytest.fixture
def bob(made: Mesh) -> Generator[Daemon]:
    """Bob's daemon, without sessions."""
    daemon = made.daemons["bob"]
    yield daemon
    for item in daemon.request("GET", "/v1/sessions")[1]["items"]:
        assert daemon.request("DELETE", f"/v1/sessions/{item['session_id']}")[0] == 200


def register(daemon: Daemon, name: str, **fields: Any) -> dict[str, Any]:
    body = {"client": "test", "reach": "pull", "cwd": f"/src/{name}", **fields}
    status, answer = daemon.request("POST", "/v1/sessions", body)
    assert (status, answer["lease_s"]) == (200, 90), answer
    return dict(answer)


def listed(daemon: Daemon, session: str) -> list[str]:
    status, page = daemon.request("GET", f"/v1/inbox?session={session}&limit=500")
    assert status == 200, page
    return [item["client_message_id"] for item in page["items"]]


def test_a_message_from_another_host_reaches_the_session_that_it_names(made: Mesh, bob: Daemon) -> None:
    """And the reply goes to the session that asked."""
    alice = made.daemons["alice"]
    assert [register(bob, name)["name"] for name in ("api", "web")] == ["api", "web"]
    assert alice.send("bob/api", "deploy?", client_message_id="to-api", from_session="ops")[0] == 202
    assert alice.send("bob", "anyone?", client_message_id="to-host")[0] == 202
    until(
        lambda: {"to-api", "to-host"} <= {item["client_message_id"] for item in bob.inbox()}, "both messages"
    )
    sent = {"to-api", "to-host"}
    assert sent.intersection(listed(bob, "web")) == {"to-host"}
    assert sent.intersection(listed(bob, "api")) == {"to-api"}
    assert run(bob.home, "reply", "to-api", "yes", "--json").code == 0
    until(
        lambda: [item["to_session"] for item in alice.inbox() if item["body"] == "yes"] == ["ops"],
        "the reply",
    )


def test_a_session_outlives_its_daemon(bob: Daemon) -> None:
    """Killed behind the answer, the daemon knows the session at its next start."""
    session = register(bob, "kept")
    bob.kill()
    bob.start()
    bob.ready()
    beat = bob.request("POST", f"/v1/sessions/{session['session_id']}/heartbeat", {"state": "working"})
    assert beat == (200, session)
    [item] = run(bob.home, "sessions", "ls", "--json").json["items"]
    assert (item["name"], item["state"], item["reach"]) == ("kept", "working", "pull")
    assert "kept" in run(bob.home, "sessions", "ls").out


def test_peers_see_the_sessions_of_a_host_and_no_path(made: Mesh, bob: Daemon) -> None:
    """Until they end, or the host says that it does not publish them."""
    alice = made.daemons["alice"]

    def seen() -> list[dict[str, str]]:
        [peer] = [one for one in alice.request("GET", "/v1/peers")[1]["items"] if one["name"] == "bob"]
        return [dict(one) for one in peer["sessions"]]

    until(lambda: seen() == [], "no session of an earlier test")
    shown = {"name": "api", "client": "test", "state": "idle", "reach": "push"}
    session = register(bob, "api", reach="push")
    until(lambda: seen() == [shown], "the session")
    assert "api (idle)" in run(alice.home, "peers").out
    assert bob.request("DELETE", f"/v1/sessions/{session['session_id']}")[0] == 200
    until(lambda: seen() == [], "its end")

    register(bob, "api", reach="push")
    until(lambda: seen() == [shown], "the session again")
    config = bob.root / "config.toml"
    config.write_text("[sessions]\npublish = false\n")
    try:
        assert bob.request("POST", "/v1/reload")[0] == 200
        until(lambda: seen() == [], "the host that hides its sessions")
        config.write_text('[sessions.trust]\nAlice = "mute"\n')
        assert bob.request("POST", "/v1/reload")[0] == 200
        assert alice.send("bob/api", "psst", client_message_id="muted")[0] == 202
        until(lambda: "muted" in {one["client_message_id"] for one in bob.inbox()}, "the host's inbox")
        assert "muted" not in listed(bob, "api")
    finally:
        config.unlink()
        bob.request("POST", "/v1/reload")
    assert "muted" in listed(bob, "api")


def test_a_session_that_is_not_there_is_404(bob: Daemon) -> None:
    """A client registers again then. A wrong body names its field."""
    asked = [
        bob.request("POST", "/v1/sessions/none/heartbeat", {"state": "idle"}),
        bob.request("DELETE", "/v1/sessions/none"),
        bob.request("GET", "/v1/inbox?session=none"),
    ]
    assert [(status, answer["error"]) for status, answer in asked] == [(404, "session_not_found")] * 3
    wrong = ({"client": "a\nb"}, {"client": "x", "reach": "far"}, {"client": "x", "reach": "pull", "pid": 0})
    for body in wrong:
        status, answer = bob.request("POST", "/v1/sessions", {"reach": "pull", **body})
        assert (status, answer["error"]) == (400, "invalid_field"), answer
