"""Invites and joins over HTTP (docs/spec/lifecycle.md, Joining)."""

from __future__ import annotations

import asyncio
from base64 import b64encode, urlsafe_b64encode
from collections import Counter
from typing import Any

import orjson
import pytest

from claudemesh.runtime.clock import iso_ms
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.clock import ManualClock
from tests.support.values import replace
from tests.support.wspeer import Frame, Peer, http_request, invite_fields, make_identity, make_invite


async def join(owner: Peer, link: str, name: str = "bob", changes: Frame | None = None) -> tuple[int, Frame]:
    """Join with a fresh identity; `changes` replace fields of the body."""
    body = owner.join_body(link, name, make_identity()) | (changes or {})
    return await http_request(owner.broker_url, "POST", "/v1/join", body)


async def test_a_member_joins_by_invite() -> None:
    """201 with everything its daemon needs; the others get an event, and it can connect."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            bob = await join_mesh(ada, "bob")
            told = await link.event("member_added")
            assert told == {"name": "bob", "member_id": bob.member_id, "pubkey": bob.pubkey, "role": "member"}
        async with bob.connect() as link:
            assert link.ack["member_id"] == bob.member_id


async def test_the_same_join_again_takes_no_use() -> None:
    """A lost answer is asked for again: 200 with the same member, and the invite is as full as before."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        link = make_invite(ada, uses=2)
        body = ada.join_body(link, "bob", make_identity())
        first = await http_request(broker.url, "POST", "/v1/join", body)
        second = await http_request(broker.url, "POST", "/v1/join", body)
        third, _ = await join(ada, link, "cleo")
        fourth, refused = await join(ada, link, "dora")
    assert (first[0], second[0]) == (201, 200)
    assert first[1] == second[1] | {"created": True}
    assert third == 201
    assert (fourth, refused["error"]) == (410, "invite_exhausted")


async def test_fifty_race_for_one_use() -> None:
    """A use is taken atomically with the member row: exactly one gets in."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        link = make_invite(ada, uses=1)
        answers = await asyncio.gather(*(join(ada, link, f"peer{number}") for number in range(50)))
        members = await broker.context.store.members.all(ada.mesh_id)
    assert Counter(status for status, _ in answers) == {201: 1, 410: 49}
    assert len(members) == 2


async def test_an_expired_invite_is_refused() -> None:
    """The broker's clock decides, and the refusal tells what it shows."""
    clock = ManualClock()
    async with running_broker(clock=clock) as broker:
        ada = await create_mesh(broker)
        late = make_invite(ada, expires_at_ms=clock.wall_ms() - 1)
        status, body = await join(ada, late)
        registered = await http_request(broker.url, "POST", "/v1/invites", {"invite": late})
    assert (status, body["error"]) == (410, "invite_expired")
    assert (registered[0], registered[1]["error"]) == (410, "invite_expired")
    for answer in (body, registered[1]):
        assert iso_ms(clock.wall_ms()) in answer["message"]


async def test_a_revoked_invite_is_refused() -> None:
    """Registered, then revoked: no host can join by it any more."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        link = make_invite(ada)
        invite_id = invite_fields(link)["invite_id"]
        status, _ = await http_request(broker.url, "POST", "/v1/invites", {"invite": link})
        again, _ = await http_request(broker.url, "POST", "/v1/invites", {"invite": link})
        await broker.context.store.members.revoke_invite(ada.mesh_id, invite_id, broker.clock.wall_ms())
        refused, body = await join(ada, link)
    assert (status, again) == (201, 200)
    assert (refused, body["error"]) == (410, "invite_revoked")


async def test_an_invite_that_was_changed_is_refused() -> None:
    """Every field of an invite is signed."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        genuine = make_invite(ada)
        forger = replace(ada, identity=make_identity())
        signature = invite_fields(genuine)["signature"]
        changed = relink(genuine, uses=1000)
        stolen = relink(make_invite(forger), inviter_pubkey=ada.pubkey, signature=signature)
        for link in (changed, stolen):
            status, body = await join(ada, link)
            assert (status, body["error"]) == (403, "bad_signature")


def relink(link: str, **changes: Any) -> str:
    """Return an invite link with fields replaced behind its signature's back."""
    raw = orjson.dumps(invite_fields(link) | changes)
    return "claudemesh://join/" + urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_the_sealing_key_of_another_member_cannot_be_joined_with() -> None:
    """Neither without its private key, nor with a proof of its holder, nor by its holder twice."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        alice = await join_mesh(ada, "alice")
        link, mallory = make_invite(ada, uses=10), make_identity()
        stolen = {
            "x25519_pubkey": alice.identity.x25519_pubkey,
            "x25519_signature": b64encode(
                mallory.sign(
                    b"\0".join(
                        (
                            b"claudemesh-x25519-v1",
                            mallory.ed25519_pubkey.encode(),
                            alice.identity.x25519_pubkey.encode(),
                        )
                    )
                )
            ).decode(),
        }
        thief = replace(mallory, x25519_pubkey=alice.identity.x25519_pubkey)
        body = ada.join_body(link, "mallory", thief) | stolen
        of_alice = ada.join_body(link, "alice", alice.identity)["x25519_proof"]
        for proof in (body["x25519_proof"], of_alice, None, "", 1):
            status, answer = await http_request(
                broker.url, "POST", "/v1/join", body | {"x25519_proof": proof}
            )
            assert (status, answer["error"]) == (403, "bad_signature")
            assert "x25519_proof" in answer["message"]
        twice = replace(
            mallory,
            x25519_privkey=alice.identity.x25519_privkey,
            x25519_pubkey=alice.identity.x25519_pubkey,
        )
        status, answer = await http_request(
            broker.url, "POST", "/v1/join", ada.join_body(link, "mallory", twice) | stolen
        )
        assert (status, answer["error"]) == (409, "key_taken")


async def test_only_owners_and_admins_invite_and_not_above_themselves() -> None:
    """The chain ends at an active owner or admin of that mesh."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        stranger = replace(ada, identity=make_identity())
        member = await join_mesh(ada, "member")
        admin = await join_mesh(ada, "admin", invite=make_invite(ada, role="admin"))
        for inviter, role in ((stranger, "member"), (member, "member"), (admin, "owner")):
            status, body = await join(ada, make_invite(inviter, role=role))
            assert (status, body["error"]) == (403, "not_authorized")
        assert (await join(ada, make_invite(admin)))[0] == 201
        await broker.context.store.members.set_status(ada.mesh_id, admin.member_id, "revoked")
        status, body = await join(ada, make_invite(admin), "late")
    assert (status, body["error"]) == (403, "not_authorized")


async def test_a_name_is_taken_without_regard_to_case() -> None:
    """Names are unique in a mesh; a refused join takes no use."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        link = make_invite(ada)
        status, body = await join(ada, link, "OWNER")
        assert (status, body["error"]) == (409, "name_taken")
        assert (await join(ada, link, "bob"))[0] == 201


async def test_a_proof_for_another_broker_or_name_is_refused() -> None:
    """The proof of possession covers broker, mesh, invite, name and both keys."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        link, identity = make_invite(ada), make_identity()
        for signed in ({"audience": "elsewhere:1"}, {"name": "eve"}, {"invite_id": "other"}):
            body = ada.join_body(link, "bob", identity, signed)
            status, answer = await http_request(broker.url, "POST", "/v1/join", body)
            assert (status, answer["error"]) == (403, "bad_signature")


async def test_an_invite_of_another_broker_is_refused() -> None:
    """A mesh that this broker does not hold cannot be joined here."""
    async with running_broker() as broker, running_broker() as other:
        ada, eve = await create_mesh(broker), await create_mesh(other)
        link = make_invite(eve)
        body = ada.join_body(link, "bob", make_identity())
        status, answer = await http_request(broker.url, "POST", "/v1/join", body)
        assert (status, answer["error"]) == (421, "wrong_address")
        assert other.url.removeprefix("ws://") in answer["message"]
        assert broker.url in answer["message"]
        body = ada.join_body(make_invite(eve, broker_url=broker.url), "bob", make_identity())
        status, answer = await http_request(broker.url, "POST", "/v1/join", body)
        assert (status, answer["error"]) == (404, "mesh_not_found")


BAD: list[tuple[Frame, str]] = [
    ({"invite": 7}, "invalid_invite"),
    ({"invite": "claudemesh://join/%%%"}, "invalid_invite"),
    ({"invite": "x" * 5000}, "invalid_invite"),
    ({"invite": None}, "invalid_invite"),
    ({"name": ""}, "invalid_name"),
    ({"name": "a" * 64}, "invalid_name"),
    ({"name": "a\nb"}, "invalid_name"),
    ({"name": ["bob"]}, "invalid_name"),
    ({"ed25519_pubkey": "00"}, "invalid_key"),
    ({"ed25519_pubkey": 1}, "invalid_key"),
    ({"x25519_pubkey": None}, "invalid_key"),
    ({"x25519_signature": "zz"}, "invalid_signature"),
    ({"x25519_signature": "A" * 88}, "invalid_signature"),
    ({"key_id": "7"}, "invalid_key_id"),
    ({"key_id": {}}, "invalid_key_id"),
    ({"ephemeral": "yes"}, "invalid_ephemeral"),
    ({"proof": 1}, "invalid_signature"),
    ({"colour": "red"}, "unknown_field"),
]


@pytest.mark.parametrize(("change", "error"), BAD)
async def test_each_bad_field_of_a_join_has_a_code_and_a_sentence(change: Frame, error: str) -> None:
    """400, never 500, and the invite is untouched."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        link = make_invite(ada)
        status, body = await join(ada, link, changes=change)
        assert (status, body["error"]) == (400, error)
        assert body["message"]
        assert (await join(ada, link))[0] == 201


RAW = [
    b"",
    b"[]",
    b"null",
    b"{",
    b"\xff\xfe",
    b'{"a": 1, "a": 2}',
    b"[" * 5000,
    b'{"invite": "\\ud800"}',
    b"NaN",
]


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("path", ["/v1/join", "/v1/invites", "/v1/admin/meshes"])
async def test_a_body_that_is_no_json_object_is_refused(path: str, raw: bytes) -> None:
    """400 with a code, for any bytes."""
    async with running_broker() as broker:
        status, body = await http_request(broker.url, "POST", path, raw, token=broker.admin_token)
    assert status == 400
    assert body["error"]
    assert body["message"]


@pytest.mark.parametrize("path", ["/v1/join", "/v1/invites", "/v1/admin/meshes"])
async def test_a_body_that_is_too_large_is_refused(path: str) -> None:
    """413 before anything is parsed."""
    async with running_broker() as broker:
        status, body = await http_request(broker.url, "POST", path, b"x" * 70_000, token=broker.admin_token)
    assert (status, body["error"]) == (413, "payload_too_large")


async def test_an_invite_that_another_meshs_owner_has_seen_is_used_all_the_same() -> None:
    """The holder of a link may have a mesh here: it registers, uses up and revokes only its own."""
    async with running_broker() as broker:
        ada, eve = await create_mesh(broker), await create_mesh(broker, "other", "eve")
        for number in range(3):
            link = make_invite(ada)
            invite_id = invite_fields(link)["invite_id"]
            taken = make_invite(eve, invite_id=invite_id)
            register = await http_request(broker.url, "POST", "/v1/invites", {"invite": taken})
            assert register[0] == 201
            if number == 1:
                assert (await join(eve, taken, "carol"))[0] == 201
            if number == 2:
                body = {"mesh": "other", "invite_id": invite_id}
                token = broker.admin_token
                done = await http_request(broker.url, "POST", "/v1/admin/invites/revoke", body, token=token)
                assert done[0] == 200
            assert (await http_request(broker.url, "POST", "/v1/invites", {"invite": link}))[0] == 201
            assert (await join(ada, link, f"bob{number}"))[0] == 201


async def test_an_invite_for_ephemeral_members_admits_no_other() -> None:
    """Neither by a join, nor by the way for members that a restore has lost."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        link = make_invite(ada, uses=2, ephemeral_only=True)
        refused, body = await join(ada, link)
        again, lost = await http_request(
            broker.url, "POST", "/v1/rejoin", rejoin_body(ada.join_body(link, "bob", make_identity()))
        )
        assert (refused, body["error"]) == (again, lost["error"]) == (403, "invite_ephemeral_only")
        accepted, _ = await join(ada, link, changes={"ephemeral": True})
        members = {one.name: one for one in await broker.context.store.members.all(ada.mesh_id)}
    assert accepted == 201
    assert members["bob"].ephemeral


def rejoin_body(body: Frame) -> Frame:
    """Return the request of a lost member for the body of a join."""
    kept = {name: value for name, value in body.items() if name not in ("ephemeral", "x25519_proof")}
    return kept | {"member_id": "01899e2d-0000-7000-8000-000000000009"}


@pytest.mark.parametrize(
    "changes",
    [
        {"ephemeral": True, "ttl_ms": 0},
        {"ephemeral": True, "ttl_ms": True},
        {"ephemeral": True, "ttl_ms": "1h"},
        {"ephemeral": True, "ttl_ms": 30 * 86_400_000 + 1},
        {"ephemeral": False, "ttl_ms": 1000},
    ],
)
async def test_a_wrong_bound_of_a_life_is_refused(changes: Frame) -> None:
    """A persistent member has none."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        status, body = await join(ada, make_invite(ada), changes=changes)
    assert (status, body["error"]) == (400, "invalid_ttl_ms")


async def test_a_connected_member_ends_when_its_time_is_over() -> None:
    """In lived time: a jump of the wall clock ends none. Its key is refused from then on."""
    clock = ManualClock()
    async with running_broker(clock=clock) as broker:
        ada = await create_mesh(broker)
        worker = await join_mesh(ada, "worker", ephemeral=True, ttl_ms=3_600_000)
        run = broker.context.jobs.run
        async with worker.connect() as link:
            clock.jump(hours=365 * 24)
            assert (await run("ephemeral-reaper")).count == 0
            clock.advance(seconds=3599)
            assert (await run("ephemeral-reaper")).count == 0
            clock.advance(seconds=1)
            assert (await run("ephemeral-reaper")).count == 1
            assert (await link.closed())[0] == 4002
        [left] = [one for one in await broker.context.store.members.all(ada.mesh_id) if one.name == "worker"]
        assert left.status == "left"
