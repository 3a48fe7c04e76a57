"""SIGKILL of a broker in an act of a member (docs/spec/broker.md, Acts of members)."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import pytest

from tests.support.audit import broker_rows
from tests.support.cli import run
from tests.support.postgres import Server
from tests.support.processes import Daemon, Mesh, mesh, until

Row = tuple[str, str, str]


@pytest.fixture(params=["sqlite", "postgres"])
def team(request: pytest.FixtureRequest) -> Generator[Mesh]:
    """Alice, who made the mesh, with bob, carol, dave and erin, on one engine."""
    names = ("alice", "bob", "carol", "dave", "erin")
    if request.param == "sqlite":
        with mesh(*names) as made:
            yield made
        return
    server = Server()
    try:
        server.start()
        with mesh(*names, database_url=server.url()) as made:
            yield made
    finally:
        server.remove()


def listed(made: Mesh) -> set[Row]:
    """Return name, role and status of each member that the broker has."""
    return {
        (str(name), str(role), str(status))
        for name, role, status in broker_rows(made, "SELECT name, role, status FROM member")
    }


def killed(made: Mesh, point: str, act: Callable[[], bool]) -> set[Row]:
    """Let the broker die in an act that fails then; return the members that it has after that."""
    made.broker.stop()
    made.broker.start(f"{point}=kill")
    made.broker.ready()
    ready(made)
    assert not act()
    made.broker.wait_killed()
    made.broker.start()
    made.broker.ready()
    return listed(made)


def ready(made: Mesh) -> None:
    """Wait until every daemon is connected, or has ended."""
    for daemon in made.daemons.values():

        def settled(one: Daemon = daemon) -> bool:
            return not one.running or bool(one.request("GET", "/v1/health")[1]["connected"])

        until(settled, f"{daemon.name} is connected, or has ended")


def asked(daemon: Daemon, path: str, body: Any) -> Callable[[], bool]:
    """Return an act as a request to a daemon, which tells whether it was done."""

    def act() -> bool:
        with suppress(OSError, http.client.HTTPException):
            return daemon.request("POST", path, body)[0] == 200
        return False

    return act


def test_a_broker_that_is_killed_in_an_act_has_done_it_or_not_and_a_repetition_does_it_once(
    team: Mesh,
) -> None:
    """Before the commit nothing of it is there, and after the commit all of it is."""
    alice, bob, carol, dave, erin = team.daemons.values()
    acts: list[tuple[Callable[[], bool], Row, Row]] = [
        (
            asked(alice, "/v1/members/role", {"member": "bob", "role": "admin"}),
            ("bob", "member", "active"),
            ("bob", "admin", "active"),
        ),
        (
            asked(carol, "/v1/rename", {"name": "caroline"}),
            ("carol", "member", "active"),
            ("caroline", "member", "active"),
        ),
        (
            asked(bob, "/v1/members/revoke", {"member": "dave"}),
            ("dave", "member", "active"),
            ("dave", "member", "revoked"),
        ),
    ]
    for act, before, after in acts:
        # The acts have the transaction in common, so one of them shows the roll-back.
        if after[1:] == ("member", "revoked"):
            found = killed(team, "act.before_commit", act)
            assert before in found
            assert after not in found
        found = killed(team, "act.after_commit", act)
        assert after in found
        assert before not in found
        ready(team)
        assert act()
        assert listed(team) == found
    assert dave.ended() == 77
    rotate(team, bob)
    leave = asked(erin, "/v1/leave", {"force": False})
    assert ("erin", "member", "left") in killed(team, "act.after_commit", leave)
    # The daemon was not told. The broker refuses it, and it notes the end.
    assert erin.ended() == 77
    until(lambda: (erin.root / "ended.json").exists(), "the end is noted")
    replace(team, alice)


def rotate(made: Mesh, bob: Daemon) -> None:
    """The transaction is rolled back: the older key is the member's, and the rotation goes on by itself."""
    shown = "SELECT ed25519_pubkey, state FROM member_key ORDER BY ed25519_pubkey"
    older = broker_rows(made, shown)
    made.broker.stop()
    made.broker.start("rotate.before_commit=kill")
    made.broker.ready()
    ready(made)
    status, answer = bob.request("POST", "/v1/keys/rotate", {})
    assert (status, answer["status"]) == (202, "pending"), answer
    made.broker.wait_killed()
    assert broker_rows(made, shown) == older
    made.broker.start()
    made.broker.ready()
    until(lambda: not (bob.root / "keypair.next.json").exists(), "the rotation is finished")
    assert len(broker_rows(made, shown)) == len(older) + 1
    ready(made)


def replace(made: Mesh, alice: Daemon) -> None:
    """The use of an invite is taken together with the member, once, and its name with its statement."""
    link = run(alice.home, "invite", "create", "--name", "dave", "--replace", "--json").json["invite"]
    heir = Daemon(made.root, "heir", made.slug)

    def join() -> bool:
        return run(heir.home, "join", link).code == 0

    active = ("dave", "member", "active")
    assert active not in killed(made, "act.before_commit", join)
    assert active in killed(made, "act.after_commit", join)
    assert join()
    statements = broker_rows(made, "SELECT kind FROM member_statement WHERE kind = 'replacement'")
    assert len(statements) == 1
    for daemon in made.daemons.values():
        if daemon.running:
            until(
                lambda one=daemon: one.send("dave", "to the heir")[0] in (200, 202),
                "the name leads to the heir",
            )
    made.daemons["heir"] = heir
    heir.start()
    heir.ready()
    until(lambda: len(heir.inbox()) == 3, "messages of alice, bob and caroline")
