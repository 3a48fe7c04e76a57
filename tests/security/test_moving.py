"""A mesh that moves: its hosts follow an owner's statement, and nothing else."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Generator
from typing import Any

import pytest

from claudemesh.home.keyring import Keyring
from claudemesh.protocol.statements import MOVE, sign_statement
from claudemesh.runtime.brokerhttp import ask_broker
from claudemesh.runtime.exits import CONFIGURATION, OK, PERMISSION
from tests.support.balancer import balancer
from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, free_port, mesh, until
from tests.support.waiting import WAIT_S


@pytest.fixture
def moving() -> Generator[Mesh]:
    """A broker that knows a second address, alice (an owner), bob and carol; only alice runs."""
    with mesh("alice", "bob", "carol", start=False, front=True) as made:
        made.daemons["alice"].start()
        made.daemons["alice"].ready()
        yield made


def new_url(made: Mesh) -> str:
    """The second address."""
    return f"ws://127.0.0.1:{made.broker.front_port}"


def dialled(daemon: Daemon) -> str:
    """The address in membership.json."""
    url: str = json.loads((daemon.root / "membership.json").read_text())["broker_url"]
    return url


def health(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.request("GET", "/v1/health")[1]
    return found


def waits_for_move(daemon: Daemon) -> str:
    """Return the condition of a move that cannot be followed, "" without one."""
    found = [item for item in health(daemon)["degraded"] if item["code"] == "mesh_move_waits"]
    return str(found[0]["message"]) if found else ""


def has_moved(daemon: Daemon, url: str) -> bool:
    """Whether a daemon is connected at an address, and dials it after a restart too."""
    found = health(daemon)
    return (found["connected"], found["broker_url"], dialled(daemon)) == (True, url, url)


def statement_of(daemon: Daemon, to: str, at_ms: int) -> dict[str, Any]:
    """A move that a member of any role has signed."""
    mesh_id = json.loads((daemon.root / "membership.json").read_text())["mesh_id"]
    details = {"from": dialled(daemon), "to": to}
    keys = Keyring.load(daemon.root / "keypair.json").current
    return sign_statement(keys, MOVE, mesh_id=mesh_id, subject=mesh_id, at_ms=at_ms, **details).to_dict()


def invite_to(daemon: Daemon, url: str, uses: int = 1) -> dict[str, Any]:
    """An invite of a member with an address of the broker."""
    options = ("--broker-url", url, "--uses", str(uses), "--json")
    made: dict[str, Any] = run(daemon.home, "invite", "create", *options).json
    return made


def told(made: Mesh, statement: dict[str, Any]) -> tuple[int, str]:
    """Give a statement to the broker; return the status and the code of the refusal."""
    body = {"statement": statement}
    answer = ask_broker(
        made.broker.url, "POST", "/v1/meshes/move", body, deadline_s=WAIT_S, most_bytes=1 << 16
    )
    return answer.status, answer.body.get("error", "")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_every_host_follows_and_no_message_is_lost(moving: Mesh) -> None:
    """A host that runs at once, one that was away at its next link; also over a kill of the broker."""
    alice, bob, carol = moving.daemons.values()
    bob.start()
    bob.ready()
    ids = [f"m{number}" for number in range(20)]
    with balancer([moving.broker.port], moving.broker.front_port):
        for number, message_id in enumerate(ids):
            if number == 10:
                done = run(alice.home, "mesh", "move", new_url(moving), "--json")
                assert (done.code, done.json["to"]) == (OK, new_url(moving))
                moving.broker.kill()
                moving.broker.start()
                moving.broker.ready()
            assert alice.send("bob", message_id, client_message_id=message_id)[0] == 202
        for daemon in (alice, bob):
            until(lambda daemon=daemon: has_moved(daemon, new_url(moving)), f"{daemon.name} has moved")
        until(lambda: [item["body"] for item in bob.inbox()] == ids, "each message has arrived once")
        carol.start()
        until(lambda: has_moved(carol, new_url(moving)), "carol has moved")
        audit = ["broker", "audit", moving.slug, "--json", "--data-dir", str(moving.broker.data)]
        events = run(alice.home, *audit).json["items"]
        assert "mesh_moved" in {event["kind"] for event in events}
        # A host that joins afterwards gets the new address in its invite.
        assert dialled(moving.add("dave")) == new_url(moving)


@pytest.mark.parametrize("point", ["move.before_membership", "move.after_membership"])
def test_a_daemon_that_is_killed_while_it_moves_has_moved_after_the_next_start(
    moving: Mesh, point: str
) -> None:
    """Before and after it has written the new address; a message that it accepted arrives all the same."""
    alice, bob = moving.daemons["alice"], moving.daemons["bob"]
    with balancer([moving.broker.port], moving.broker.front_port):
        assert run(alice.home, "mesh", "move", new_url(moving)).code == OK
        bob.start(f"{point}=kill")
        bob.wait_killed()
        assert dialled(bob) == (new_url(moving) if "after" in point else moving.broker.url)
        bob.start()
        until(lambda: has_moved(bob, new_url(moving)), "bob has moved")
        assert bob.send("alice", "still here")[0] == 202
        until(lambda: [item["body"] for item in alice.inbox()] == ["still here"], "the message has arrived")


def test_a_broker_that_is_killed_behind_the_commit_of_a_move_tells_of_it_afterwards(moving: Mesh) -> None:
    """The command fails, and its repetition or the next link finds the statement."""
    alice = moving.daemons["alice"]
    moving.broker.stop()
    moving.broker.start("move.after_commit=kill")
    moving.broker.ready()
    with balancer([moving.broker.port], moving.broker.front_port):
        assert run(alice.home, "mesh", "move", new_url(moving)).code != OK
        moving.broker.wait_killed()
        moving.broker.start()
        moving.broker.ready()
        until(lambda: has_moved(alice, new_url(moving)), "alice has moved")


def test_a_host_waits_at_the_present_address_while_the_new_one_does_not_answer(moving: Mesh) -> None:
    """It says so, and moves when the new address answers."""
    alice, bob = moving.daemons["alice"], moving.daemons["bob"]
    with balancer([moving.broker.port], moving.broker.front_port):
        assert run(alice.home, "mesh", "move", new_url(moving)).code == OK
    bob.start()
    until(lambda: new_url(moving) in waits_for_move(bob), "it says that it waits")
    found = health(bob)
    assert (found["connected"], found["broker_url"]) == (True, moving.broker.url)
    with balancer([moving.broker.port], moving.broker.front_port):
        until(lambda: has_moved(bob, new_url(moving)), "it has moved")
        until(lambda: not waits_for_move(bob), "the condition has ended")


def test_a_host_that_missed_the_move_joins_again_at_the_new_address(moving: Mesh) -> None:
    """As the member that it is, also with another role than the invite has. No use of it is taken."""
    alice, carol = moving.daemons["alice"], moving.daemons["carol"]
    known = json.loads((carol.root / "membership.json").read_text())
    with balancer([moving.broker.port], moving.broker.front_port):
        assert run(alice.home, "member", "role", "carol", "admin").code == OK
        link = invite_to(alice, new_url(moving))
        done = run(carol.home, "join", link["invite"], "--json")
        assert (done.code, done.json["member_id"]) == (OK, known["member_id"])
        assert dialled(carol) == new_url(moving)
        listed = run(alice.home, "invite", "list", "--json").json["items"]
        assert [item["uses"] for item in listed if item["invite_id"] == link["invite_id"]] == [0]
        carol.start()
        carol.ready()
        again = run(carol.home, "join", link["invite"], "--json")
        assert (again.code, again.json["error"]) == (CONFIGURATION, "already_member")


def test_new_keys_are_admitted_at_the_address_to_which_the_mesh_has_moved(moving: Mesh) -> None:
    """Although the kept invite holds the address before the move."""
    alice, dave = moving.daemons["alice"], Daemon(moving.root, "dave", moving.slug)
    link = invite_to(alice, moving.broker.url, uses=2)
    assert run(dave.home, "join", link["invite"], "--name", "dave").code == OK
    with balancer([moving.broker.port], moving.broker.front_port):
        assert run(dave.home, "daemon", "set-broker", new_url(moving)).code == OK
        done = run(dave.home, "daemon", "remint", "--name", "dave-2", "--json")
    assert (done.code, done.json["broker_url"]) == (OK, new_url(moving))


def test_no_other_member_moves_the_mesh(moving: Mesh) -> None:
    """The broker refuses a member's statement, a changed one, and one of a revoked owner."""
    alice, bob = moving.daemons["alice"], moving.daemons["bob"]
    with balancer([moving.broker.port], moving.broker.front_port):
        refused = run(bob.home, "mesh", "move", new_url(moving), "--json")
        assert (refused.code, refused.json["error"]) == (PERMISSION, "not_authorized")
    genuine = statement_of(alice, new_url(moving), now_ms())
    changed = {**genuine, "at_ms": genuine["at_ms"] + 1}
    assert told(moving, changed) == (403, "bad_signature")
    admin = ["--data-dir", str(moving.broker.data), "--json"]
    dave = Daemon(moving.root, "dave", moving.slug)
    link = run(alice.home, "invite", "create", "--role", "owner", "--json").json["invite"]
    assert run(dave.home, "join", link, "--name", "dave").code == OK
    assert run(alice.home, "broker", "member", "revoke", moving.slug, "dave", *admin).code == OK
    assert told(moving, statement_of(dave, new_url(moving), now_ms())) == (403, "not_authorized")
    assert told(moving, genuine)[0] == 200


def test_statements_count_in_their_order(moving: Mesh) -> None:
    """An older one is refused after a later one; the same one again is a success."""
    alice, at_ms = moving.daemons["alice"], now_ms()
    later, older = (statement_of(alice, new_url(moving), when) for when in (at_ms, at_ms - 1))
    assert told(moving, later)[0] == 200
    assert told(moving, later)[0] == 200
    assert told(moving, older) == (409, "statement_outdated")
    far = statement_of(alice, new_url(moving), at_ms + 2 * 86_400_000)
    assert told(moving, far) == (400, "invalid_statement")


def test_an_address_that_is_not_the_brokers_is_refused(moving: Mesh) -> None:
    """By the command, before anything is signed, and by the broker."""
    alice, other = moving.daemons["alice"], free_port()
    url = f"ws://127.0.0.1:{other}"
    with balancer([moving.broker.port], other):
        done = run(alice.home, "mesh", "move", url, "--json")
        assert (done.code, done.json["error"]) == (CONFIGURATION, "wrong_address")
        assert "--public-url" in done.json["message"]
        assert told(moving, statement_of(alice, url, now_ms())) == (421, "wrong_address")


def test_a_daemon_follows_no_statement_that_its_broker_made_up(moving: Mesh) -> None:
    """A broker that hands out the statement of a member that is no owner moves no host."""
    alice, bob = moving.daemons["alice"], moving.daemons["bob"]
    statement = statement_of(bob, new_url(moving), now_ms())
    moving.broker.stop()
    database = sqlite3.connect(moving.broker.data / "broker.db")
    row = (statement["mesh_id"], statement["at_ms"], json.dumps(statement))
    database.execute("INSERT INTO mesh_move (mesh_id, at_ms, statement) VALUES (?, ?, ?)", row)
    database.commit()
    database.close()
    moving.broker.start()
    moving.broker.ready()
    with balancer([moving.broker.port], moving.broker.front_port):
        until(lambda: "its signer is not an owner" in waits_for_move(alice), "it is refused")
        found = health(alice)
        assert (found["connected"], found["broker_url"]) == (True, moving.broker.url)
