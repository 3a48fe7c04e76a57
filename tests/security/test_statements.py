"""Statements of members at a broker: forged, replayed, out of order, from a revoked signer."""

from __future__ import annotations

from typing import Any

from claudemesh.protocol.statements import Statement, sign_statement
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.values import replace
from tests.support.wspeer import Link, Peer, dial, http_request, make_invite

DAY = 86_400_000


def revoking(by: Peer, subject: Peer, **changes: Any) -> Statement:
    """The revocation of a member, signed by another one."""
    fields = {
        "mesh_id": by.mesh_id,
        "subject": subject.member_id,
        "at_ms": 1,
        "pubkey": subject.identity.ed25519_pubkey,
    }
    return sign_statement(by.identity, "revocation", **(fields | changes))


def giving(by: Peer, subject: Peer, role: str, at_ms: int = 1) -> Statement:
    """The statement by which a member gives another one a role."""
    return sign_statement(
        by.identity, "role", mesh_id=by.mesh_id, subject=subject.member_id, at_ms=at_ms, role=role
    )


async def refused(link: Link, method: str, **params: Any) -> str:
    """The code with which a call is refused."""
    code: str = (await link.call(method, **params))["error"]["code"]
    return code


async def roles(link: Link) -> dict[str, tuple[str, str]]:
    """The role and the status of each member in the list."""
    items = (await link.call("peers"))["ok"]["items"]
    return {item["name"]: (item["role"], item["status"]) for item in items}


async def test_a_statement_that_its_caller_did_not_sign_revokes_no_member() -> None:
    """Forged, changed, of another mesh, of another caller, of another kind, or none at all."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, carol = await join_mesh(ada, "bob"), await join_mesh(ada, "carol")
        other = await create_mesh(broker, "other")
        genuine = revoking(ada, carol)
        forged = replace(revoking(bob, carol), signer=ada.identity.ed25519_pubkey)
        lies: list[tuple[Any, str]] = [
            (forged.to_dict(), "bad_signature"),
            (replace(genuine, subject=bob.member_id).to_dict(), "bad_signature"),
            (revoking(other, carol).to_dict(), "bad_signature"),
            (giving(ada, carol, "member").to_dict(), "invalid_statement"),
            ({**genuine.to_dict(), "signature": "?"}, "invalid_statement"),
            ("revoke carol", "invalid_statement"),
            (None, "invalid_statement"),
        ]
        async with ada.connect() as link, bob.connect() as member:
            for lie, code in lies:
                assert await refused(link, "member_revoke", statement=lie) == code
            # The owner's own statement, passed on by another member.
            assert await refused(member, "member_revoke", statement=genuine.to_dict()) == "not_authorized"
            assert (await roles(link))["carol"] == ("member", "active")


async def test_a_member_gives_itself_no_role_and_an_admin_none_above_its_own() -> None:
    """Neither does the last owner lose its own without insisting."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        admin = await join_mesh(ada, "admin", invite=make_invite(ada, role="admin"))
        async with bob.connect() as member, admin.connect() as link, ada.connect() as owner:
            for role in ("admin", "owner"):
                lie = giving(bob, bob, role).to_dict()
                assert await refused(member, "member_role", statement=lie) == "not_authorized"
            for subject, role in ((admin, "owner"), (bob, "owner"), (ada, "member")):
                lie = giving(admin, subject, role).to_dict()
                assert await refused(link, "member_role", statement=lie) == "not_authorized"
            last = giving(ada, ada, "member").to_dict()
            assert await refused(owner, "member_role", statement=last) == "last_owner"
            assert await refused(owner, "leave") == "last_owner"
            assert await roles(owner) == {
                "owner": ("owner", "active"),
                "bob": ("member", "active"),
                "admin": ("admin", "active"),
            }


async def test_a_statement_that_was_taken_back_is_not_replayed() -> None:
    """Not by its signer's own connection either, and not with a time that no later one could follow."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        first, second = giving(ada, bob, "admin", 1), giving(ada, bob, "member", 2)
        async with ada.connect() as link:
            for statement in (first, second):
                assert (await link.call("member_role", statement=statement.to_dict()))["ok"]["changed"]
            assert await refused(link, "member_role", statement=first.to_dict()) == "statement_outdated"
            far = giving(ada, bob, "admin", broker.context.clock.wall_ms() + 2 * DAY)
            assert await refused(link, "member_role", statement=far.to_dict()) == "invalid_statement"
            assert (await roles(link))["bob"] == ("member", "active")


async def test_a_revoked_admin_acts_no_more() -> None:
    """Its statements, its sends and its key are refused, also on the connection that it has."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        admin = await join_mesh(ada, "admin", invite=make_invite(ada, role="admin"))
        bob = await join_mesh(ada, "bob")
        before = revoking(admin, bob)
        async with ada.connect() as owner, admin.connect() as link:
            assert (await owner.call("member_revoke", statement=revoking(ada, admin).to_dict()))["ok"]
            assert (await link.closed())[0] == 4002
            assert (await roles(owner))["bob"] == ("member", "active")
        async with dial(broker.url) as again:
            await again.say(admin.hello(await again.next("challenge")))
            told = Statement.parse((await again.next("revoked"))["statement"])
            assert (told, told.verify(ada.mesh_id)) == (revoking(ada, admin), True)
            assert (await again.closed())[0] == 4002
        status, answer = await http_request(
            broker.url, "POST", "/v1/join", bob.join_body(make_invite(admin), "mallory", admin.identity)
        )
        assert (status, answer["error"]) == (403, "not_authorized")
        async with ada.connect() as owner:
            stolen = before.to_dict()
            assert await refused(owner, "member_revoke", statement=stolen) == "not_authorized"


async def test_a_statement_is_passed_on_by_owners_and_admins_and_counts_by_its_signer() -> None:
    """A member passes none on. Forged, older and unauthorised ones are refused."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        adam = await join_mesh(ada, "adam", invite=make_invite(ada, role="admin"))
        bob, carol = await join_mesh(ada, "bob"), await join_mesh(ada, "carol")
        genuine, forged = (
            revoking(ada, carol),
            replace(revoking(bob, carol), signer=ada.identity.ed25519_pubkey),
        )
        first, second = giving(ada, bob, "admin", 1), giving(ada, bob, "member", 2)
        lies = [
            (forged, "bad_signature"),
            (revoking(bob, carol), "not_authorized"),
            (revoking(adam, ada), "not_authorized"),
            (giving(adam, bob, "owner"), "not_authorized"),
            (giving(ada, ada, "member"), "last_owner"),
            (first, "statement_outdated"),
        ]
        async with ada.connect() as owner, adam.connect() as admin, bob.connect() as member:
            for statement in (first, second):
                assert (await admin.call("member_restate", statement=statement.to_dict()))["ok"]["changed"]
            assert await refused(member, "member_restate", statement=genuine.to_dict()) == "not_authorized"
            for lie, code in lies:
                assert await refused(admin, "member_restate", statement=lie.to_dict()) == code
            assert await roles(owner) == {
                "owner": ("owner", "active"),
                "adam": ("admin", "active"),
                "bob": ("member", "active"),
                "carol": ("member", "active"),
            }
            for changed in (True, False):
                answer = await admin.call("member_restate", statement=genuine.to_dict())
                assert answer["ok"]["changed"] is changed
            assert (await roles(owner))["carol"] == ("member", "revoked")
