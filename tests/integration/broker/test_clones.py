"""Clone policies: close codes and audit (docs/spec/broker.md, Two connections of one member)."""

from __future__ import annotations

from claudemesh.broker.app import Broker
from claudemesh.broker.connections.clone_warnings import CloneWarnings
from tests.support.broker import create_mesh, join_mesh, nothing_else_is_told, running_broker
from tests.support.clock import ManualClock
from tests.support.wspeer import Peer, dial, make_invite, new_id

SUSPECTED = "member_clone_suspected"
HOST_A, HOST_B = "aa" * 32, "bb" * 32


async def audited(broker: Broker, mesh_id: str, kind: str, count: int) -> list[dict[str, object]]:
    """Wait until so many events of a kind are written; return their data."""
    while True:
        events = [
            dict(event.data)
            for event in await broker.context.store.audit.newest(mesh_id, 100)
            if event.kind == kind
        ]
        if len(events) >= count:
            return events


async def test_prefer_newest_closes_the_older() -> None:
    """4003 for the older connection; the newer one gets what is owed."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, clone_concurrency_policy="prefer_newest")
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending, bob.connect() as older:
            await sending.request(ada.envelope(bob))
            first = await older.deliveries(1)
            async with bob.connect() as newer:
                code, reason = await older.closed()
                assert await newer.deliveries(1) == first
        events = await audited(broker, ada.mesh_id, "member_concurrent_connection", 1)
    assert (code, reason["kind"]) == (4003, "replaced_by_newer_connection")
    assert events[0]["outcome"] == "older_replaced"


async def test_a_replacement_is_no_coming_or_going() -> None:
    """The member stays online: the others hear neither leave nor join."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link, bob.connect() as older:
            await link.event("peer_join")
            async with bob.connect():
                await older.closed()
                await nothing_else_is_told(link, ada)


async def test_prefer_oldest_refuses_the_newer() -> None:
    """4004 for the newer connection, before hello_ack; the older one goes on."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, clone_concurrency_policy="prefer_oldest")
        async with ada.connect() as older:
            async with dial(ada.broker_url) as newer:
                await newer.say(ada.hello(await newer.next("challenge")))
                code, reason = await newer.closed()
                assert newer.waiting("hello_ack") == []
            assert (await older.request(ada.envelope("all")))["status"] == 201
        events = await audited(broker, ada.mesh_id, "member_concurrent_connection", 1)
    assert (code, reason["kind"]) == (4004, "member_already_connected")
    assert events[0]["outcome"] == "newer_refused"


async def test_allow_concurrent_delivers_to_both_and_the_first_ack_wins() -> None:
    """Each connection gets every delivery; once one has acknowledged, nothing is owed."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, clone_concurrency_policy="allow_concurrent")
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending, bob.connect() as one, bob.connect() as two:
            await sending.request(ada.envelope(bob))
            first, second = await one.deliveries(1), await two.deliveries(1)
            await one.acknowledge(first)
            await two.acknowledge(second)
            while await broker.context.store.messages.deliveries_pending():
                await two.settle()
        events = await audited(broker, ada.mesh_id, "member_concurrent_connection", 1)
    assert first == second
    assert events[0]["outcome"] == "admitted"


async def test_the_same_instance_may_come_back_under_every_policy() -> None:
    """A daemon that reconnects before the broker noticed the cut is no clone: no refusal, no audit."""
    for policy in ("prefer_newest", "prefer_oldest", "allow_concurrent"):
        async with running_broker() as broker:
            ada = await create_mesh(broker, clone_concurrency_policy=policy)
            same = {"instance_id": new_id()}
            async with ada.connect(hello=same), ada.connect(hello=same) as again:
                assert (await again.request(ada.envelope("all")))["status"] == 201
            # Events are written in their order.
            await join_mesh(ada, "the-last")
            await audited(broker, ada.mesh_id, "member_joined", 1)
            kinds = [event.kind for event in await broker.context.store.audit.newest(ada.mesh_id, 100)]
            assert "member_concurrent_connection" not in kinds


async def seen_on(broker: Broker, peer: Peer, host: str) -> None:
    """Connect from a host and wait until the broker has written it down."""
    async with peer.connect(hello={"host_fingerprint": host}):
        while True:
            member = await broker.context.store.members.by_key(peer.mesh_id, peer.pubkey)
            if member is not None and member.last_seen_host_fingerprint == bytes.fromhex(host):
                return


async def test_another_host_is_reported_as_a_suspected_clone() -> None:
    """A changed host fingerprint is audited; the connection itself is let in."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        await seen_on(broker, ada, HOST_A)
        await seen_on(broker, ada, HOST_A)
        await seen_on(broker, ada, HOST_B)
        events = await audited(broker, ada.mesh_id, "member_clone_suspected", 1)
    assert len(events) == 1


async def test_a_suspected_clone_is_told_to_all_connections_of_the_member_and_to_owners_and_admins() -> None:
    """Also to the connection that is replaced by it, before its close; other members get no event."""
    async with running_broker() as broker:
        owner = await create_mesh(broker)
        admin = await join_mesh(owner, "root", invite=make_invite(owner, role="admin"))
        bob, eve = await join_mesh(owner, "bob"), await join_mesh(owner, "eve")
        await seen_on(broker, bob, HOST_A)
        async with owner.connect() as owns, admin.connect() as administers, eve.connect() as other:
            async with bob.connect(hello={"host_fingerprint": HOST_A}) as older:
                await older.settle()
                async with bob.connect(hello={"host_fingerprint": HOST_B}) as newer:
                    for link in (owns, administers, newer):
                        told = await link.event("member_clone_suspected")
                        assert (told["name"], told["outcome"]) == ("bob", "older_replaced")
                    code, _ = await older.closed()
                    events = [frame["event"] for frame in older.waiting("event")]
                    assert (code, "member_clone_suspected" in events) == (4003, True)
            await other.settle()
            assert all(frame["event"] != "member_clone_suspected" for frame in other.waiting("event"))


async def test_a_suspected_clone_that_is_refused_is_told_too() -> None:
    """prefer_oldest refuses the copy; the owner of the original has to be informed."""
    async with running_broker() as broker:
        owner = await create_mesh(broker, clone_concurrency_policy="prefer_oldest")
        bob = await join_mesh(owner, "bob")
        await seen_on(broker, bob, HOST_A)
        async with owner.connect() as owns, bob.connect(hello={"host_fingerprint": HOST_A}) as older:
            await older.settle()
            async with dial(bob.broker_url) as newer:
                await newer.say(bob.hello(await newer.next("challenge"), host_fingerprint=HOST_B))
                assert (await newer.closed())[0] == 4004
            for link in (owns, older):
                assert (await link.event("member_clone_suspected"))["outcome"] == "newer_refused"


async def test_a_member_that_changes_its_host_for_ever_warns_owners_once_in_a_while() -> None:
    """Not once for each connection. Another member is warned of all the same, and the audit counts all."""
    clock = ManualClock()
    async with running_broker(clock=clock) as broker:
        owner = await create_mesh(broker)
        bob, eve = await join_mesh(owner, "bob"), await join_mesh(owner, "eve")
        for member in (bob, eve):
            await seen_on(broker, member, HOST_A)

        async with owner.connect() as owns:

            async def warned(member: Peer, *hosts: str) -> list[str]:
                """Let a member come from hosts; return the members of whom the owner was warned up to now."""
                for host in hosts:
                    await seen_on(broker, member, host)
                await owns.settle()
                events = [frame for frame in owns.waiting("event") if frame["event"] == SUSPECTED]
                return [frame["data"]["name"] for frame in events]

            assert await warned(bob, *[HOST_B, HOST_A] * 10) == ["bob"]
            assert await warned(eve, HOST_B) == ["bob", "eve"]
            clock.advance(seconds=300)
            assert await warned(bob, HOST_B) == ["bob", "eve", "bob"]


def test_a_mesh_whose_members_all_change_their_hosts_is_warned_at_a_bounded_rate() -> None:
    """Another mesh is not kept waiting by it."""
    clock = ManualClock()
    warnings = CloneWarnings(clock)
    assert sum(warnings.take("one", str(number)) for number in range(1000)) == 64
    assert warnings.take("other", "0")
    clock.advance(seconds=10)
    assert sum(warnings.take("one", str(number)) for number in range(1000, 2000)) == 2
