"""The call `rotate_keys` at a real broker: the connection goes on, the older keys end everywhere else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import pytest

from claudemesh.broker.settings import Limits
from claudemesh.protocol.keys import Identity
from claudemesh.protocol.replies import peer_entry
from claudemesh.protocol.rotation import make_rotation, proven_chain
from tests.integration.broker.test_clones import audited
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.rotations import request_of
from tests.support.stores import database
from tests.support.values import replace
from tests.support.wspeer import Frame, Link, Peer, dial, http_request, make_identity, new_id

NO_SIGNATURE = b64encode(bytes(64)).decode()


def keyed(peer: Peer, identity: Identity) -> Peer:
    """Return the peer with other keys."""
    return replace(peer, identity=identity)


async def entry(link: Link, member_id: str) -> Frame:
    """Return a member's entry in the list."""
    reply = await link.call("peers")
    [found] = [item for item in reply["ok"]["items"] if item["member_id"] == member_id]
    return dict(found)


async def test_a_connection_goes_on_and_sends_under_both_keys() -> None:
    """A send that was signed before the rotation is accepted after it, as is one by the new key."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        new = make_identity()
        async with ada.connect() as link:
            before = ada.envelope(bob, "signed before")
            reply = await link.call("rotate_keys", **request_of(ada, new))
            assert reply["ok"] == {"member_id": ada.member_id, "pubkey": new.ed25519_pubkey}
            assert (await link.request(before))["status"] == 201
            assert (await link.request(keyed(ada, new).envelope(bob)))["status"] == 201


async def test_a_send_whose_answer_was_lost_before_the_rotation_is_recognised_after_it() -> None:
    """Under its id, signed by the older key, on a connection of the new key: the same message."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        envelope, new = ada.envelope(bob, client_message_id=new_id()), make_identity()
        async with ada.connect() as link:
            sent = await link.request(envelope)
            await link.call("rotate_keys", **request_of(ada, new))
        async with keyed(ada, new).connect() as link:
            again = await link.request(envelope)
            assert again["broker_message_id"] == sent["broker_message_id"]
            assert again["status"] == 200


async def test_the_list_proves_the_rotation_to_peers() -> None:
    """The entry has the chain, and the older x25519 key with its signature."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        new = make_identity()
        async with bob.connect() as watching, ada.connect() as link:
            await link.call("rotate_keys", **request_of(ada, new))
            told = await watching.event("member_keypair_rotated")
            assert told == {
                "name": "owner",
                "member_id": ada.member_id,
                "pubkey": new.ed25519_pubkey,
                "old_pubkey": ada.pubkey,
            }
            found = peer_entry(await entry(watching, ada.member_id))
        assert (found.pubkey, found.x25519_pubkey) == (new.ed25519_pubkey, new.x25519_pubkey)
        keys = {"pubkey": found.pubkey, "x25519_pubkey": found.x25519_pubkey}
        [statement] = proven_chain(found.rotations, mesh_id=ada.mesh_id, **keys)
        assert statement.old_pubkey == ada.pubkey
        assert statement.old_x25519_pubkey == ada.identity.x25519_pubkey
        [kept] = await audited(broker, ada.mesh_id, "member_keypair_rotated", 1)
        assert kept["old_pubkey"] == ada.pubkey


async def test_the_older_key_authenticates_no_connection_any_more() -> None:
    """The reason is told to its holder, so that a daemon finishes a rotation whose answer it has lost."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        new = make_identity()
        async with ada.connect() as link:
            await link.call("rotate_keys", **request_of(ada, new))
        async with dial(ada.broker_url) as link:
            await link.say(ada.hello(await link.next("challenge")))
            code, reason = await link.closed()
            assert (code, reason["kind"]) == (4001, "key_rotated_out")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda ada, bob, new: request_of(ada, new) | {"proof": NO_SIGNATURE}, "bad_signature"),
        (lambda ada, bob, new: request_of(ada, new) | {"x25519_proof": None}, "bad_signature"),
        (lambda ada, bob, new: request_of(ada, new) | {"x25519_signature": NO_SIGNATURE}, "bad_signature"),
        (lambda ada, bob, new: request_of(ada, new, make_identity()), "not_authorized"),
        (lambda ada, bob, new: request_of(bob, new), "not_authorized"),
        (lambda ada, bob, new: request_of(ada, bob.identity), "key_taken"),
        (lambda ada, bob, new: request_of(ada, new) | {"rotations": []}, "invalid_params"),
        (lambda ada, bob, new: request_of(ada, new) | {"rotations": [{}]}, "invalid_rotation"),
        (lambda ada, bob, new: request_of(ada, new) | {"key_id": "k"}, "invalid_key_id"),
        (lambda ada, bob, new: request_of(ada, new) | {"more": 1}, "unknown_field"),
        (lambda ada, bob, new: forged(ada, new), "bad_signature"),
    ],
)
async def test_a_rotation_without_every_proof_changes_nothing(
    wrong: Callable[[Peer, Peer, Identity], Frame], code: str
) -> None:
    """The older key, both new keys, and the caller's own membership are proven."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link:
            reply = await link.call("rotate_keys", **wrong(ada, bob, make_identity()))
            assert reply["error"]["code"] == code, reply
            assert (await entry(link, ada.member_id))["pubkey"] == ada.pubkey


async def test_a_chain_of_keys_that_no_member_has_is_not_even_verified() -> None:
    """Sixty-four signatures are too much work for a request of a stranger."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        one = request_of(ada, make_identity(), make_identity()) | {"proof": NO_SIGNATURE}
        body = {"mesh_id": ada.mesh_id, **one, "rotations": one["rotations"] * 64}
        status, answer = await http_request(ada.broker_url, "POST", "/v1/rotate", body)
        assert (status, answer["error"]) == (403, "not_a_member")
        # Of a member the proofs are what counts.
        body = {"mesh_id": ada.mesh_id, **request_of(ada, make_identity()), "proof": NO_SIGNATURE}
        status, answer = await http_request(ada.broker_url, "POST", "/v1/rotate", body)
        assert (status, answer["error"]) == (403, "bad_signature")


def forged(ada: Peer, new: Identity) -> Frame:
    """Return a rotation from a member's key that another key has signed."""
    statement = make_rotation(make_identity(), new, mesh_id=ada.mesh_id, rotated_at_ms=1)
    wrong = replace(statement, old_pubkey=ada.pubkey)
    return request_of(ada, new) | {"rotations": [wrong.to_dict()]}


async def test_other_connections_of_the_member_are_closed_at_every_broker() -> None:
    """They were opened with the older key. They are told to connect again, which then needs the new one."""
    async with (
        database() as url,
        running_broker(database_url=url) as one,
        running_broker(database_url=url) as two,
    ):
        ada = await create_mesh(one, clone_concurrency_policy="allow_concurrent")
        new = make_identity()
        there = replace(ada, broker_url=two.url)
        async with ada.connect() as caller, ada.connect() as here, there.connect() as elsewhere:
            await caller.call("rotate_keys", **request_of(ada, new))
            assert (await here.closed())[0] == 4006
            assert (await elsewhere.closed())[0] == 4006
            await caller.settle()


async def test_a_member_rotates_so_often_a_day_and_repetitions_are_free() -> None:
    """Each rotation goes to the whole mesh. Another member is not kept from its own."""
    async with running_broker(limits=Limits(key_rotations_a_day=2)) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link, bob.connect() as other:
            for _ in range(2):
                new = make_identity()
                asked = request_of(ada, new)
                replies = [await link.call("rotate_keys", **asked) for _ in range(3)]
                assert {reply["ok"]["pubkey"] for reply in replies} == {new.ed25519_pubkey}
                ada = keyed(ada, new)
            refused = await link.call("rotate_keys", **request_of(ada, make_identity()))
            assert refused["error"]["code"] == "too_many_rotations"
            status, body = await http_request(
                broker.url,
                "POST",
                "/v1/rotate",
                {"mesh_id": ada.mesh_id, **request_of(ada, make_identity())},
            )
            assert (status, body["error"]) == (429, "too_many_rotations")
            assert "ok" in await link.call("rotate_keys", **asked)
            assert "ok" in await other.call("rotate_keys", **request_of(bob, make_identity()))
