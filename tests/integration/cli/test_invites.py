"""`invite list` and `invite revoke`: by owners and admins, over the link of their daemon."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from claudemesh.protocol.invites import code_of_link
from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh

OK, USAGE, PERMISSION = 0, 64, 77


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    """alice is the owner, bob a member, carol an admin."""
    with mesh("alice", "bob", start=False) as found:
        alice = found.daemons["alice"]
        link = invited(alice.home, "--role", "admin")
        carol = found.daemons["carol"] = Daemon(found.root, "carol", found.slug)
        assert run(carol.home, "join", link, "--name", "carol").code == OK
        for daemon in found.daemons.values():
            daemon.start()
        for daemon in found.daemons.values():
            daemon.ready()
        yield found


def invited(home: Path, *options: str) -> str:
    """A new invite of a host."""
    link: str = run(home, "invite", "create", "--json", *options).json["invite"]
    return link


@pytest.mark.parametrize("name", ["alice", "carol"])
def test_owners_and_admins_list_and_revoke_invites(made: Mesh, name: str) -> None:
    """By the id or by the link; no host can join by it any more."""
    home = made.daemons[name].home
    link = invited(made.daemons["alice"].home, "--uses", "3")
    before = run(home, "invite", "ls", "--json").json["items"]
    newest = max(before, key=lambda item: item["invite_id"])
    assert (newest["created_by"], newest["uses"], newest["max_uses"]) == ("alice", 0, 3)
    assert newest["revoked_at"] is None
    for given in (newest["invite_id"], link, code_of_link(link)):
        done = run(home, "invite", "revoke", given, "--json")
        assert (done.code, done.json["invite_ids"]) == (OK, [newest["invite_id"]])
    after = {item["invite_id"]: item for item in run(home, "invite", "list", "--json").json["items"]}
    assert after[newest["invite_id"]]["revoked_at"] is not None
    joined = run(made.root / f"late-{name}", "join", link, "--json")
    assert joined.json["error"] == "invite_revoked"
    assert newest["invite_id"] in run(home, "invite", "list").out


def test_a_member_may_neither_list_nor_revoke(made: Mesh) -> None:
    """The broker decides by the role that the member has at that moment."""
    bob = made.daemons["bob"].home
    invite = run(made.daemons["alice"].home, "invite", "list", "--json").json["items"][0]
    for arguments in (["list"], ["revoke", invite["invite_id"]]):
        done = run(bob, "invite", *arguments, "--json")
        assert (done.code, done.json["error"]) == (PERMISSION, "not_authorized")


def test_a_wrong_id_is_refused_before_any_invite_is_revoked(made: Mesh) -> None:
    """Usage, not a refusal of the broker."""
    alice = made.daemons["alice"].home
    assert invited(alice)
    newest = max(item["invite_id"] for item in run(alice, "invite", "list", "--json").json["items"])
    refused = run(alice, "invite", "revoke", newest, "nonsense", "--json")
    assert (refused.code, refused.json["next"]) == (USAGE, "claudemesh invite list")
    assert run(alice, "invite", "revoke", newest, "https://example.org").code == USAGE
    items = run(alice, "invite", "list", "--json").json["items"]
    assert next(item for item in items if item["invite_id"] == newest)["revoked_at"] is None
