"""The end of this host's own membership (docs/spec/lifecycle.md, Leaving and revoking)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.identity.own import OwnMember
from claudemesh.home.ended import Ended, load_ended
from claudemesh.home.membership import Membership
from claudemesh.home.paths import DaemonPaths
from claudemesh.protocol.events import MEMBER_REVOKED, MemberEvent
from claudemesh.protocol.fields import Json
from claudemesh.protocol.statements import Statement, sign_statement
from claudemesh.runtime.exits import ExitWith
from tests.support.daemon import MESH_ID, NOW, Person, directory_of, person
from tests.support.values import replace

ALICE, BOB, CAROL, OWNER = person("alice"), person("bob"), person("carol"), person("owner")
OTHER_MESH = "01899e2d-0000-7000-8000-000000000002"


def revocation(by: Person = OWNER, subject: Person = BOB, **changes: Any) -> Json:
    fields = {
        "mesh_id": MESH_ID,
        "subject": subject.member_id,
        "at_ms": NOW,
        "pubkey": subject.identity.ed25519_pubkey,
    }
    return sign_statement(by.identity, "revocation", **(fields | changes)).to_dict()


def forged() -> Json:
    """A revocation that carol has signed in the name of the owner."""
    made = Statement.parse(revocation(CAROL))
    return replace(made, signer=OWNER.identity.ed25519_pubkey).to_dict()


LIES: dict[str, Callable[[], Json]] = {
    "forged": forged,
    "of a member": lambda: revocation(CAROL),
    "of a stranger": lambda: revocation(person("stranger")),
    "of a revoked owner": lambda: revocation(ALICE),
    "of another mesh": lambda: revocation(mesh_id=OTHER_MESH),
    "about another member": lambda: revocation(subject=CAROL),
    "of another key": lambda: revocation(pubkey=CAROL.identity.ed25519_pubkey),
    "of another kind": lambda: sign_statement(
        OWNER.identity, "role", mesh_id=MESH_ID, subject=BOB.member_id, at_ms=NOW, role="member"
    ).to_dict(),
    "malformed": lambda: {"v": 1},
}


class Host:
    """Bob's host: it knows an owner, carol, who is a member, and alice, an owner that was revoked."""

    def __init__(self, folder: Path) -> None:
        directory = directory_of(folder, BOB, CAROL)
        directory.apply([OWNER.listed(role="owner")])
        directory.apply([ALICE.listed(role="owner", status="revoked")])
        membership = Membership(
            MESH_ID, "demo", "ws://127.0.0.1:1", BOB.member_id, "bob", "member", inviter_pubkey=None
        )
        self.paths = DaemonPaths(folder, "demo")
        self.paths.root.mkdir(parents=True, exist_ok=True)
        self.ends: list[ExitWith | None] = []
        self.own = OwnMember(membership, self.paths, directory, self.ends.append)

    def noted(self) -> Ended | None:
        return load_ended(self.paths.ended)


def test_a_genuine_statement_names_the_member_that_has_revoked_this_one(tmp_path: Path) -> None:
    """The end comes with the refusal of the broker, and not with the statement."""
    host = Host(tmp_path)
    host.own.note_revocation(revocation())
    assert (host.ends, host.noted()) == ([], None)
    host.own.has_ended("revoked")
    assert host.noted() == Ended("revoked", OWNER.identity.ed25519_pubkey, "owner", "owner")
    [end] = host.ends
    assert end is not None
    assert "by owner (owner, key" in end.message


@pytest.mark.parametrize("lie", LIES)
def test_a_statement_that_does_not_count_blames_no_member(tmp_path: Path, lie: str) -> None:
    """The broker refuses this host all the same, so the daemon ends."""
    host = Host(tmp_path)
    host.own.note_revocation(LIES[lie]())
    host.own.has_ended("revoked")
    assert host.noted() == Ended("revoked")


def test_an_event_is_verified_like_the_statement_of_a_refusal(tmp_path: Path) -> None:
    """A broker that names another revoker than the signer is not believed."""
    for statement, by in ((revocation(), "owner"), (revocation(CAROL), None)):
        host = Host(tmp_path)
        told = Statement.parse(statement)
        host.own.on_event(
            MemberEvent(MEMBER_REVOKED, BOB.member_id, "bob", BOB.identity.ed25519_pubkey, told)
        )
        ended = host.noted()
        assert ended is not None
        assert ended.by_name == by
        host.paths.ended.unlink()
