"""Fair shares: one member cannot use up the resources of all, and gets an error that names its quota."""

from __future__ import annotations

import uuid

from claudemesh.broker.app import Broker
from claudemesh.broker.upkeep.audit import Audit
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.clock import ManualClock
from tests.support.processes import mesh, until
from tests.support.wspeer import (
    Frame,
    Link,
    Peer,
    http_request,
    invite_fields,
    make_identity,
    make_invite,
)

LARGE = "x" * 3000
KIND = "member_clone_suspected"
LOST = "member_unconfirmed"


async def fill(link: Link, sender: Peer) -> Frame:
    """Send until a send is refused, and return the refusal."""
    for _ in range(400):
        answer = await link.request(sender.envelope("all", LARGE))
        if answer["status"] != 201:
            return answer
    raise AssertionError("nothing was refused")


async def test_a_member_that_has_stored_its_share_is_refused_alone() -> None:
    """507 for new sends; retries of accepted ones are answered, and others send on."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, member_stored_bytes=50_000)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as hers, bob.connect() as his:
            kept = ada.envelope("all", LARGE)
            assert (await hers.request(kept))["status"] == 201
            refused = await fill(hers, ada)
            assert (refused["status"], refused["error"], refused["quota"]) == (
                507,
                "quota_exceeded",
                "member",
            )
            assert refused["retry_after_ms"] > 0
            assert (await hers.request(kept))["status"] == 200
            assert (await his.request(bob.envelope("all", LARGE)))["status"] == 201
            assert (await hers.request(ada.envelope("all", LARGE)))["status"] == 507
        stored = await broker.context.store.usage.stored(ada.mesh_id)
        assert stored[ada.member_id] <= 50_000


async def test_a_mesh_that_has_stored_its_share_takes_no_more() -> None:
    """The message says whose quota it is."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, stored_bytes=50_000)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as hers, bob.connect() as his:
            assert (await fill(hers, ada))["quota"] == "mesh"
            answer = await his.request(bob.envelope("all", LARGE))
            assert (answer["status"], answer["quota"]) == (507, "mesh")


async def test_a_quota_is_known_to_a_broker_that_was_restarted() -> None:
    """The counts are in the database: the first sends may pass until they are read, no more."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, member_stored_bytes=50_000)
        async with ada.connect() as link:
            await fill(link, ada)
        broker.context.acceptor._quotas._meshes.clear()
        async with ada.connect() as link:
            refused = await fill(link, ada)
        assert refused["quota"] == "member"
        stored = await broker.context.store.usage.stored(ada.mesh_id)
        assert stored[ada.member_id] <= 100_000


async def test_topics_subscriptions_and_invites_have_a_number() -> None:
    """Each with a code of its own; what is there already is no other one."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, member_topics=3, member_subscriptions=2, member_invites=2)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as hers, bob.connect() as his:
            # `all` is the owner's.
            for name in ("one", "two"):
                assert (await hers.call("topic_create", topic=name))["ok"]["created"]
            refused = (await hers.call("topic_create", topic="three"))["error"]
            assert refused["code"] == "too_many_topics"
            assert "3 topics" in refused["message"]
            assert not (await hers.call("topic_create", topic="one"))["ok"]["created"]
            assert (await his.call("topic_create", topic="three"))["ok"]["created"]

            assert (await his.call("topic_subscribe", topic="one"))["ok"]["subscribed"]
            assert (await his.call("topic_subscribe", topic="two"))["error"][
                "code"
            ] == "too_many_subscriptions"
            assert (await his.call("topic_subscribe", topic="one"))["ok"]["subscribed"]
            await his.call("topic_unsubscribe", topic="one")
            assert (await his.call("topic_subscribe", topic="two"))["ok"]["subscribed"]
        statuses = [await register(broker, make_invite(ada)) for _ in range(3)]
        assert statuses == [(201, None), (201, None), (429, "too_many_invites")]


async def test_expired_invites_have_a_number_too() -> None:
    """A used or revoked one is kept; an unused one that is forgotten is refused as before."""
    clock = ManualClock()
    async with running_broker(clock=clock) as broker:
        ada = await create_mesh(broker, member_invites=5)
        used = make_invite(ada, uses=2, expires_at_ms=clock.wall_ms() + 1000)
        revoked = make_invite(ada, expires_at_ms=clock.wall_ms() + 1000)
        bob = await join_mesh(ada, "bob", invite=used)
        assert await register(broker, revoked) == (201, None)
        await broker.context.store.members.revoke_invite(
            ada.mesh_id, invite_fields(revoked)["invite_id"], clock.wall_ms()
        )
        links = []
        for _ in range(8):
            clock.advance(seconds=2)
            links += [make_invite(ada, expires_at_ms=clock.wall_ms() + 1000) for _ in range(5)]
            assert {await register(broker, link) for link in links[-5:]} == {(201, None)}
        kept = {row.id for row in await broker.context.store.members.invites(ada.mesh_id)}
        assert len(kept) <= 5 + 5 + 2
        assert {invite_fields(link)["invite_id"] for link in (used, revoked, *links[-5:])} <= kept
        status, answer = await http_request(
            ada.broker_url, "POST", "/v1/join", ada.join_body(links[0], "cleo", make_identity())
        )
        assert (status, answer["error"]) == (410, "invite_expired")
        assert bob.member_id


async def test_made_up_lost_members_keep_no_other_mesh_and_no_other_invite_waiting() -> None:
    """A holder of any former invite can ask to be added again under any number of keys."""
    async with running_broker(clock=ManualClock()) as broker:
        ada, eve = await create_mesh(broker), await create_mesh(broker, "other", "eve")
        old = make_invite(eve)
        async with ada.connect() as hers, eve.connect() as elsewhere:
            for number in range(80):
                assert await ask_back(eve, old, f"nobody-{number}") == 202
            assert await ask_back(ada, make_invite(ada), "lost-here") == 202
            assert (await hers.event("member_unconfirmed"))["name"] == "lost-here"
            assert await ask_back(eve, make_invite(eve), "lost-there") == 202
            await elsewhere.settle()
            told = [frame["data"]["name"] for frame in elsewhere.waiting("event") if LOST in frame["event"]]
            assert "lost-there" in told
            assert len(told) <= 65


async def ask_back(owner: Peer, link: str, name: str) -> int:
    body = owner.join_body(link, name, make_identity())
    for field in ("ephemeral", "x25519_proof"):
        del body[field]
    body["member_id"] = str(uuid.uuid4())
    return (await http_request(owner.broker_url, "POST", "/v1/rejoin", body))[0]


async def register(broker: Broker, link: str) -> tuple[int, str | None]:
    status, answer = await http_request(
        broker.url.replace("ws", "http", 1), "POST", "/v1/invites", {"invite": link}
    )
    return status, answer.get("error")


async def test_a_member_that_reconnects_for_ever_writes_few_audit_events() -> None:
    """The first at once, the others as one with their number."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, clone_concurrency_policy="prefer_newest")
        for number in range(60):
            async with ada.connect(hello={"host_fingerprint": f"{number % 2:064x}"}) as link:
                await link.settle()
        await broker.context.audit.close()
        events = [
            one for one in await broker.context.store.audit.newest(ada.mesh_id, 1000) if one.kind == KIND
        ]
        assert len(events) == 2
        assert sum(int(str(one.data.get("count", 1))) for one in events) >= 50


async def test_events_that_go_on_are_written_as_one_for_each_while() -> None:
    """A quiet while ends it, and nothing is lost at the end."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        context = broker.context
        audit = Audit(context.store.audit, context.env, together_s=0.05)

        async def counts(at_least: int = 0) -> list[object]:
            while True:
                events = await context.store.audit.newest(ada.mesh_id, 1000)
                found = [one.data.get("count") for one in reversed(events) if one.kind == KIND]
                if len(found) >= at_least:
                    return found

        for _ in range(5):
            audit.record(ada.mesh_id, KIND, ada.member_id)
        assert await counts(at_least=2) == [None, 4]
        audit.record(ada.mesh_id, KIND, ada.member_id)
        await audit.close()
        assert await counts() in ([None, 4, 1], [None, 4, None])


def test_nothing_goes_dead_for_a_quota() -> None:
    """The daemon keeps what is refused, says why, and others' messages arrive meanwhile."""
    with mesh("alice", "bob") as running:
        alice, bob = running.daemons["alice"], running.daemons["bob"]
        token = str(running.broker.data / "admin_token")
        set_quota = ["broker", "mesh", "set", running.slug, "--member-stored-bytes", "20000"]
        running.cli(alice, *set_quota, "--broker", running.broker.url, "--admin-token-file", token)
        for daemon in (alice, bob):
            daemon.stop()
            daemon.start()
            daemon.ready()
        for number in range(10):
            assert alice.send("bob", LARGE, client_message_id=f"q-{number}")[0] == 202
        until(
            lambda: any(row["last_error"] == "quota_exceeded" for row in alice.outbox().values()),
            "it is refused",
        )
        assert bob.send("alice", "hello")[0] == 202
        until(lambda: [item["body"] for item in alice.inbox()] == ["hello"], "bob's message arrives")
        until(
            lambda: {row["status"] for row in alice.outbox().values()} <= {"done", "pending"},
            "none is under way",
        )
        rows = alice.outbox().values()
        assert {row["status"] for row in rows} == {"done", "pending"}
        assert {row["last_error"] for row in rows if row["status"] == "pending"} == {"quota_exceeded"}
