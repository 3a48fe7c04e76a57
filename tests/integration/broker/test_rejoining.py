"""A member that a restore has lost comes back by an owner's or admin's word, and by nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.restore.vouching import as_unconfirmed, vouch_for
from claudemesh.protocol.events import UNCONFIRMED, UnconfirmedMember, parse_event
from claudemesh.protocol.frames import Event
from claudemesh.protocol.ids import uuid_from_ulid
from claudemesh.protocol.keys import Identity
from claudemesh.protocol.replies import PeerEntry, peer_entry
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.clock import ManualClock
from tests.support.values import replace
from tests.support.wspeer import Frame, Link, Peer, http_request, make_identity, make_invite, new_id


def request_of(owner: Peer, link: str, name: str, identity: Identity, /, **changes: Any) -> Frame:
    """Return the request of a lost member."""
    body = owner.join_body(link, name, identity)
    del body["ephemeral"], body["x25519_proof"]
    return {**body, "member_id": uuid_from_ulid(new_id())} | changes


async def ask(owner: Peer, body: Mapping[str, Any]) -> tuple[int, Any]:
    """Ask to be taken back."""
    return await http_request(owner.broker_url, "POST", "/v1/rejoin", body)


def vouched(card: Frame, **changes: Any) -> Frame:
    """The word of a daemon that knows the member."""
    return {**card, "role": "member", "status": "active"} | changes


async def only_a_later_one_reaches(owner: Link, ada: Peer) -> None:
    """Ask as another lost member, and check that this is the first event that the owner gets."""
    assert (await ask(ada, request_of(ada, make_invite(ada), "the-last", make_identity())))[0] == 202
    assert (await owner.event("member_unconfirmed"))["name"] == "the-last"


async def members(link: Link) -> dict[str, Frame]:
    """Return all members that ever joined, by name."""
    reply = await link.call("peers")
    return {item["name"]: item for item in reply["ok"]["items"]}


async def test_a_lost_member_is_confirmed_by_the_owner_under_its_id() -> None:
    """The request admits no member; the owner's confirmation does, and the mesh gets an event."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        cleo = make_identity()
        body = request_of(ada, make_invite(ada), "cleo", cleo)
        async with ada.connect() as owner, bob.connect() as other:
            status, answer = await ask(ada, body)
            assert (status, answer["status"]) == (202, "unconfirmed")
            card = await owner.event("member_unconfirmed")
            assert "cleo" not in await members(owner)
            reply = await owner.call("member_vouch", **vouched(card))
            assert reply["ok"] == {"member_id": body["member_id"], "created": True}
            told = await other.event("member_added")
            assert (told["name"], told["member_id"]) == ("cleo", body["member_id"])
            await other.settle()
            assert not any(frame["event"] == "member_unconfirmed" for frame in other.waiting("event"))
            status, answer = await ask(ada, body)
            assert (status, answer["status"]) == (200, "active")
        peer = Peer("cleo", cleo, ada.mesh_id, ada.slug, body["member_id"], ada.broker_url)
        async with peer.connect() as link:
            assert link.ack["member_id"] == body["member_id"]


async def test_an_expired_or_used_up_invite_is_no_obstacle_and_no_key() -> None:
    """It shows that the member was invited; without an owner's confirmation it admits no member."""
    clock = ManualClock()
    async with running_broker(clock=clock) as broker:
        ada = await create_mesh(broker)
        link = make_invite(ada, expires_at_ms=clock.wall_ms() - 1)
        async with ada.connect() as owner:
            status, _ = await ask(ada, request_of(ada, link, "cleo", make_identity()))
            assert status == 202
            await owner.event("member_unconfirmed")
            assert "cleo" not in await members(owner)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "dora"}, "bad_signature"),
        ({"proof": b64encode(bytes(64)).decode()}, "bad_signature"),
        ({"x25519_signature": b64encode(bytes(64)).decode()}, "bad_signature"),
        ({"member_id": "x"}, "invalid_uuid"),
        ({"role": "owner"}, "unknown_field"),
    ],
)
async def test_a_request_without_proof_reaches_nobody(changes: Frame, error: str) -> None:
    """Neither keys of others nor a changed name."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as owner:
            _, answer = await ask(ada, request_of(ada, make_invite(ada), "cleo", make_identity(), **changes))
            assert answer["error"] == error
            await only_a_later_one_reaches(owner, ada)


async def test_an_invite_of_a_stranger_reaches_nobody() -> None:
    """Any key can sign an invite; only a member's signature shows that its bearer was invited."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        stranger = Peer("eve", make_identity(), ada.mesh_id, ada.slug, ada.member_id, ada.broker_url)
        async with ada.connect() as owner:
            status, _ = await ask(ada, request_of(ada, make_invite(stranger), "cleo", make_identity()))
            assert status == 202
            await only_a_later_one_reaches(owner, ada)


async def test_requests_are_passed_on_within_a_bound() -> None:
    """One invite is enough to ask under many keys; owners' daemons are not flooded."""
    clock = ManualClock()
    async with running_broker(clock=clock) as broker:
        ada = await create_mesh(broker)
        link = make_invite(ada, expires_at_ms=clock.wall_ms() + 1000)
        async with ada.connect() as owner:
            for number in range(70):
                await ask(ada, request_of(ada, link, f"m{number}", make_identity()))
            await owner.settle()
            assert len(owner.waiting("event")) == 64


async def test_only_owners_and_admins_vouch_and_none_above_its_own_role() -> None:
    """A member's word counts for nothing, an admin's for no owner."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        adam = await join_mesh(ada, "adam", invite=make_invite(ada, role="admin"))
        body = request_of(ada, make_invite(ada), "cleo", make_identity())
        async with ada.connect() as owner, bob.connect() as other, adam.connect() as admin:
            await ask(ada, body)
            card = await admin.event("member_unconfirmed")
            for link, role in ((other, "member"), (admin, "owner")):
                reply = await link.call("member_vouch", **vouched(card, role=role))
                assert reply["error"]["code"] == "not_authorized"
            # Nor may an admin revoke an owner by vouching badly for it.
            own = (await members(admin))["owner"]
            bad = {name: own[name] for name in ("member_id", "name", "pubkey", "x25519_pubkey", "key_id")}
            bad["x25519_signature"] = own["x25519_signature"]
            reply = await admin.call("member_vouch", **vouched(bad, status="revoked"))
            assert reply["error"]["code"] == "not_authorized"
            assert "cleo" not in await members(owner)
            reply = await admin.call("member_vouch", **vouched(card))
            assert reply["ok"]["created"] is True


async def test_a_member_that_was_revoked_is_put_back_as_revoked() -> None:
    """Its daemon learns it by the close code, as at any other time."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        identity = make_identity()
        body = request_of(ada, make_invite(ada), "cleo", identity)
        async with ada.connect() as owner:
            await ask(ada, body)
            card = await owner.event("member_unconfirmed")
            await owner.call("member_vouch", **vouched(card, status="revoked"))
            assert (await members(owner))["cleo"]["status"] == "revoked"
        status, answer = await ask(ada, body)
        assert (status, answer["error"]) == (403, "not_a_member")


async def test_a_name_or_id_that_is_taken_is_not_given_back() -> None:
    """Changes since the restore stay."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as owner:
            for name, member_id, error in (("BOB", None, "name_taken"), ("cleo", bob.member_id, "id_taken")):
                changes = {} if member_id is None else {"member_id": member_id}
                await ask(ada, request_of(ada, make_invite(ada), name, make_identity(), **changes))
                card = await owner.event("member_unconfirmed")
                reply = await owner.call("member_vouch", **vouched(card))
                assert reply["error"]["code"] == error


async def test_a_new_invite_joins_the_same_member_again() -> None:
    """Under its id, if that is free: others have pinned its key by it."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        member_id = uuid_from_ulid(new_id())
        body = ada.join_body(make_invite(ada), "cleo", make_identity())
        status, answer = await http_request(broker.url, "POST", "/v1/join", body | {"member_id": member_id})
        assert (status, answer["member_id"], answer["created"]) == (201, member_id, True)
        other = ada.join_body(make_invite(ada), "dora", make_identity())
        status, answer = await http_request(broker.url, "POST", "/v1/join", other | {"member_id": member_id})
        assert (status, answer["error"]) == (409, "id_taken")


async def test_a_rejoin_with_the_x25519_key_of_another_member_is_refused() -> None:
    """No owner is asked, and an owner's word for it is refused as well."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        thief = with_box_of(bob.identity)
        body = request_of(ada, make_invite(ada), "cleo", thief)
        async with ada.connect() as owner:
            status, answer = await ask(ada, body)
            assert (status, answer["error"]) == (409, "key_taken")
            await only_a_later_one_reaches(owner, ada)
            card = {name: body[name] for name in ("name", "member_id", "x25519_pubkey", "key_id")}
            keys = {"pubkey": thief.ed25519_pubkey, "x25519_signature": body["x25519_signature"]}
            reply = await owner.call("member_vouch", **vouched(card | keys, invite_id=None))
            assert reply["error"]["code"] == "key_taken"
            assert "cleo" not in await members(owner)


def with_box_of(other: Identity) -> Identity:
    """New keys of which the x25519 pair is another member's, signed for."""
    own = make_identity()
    binding = (b"claudemesh-x25519-v1", own.ed25519_pubkey.encode(), other.x25519_pubkey.encode())
    return replace(
        own,
        x25519_privkey=other.x25519_privkey,
        x25519_pubkey=other.x25519_pubkey,
        x25519_signature=own.sign(b"\0".join(binding)),
    )


async def test_a_daemon_confirms_only_whom_it_has_pinned(tmp_path: Path) -> None:
    """Id, name and both keys; a member that has left is not brought back."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as owner:
            listed = await members(owner)
        directory = Directory(tmp_path / "peers.json", ada.mesh_id)
        directory.apply(map(peer_entry, listed.values()))
        card = {**listed["bob"], "invite_id": None}

        def unconfirmed(**changes: Any) -> UnconfirmedMember:
            news = parse_event(Event(UNCONFIRMED, card | changes))
            assert isinstance(news, UnconfirmedMember)
            return news

        assert vouch_for(unconfirmed(), directory) == {
            **{name: card[name] for name in ("member_id", "pubkey", "x25519_pubkey", "x25519_signature")},
            "key_id": card["key_id"],
            "invite_id": None,
            "name": "bob",
            "role": "member",
            "status": "active",
        }
        stranger = make_identity()
        for changes in (
            {"pubkey": stranger.ed25519_pubkey},
            {"x25519_pubkey": stranger.x25519_pubkey},
            {"name": "owner"},
            {"member_id": ada.member_id},
        ):
            assert vouch_for(unconfirmed(**changes), directory) is None
        directory.apply([peer_entry({**listed["bob"], "status": "left"})])
        assert vouch_for(unconfirmed(), directory) is None
        assert bob.member_id == card["member_id"]


async def test_an_owner_keeps_a_revoked_member_revoked(tmp_path: Path) -> None:
    """A list of the broker's that shows it as active again was restored, and is answered."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        await join_mesh(ada, "bob")
        async with ada.connect() as owner:
            listed = await members(owner)
            directory = Directory(tmp_path / "peers.json", ada.mesh_id)
            directory.apply([peer_entry({**listed["bob"], "status": "revoked"})])
            revived: list[PeerEntry] = []

            def keep(entry: PeerEntry) -> bool:
                revived.append(entry)
                return True

            directory.on_revived(keep)
            directory.apply(map(peer_entry, listed.values()))
            bob = directory.by_name("bob")
            assert bob is not None
            assert bob.status == "revoked"
            params = vouch_for(as_unconfirmed(revived[0]), directory)
            assert params is not None
            await owner.call("member_vouch", **params)
            assert (await owner.event("member_revoked"))["name"] == "bob"
            assert (await members(owner))["bob"]["status"] == "revoked"
