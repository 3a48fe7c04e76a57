"""Hosts and an operator that do contradictory things at once (docs/spec/broker.md, Acts of members)."""

from __future__ import annotations

import http.client
import random
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.support.audit import broker_rows
from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh, until

Act = Callable[[], object]
Row = tuple[str, str, str]


@pytest.fixture
def team() -> Generator[Mesh]:
    """Alice, who made the mesh, with bob and carol, who joined as owners, and dave."""
    with mesh("alice", "dave") as made:
        for name in ("bob", "carol"):
            invite = run(made.daemons["alice"].home, "invite", "create", "--role", "owner", "--json")
            daemon = made.daemons[name] = Daemon(made.root, name, made.slug)
            assert run(daemon.home, "join", invite.json["invite"], "--name", name).code == 0
            daemon.start()
        for daemon in made.daemons.values():
            daemon.ready()
        yield made


def asked(daemon: Daemon, path: str, **body: Any) -> Act:
    """A request to a daemon, which may end in the middle of it."""

    def act() -> object:
        with suppress(OSError, http.client.HTTPException):
            return daemon.request("POST", path, body)
        return None

    return act


def acts_of(made: Mesh, *, ends: bool) -> list[Act]:
    """Return acts of these hosts and of an operator about each other; with `ends` dave leaves too."""
    alice, dave, bob, carol = made.daemons.values()
    keys = {name: key_of(daemon) for name, daemon in made.daemons.items()}
    token = str(made.broker.data / "admin_token")
    at = ("--broker", made.broker.url, "--admin-token-file", token)
    dave_id = str(dave.request("GET", "/v1/whoami")[1]["member_id"])
    ending = [
        asked(dave, "/v1/leave", force=False),
        asked(carol, "/v1/members/revoke", member=keys["dave"]),
        lambda: run(alice.home, "broker", "member", "revoke", made.slug, dave_id, *at),
    ]
    return [
        *(ending if ends else ()),
        asked(bob, "/v1/members/role", member=keys["carol"], role="member"),
        asked(carol, "/v1/members/role", member=keys["bob"], role="member"),
        asked(alice, "/v1/members/role", member=keys["dave"], role="admin"),
        asked(alice, "/v1/members/role", member=keys["dave"], role="owner"),
        asked(alice, "/v1/members/role", member=keys["bob"], role="admin"),
        asked(bob, "/v1/rename", name="shared"),
        asked(carol, "/v1/rename", name="shared"),
        asked(dave, "/v1/rename", name="shared"),
        asked(bob, "/v1/keys/rotate"),
        asked(dave, "/v1/keys/rotate"),
    ]


def key_of(daemon: Daemon) -> str:
    return str(daemon.request("GET", "/v1/whoami")[1]["member_pubkey"])


def kept(made: Mesh) -> set[Row]:
    """Name, key and role of each active member that the broker has."""
    rows = broker_rows(made, "SELECT name, ed25519_pubkey, role FROM member WHERE status = 'active'")
    return {(str(name), str(key), str(role)) for name, key, role in rows}


def seen(daemon: Daemon) -> set[Row]:
    """The same, as a host sees it."""
    items = daemon.request("GET", "/v1/members")[1]["items"]
    return {(one["name"], one["pubkey"], one["role"]) for one in items if one["status"] == "active"}


@pytest.mark.parametrize("ends", [True, False])
def test_contradictions_at_once_end_in_one_state_that_all_see(team: Mesh, ends: bool) -> None:
    """Each act is done or refused. Those that are left agree with the broker, and have the keys it has."""
    seed = random.SystemRandom().getrandbits(32)
    print("seed", seed)
    acts = acts_of(team, ends=ends)
    random.Random(seed).shuffle(acts)
    with ThreadPoolExecutor(len(acts)) as pool:
        for done in [pool.submit(act) for act in acts]:
            done.result()
    left = [daemon for name, daemon in team.daemons.items() if name != "dave" or not ends]
    if ends:
        # The operator's revocation is never refused.
        assert team.daemons["dave"].ended() in (0, 77)
    for daemon in left:
        until(lambda one=daemon: not (one.root / "keypair.next.json").exists(), "no rotation is open")
        until(lambda one=daemon: seen(one) == kept(team), f"{daemon.name} sees what the broker has")
    assert {key_of(daemon) for daemon in left} == {key for _, key, _ in kept(team)}
    for sender in left:
        for recipient in left:
            if sender is not recipient:
                text = f"from {sender.name} to {recipient.name}"
                assert sender.send(key_of(recipient), text)[0] in (200, 202)
    for daemon in left:
        texts = {f"from {other.name} to {daemon.name}" for other in left if other is not daemon}
        until(lambda one=daemon, wanted=texts: wanted <= bodies(one), f"{daemon.name} has all of them")


def bodies(daemon: Daemon) -> set[str]:
    return {item["body"] for item in daemon.inbox()}
