"""Handshake of the broker: accepted and refused hellos, and the close code of each refusal."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from claudemesh.broker.settings import Limits
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.clock import ManualClock
from tests.support.values import replace
from tests.support.wspeer import Peer, dial, make_identity, new_id

UNKNOWN_MESH = "01900000-0000-7000-8000-000000000000"


async def refusal(peer: Peer, **hello: Any) -> tuple[int, str]:
    """Return the close code and kind that a hello with these changes meets."""
    async with dial(peer.broker_url) as link:
        await link.say(peer.hello(await link.next("challenge"), **hello))
        code, reason = await link.closed()
        return code, reason["kind"]


async def test_a_member_gets_in_and_learns_about_its_mesh() -> None:
    """challenge, hello, hello_ack, features: then traffic."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            assert link.ack["member_id"] == ada.member_id
            assert link.ack["mesh"]["slug"] == "home"
            assert link.ack["epoch"]
            assert link.features["missing_required"] == []
            params = link.features["supported"]["client_message_id_dedupe"]["params"]
            assert params["mode"] == "retention_scoped"
            assert params["request_fingerprint"] is True
            assert link.features["supported"]["max_payload"]["params"]["inline_bytes"] == 262_144


async def test_the_time_that_sends_age_by_is_moved_by_no_clock_that_is_set() -> None:
    """The challenge shows the time of day; hello_ack has the time that the broker's database was in use."""
    clock = ManualClock()
    async with running_broker(clock=clock) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            before = link.ack["server_time"]
        clock.jump(hours=24 * 365)
        clock.advance(seconds=5)
        async with dial(ada.broker_url) as link:
            challenge = await link.next("challenge")
            await link.say(ada.hello(challenge))
            ack = await link.next("hello_ack")
    assert challenge["server_time"] == clock.wall_ms()
    assert ack["server_time"] == before + 5000


async def test_a_feature_that_nobody_knows_is_reported_as_missing() -> None:
    """The daemon decides what a missing feature means."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect(negotiate=False) as link:
            answer = await link.negotiate(require=("telepathy",))
            assert answer["missing_required"] == ["telepathy"]


async def test_an_unknown_key_is_unauthenticated() -> None:
    """4001, of a kind of its own, for a stranger, another mesh's member, and an unknown mesh alike."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        other = await create_mesh(broker, "other")
        stranger = replace(ada, identity=make_identity())
        assert await refusal(stranger) == (4001, "not_a_member")
        assert await refusal(replace(ada, mesh_id=other.mesh_id)) == (4001, "not_a_member")
        assert await refusal(replace(ada, mesh_id=UNKNOWN_MESH)) == (4001, "not_a_member")


async def test_a_signature_that_does_not_fit_is_unauthenticated() -> None:
    """The transcript is signed: no field of it may differ."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        assert await refusal(ada, signature=b64encode(bytes(64)).decode()) == (4001, "unauthenticated")
        async with dial(ada.broker_url) as link:
            hello = ada.hello(await link.next("challenge"))
            await link.say(hello | {"instance_id": new_id()})
            assert (await link.closed())[0] == 4001


async def test_a_replayed_hello_is_refused() -> None:
    """A hello answers one challenge; on the next connection it proves nothing."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with dial(ada.broker_url) as link:
            hello = ada.hello(await link.next("challenge"))
            await link.say(hello)
            await link.next("hello_ack")
        async with dial(ada.broker_url) as link:
            await link.next("challenge")
            await link.say(hello)
            assert (await link.closed())[0] == 4001


async def test_a_hello_to_another_broker_is_refused() -> None:
    """The audience is signed: a broker cannot pass a hello on to another one."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with dial(ada.broker_url) as link:
            await link.say(ada.hello(await link.next("challenge"), audience="mesh.example.org:443"))
            code, reason = await link.closed()
        assert (code, reason) == (4001, {"kind": "wrong_address", "detail": broker.url})


async def test_the_host_of_a_request_makes_no_address_its_own() -> None:
    """A relay can send any Host."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        port = int(broker.url.rpartition(":")[2])
        relayed = replace(ada, broker_url=f"ws://relay.example.org:{port}")
        async with dial(relayed.broker_url, host="127.0.0.1", port=port) as link:
            await link.say(relayed.hello(await link.next("challenge")))
            code, reason = await link.closed()
        assert (code, reason["kind"]) == (4001, "wrong_address")


async def test_public_urls_are_believed_beside_the_address_it_listens_at() -> None:
    """Several of them: a mesh that gets another address keeps its members."""
    urls = ("wss://mesh.example.org", "ws://mesh.example.org:7900")
    async with running_broker(public_url=urls) as broker:
        ada = await create_mesh(broker)
        for audience in ("mesh.example.org:443", "mesh.example.org:7900", ada.audience):
            async with ada.connect(hello={"audience": audience}) as link:
                assert link.ack["member_id"] == ada.member_id
        async with dial(ada.broker_url) as link:
            await link.say(ada.hello(await link.next("challenge"), audience="other.example.org:443"))
            reason = (await link.closed())[1]
        assert reason == {"kind": "wrong_address", "detail": " ".join(urls)}


async def test_a_revoked_member_is_told_so() -> None:
    """4002 lets its daemon stop for good; one that left is merely no member."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
        await broker.context.store.members.set_status(ada.mesh_id, bob.member_id, "revoked")
        await broker.context.store.members.set_status(ada.mesh_id, cleo.member_id, "left")
        assert await refusal(bob) == (4002, "revoked")
        assert await refusal(cleo) == (4001, "left")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"type": "send", "id": 1, "envelope": {}}',
        '{"type": "hello"}',
        '{"type": "hello", "mesh_id": 3}',
    ],
)
async def test_anything_but_a_hello_comes_too_early(text: str) -> None:
    """Before hello_ack every other frame is a protocol error."""
    async with running_broker() as broker, dial(broker.url) as link:
        await link.next("challenge")
        await link.websocket.send(text)
        code, reason = await link.closed()
        assert (code, reason["kind"]) == (4000, "protocol_error")


async def test_a_binary_frame_is_a_protocol_error() -> None:
    """Frames are text."""
    async with running_broker() as broker, dial(broker.url) as link:
        await link.next("challenge")
        await link.websocket.send(b"\x00\x01")
        assert (await link.closed())[0] == 4000


async def test_a_large_frame_before_hello_ack_is_refused() -> None:
    """8 KiB bound what a stranger can make the broker look at."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with dial(ada.broker_url) as link:
            hello = ada.hello(await link.next("challenge"))
            await link.say(hello | {"padding": "x" * 8192})
            assert (await link.closed())[0] == 1009
        async with ada.connect(hello={"padding": "x" * 4096}) as link:
            assert link.ack["member_id"] == ada.member_id


async def test_a_handshake_that_takes_too_long_is_ended() -> None:
    """The whole handshake has a limit, the feature negotiation included."""
    async with running_broker(limits=Limits(handshake_s=2)) as broker:
        ada = await create_mesh(broker)
        async with dial(ada.broker_url) as link:
            assert (await link.closed())[0] == 4000
        async with ada.connect(negotiate=False) as link:
            assert (await link.closed())[0] == 4000


async def test_traffic_before_feature_negotiation_is_a_protocol_error() -> None:
    """Features are negotiated before any other traffic."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect(negotiate=False) as link:
            await link.say({"type": "send", "id": 1, "envelope": ada.envelope("all")})
            assert (await link.closed())[0] == 4000


async def test_a_second_hello_is_a_protocol_error() -> None:
    """A connection belongs to one member for as long as it lives."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with dial(ada.broker_url) as link:
            challenge = await link.next("challenge")
            await link.say(ada.hello(challenge))
            await link.next("hello_ack")
            await link.negotiate()
            await link.say(ada.hello(challenge))
            assert (await link.closed())[0] == 4000


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"subprotocol": "something.else"}, 400),
        ({"additional_headers": {"Origin": "http://evil.example"}}, 403),
        ({"origin": "http://127.0.0.1"}, 403),
    ],
)
async def test_what_cannot_be_a_daemon_is_refused_before_the_upgrade(
    options: dict[str, Any], status: int
) -> None:
    """A missing subprotocol or a web page's Origin never gets a WebSocket."""
    async with running_broker() as broker:
        with pytest.raises(InvalidStatus) as caught:
            async with dial(broker.url, **options):
                pass
        assert caught.value.response.status_code == status


async def test_connections_are_bounded() -> None:
    """A stranger too many is not accepted while the others are new; a member too many gets a 503."""
    async with running_broker(limits=Limits(strangers=1)) as broker, dial(broker.url) as link:
        await link.next("challenge")
        with pytest.raises((OSError, ConnectionClosed, InvalidMessage)):
            async with dial(broker.url):
                pass
    async with running_broker(limits=Limits(connections=1)) as broker:
        ada = await create_mesh(broker)
        async with ada.connect():
            with pytest.raises(InvalidStatus):
                async with dial(broker.url):
                    pass
