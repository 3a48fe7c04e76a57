"""Several brokers on one Postgres act as one mesh (docs/spec/broker.md, Several brokers)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.deadlines import DatabaseDeadlines
from claudemesh.broker.store.postgres import cluster as postgres_cluster
from claudemesh.protocol.possession import challenge_keypair
from claudemesh.protocol.statements import sign_statement
from claudemesh.runtime.exits import ExitWith
from tests.integration.broker import test_queues as queues
from tests.integration.broker.test_clones import audited
from tests.integration.postgres.shared import watching
from tests.support.broker import create_mesh, join_mesh, nothing_else_is_told, running_broker
from tests.support.postgres import sql
from tests.support.stores import database
from tests.support.values import replace
from tests.support.waiting import WAIT_S
from tests.support.wspeer import Peer, dial, http_request, new_id, nothing_else_is_delivered

# No test here waits for the sweep unless it is about the sweep.
SIGNALS_ONLY = Limits(sweep_s=3600)


@asynccontextmanager
async def brokers(
    tmp_path: Path, count: int = 2, limits: Limits = SIGNALS_ONLY
) -> AsyncGenerator[tuple[list[Broker], str]]:
    """So many brokers on one database."""
    async with database() as url, AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(
                running_broker(database_url=url, data_dir=tmp_path / str(number), limits=limits)
            )
            for number in range(count)
        ]
        yield made, url


def at(peer: Peer, broker: Broker) -> Peer:
    """The same member, dialling another broker."""
    return replace(peer, broker_url=broker.url)


async def eventually(condition: Any) -> None:
    """Wait until a coroutine function says so."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - the database has no event to wait for
            await asyncio.sleep(0.01)


async def company(*made: Broker) -> None:
    """Wait until each knows of another."""
    async with asyncio.timeout(WAIT_S):
        while not all(broker.context.signals.has_company for broker in made):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_message_accepted_by_one_broker_is_delivered_by_another_at_once(tmp_path: Path) -> None:
    """A dm and a topic post, woken by a signal and not by the sweep; acknowledged there."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one)
        bob = at(await join_mesh(ada, "bob"), two)
        async with ada.connect() as sending, bob.connect() as receiving:
            await company(one, two)
            await receiving.settle()
            dm, post = ada.envelope(bob, "for bob"), ada.envelope("all", "for all")
            results = [await sending.request(dm), await sending.request(post)]
            async with asyncio.timeout(WAIT_S):
                frames = await receiving.deliveries(2)
            await receiving.acknowledge(frames)

            async def nothing_is_owed() -> bool:
                return await one.context.store.messages.deliveries_pending() == 0

            await eventually(nothing_is_owed)
        assert [result["status"] for result in results] == [201, 201]
        assert [frame["envelope"] for frame in frames] == [dm, post]


async def test_the_same_send_at_two_brokers_is_accepted_once(tmp_path: Path) -> None:
    """The second one gets the result of the first."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one, clone_concurrency_policy="allow_concurrent")
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as first, at(ada, two).connect() as second, bob.connect() as receiving:
            for number in range(20):
                envelope = ada.envelope(bob, f"message {number}")
                results = await asyncio.gather(first.request(envelope), second.request(envelope))
                assert sorted(result["status"] for result in results) == [200, 201]
                assert len({result["broker_message_id"] for result in results}) == 1
            assert len(await receiving.deliveries(20)) == 20
            await nothing_else_is_delivered(receiving, bob, first, ada)


async def test_a_wake_up_that_got_lost_is_found_by_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any signal the message arrives a little later, and that is counted."""

    async def lost(self: object, payloads: object) -> None:
        return None

    monkeypatch.setattr(postgres_cluster.PostgresCluster, "signal", lost)
    async with brokers(tmp_path, limits=Limits(sweep_s=0.1)) as ((one, two), _):
        ada = await create_mesh(one)
        bob = at(await join_mesh(ada, "bob"), two)
        async with ada.connect() as sending, bob.connect() as receiving:
            await receiving.settle()
            await sending.request(ada.envelope(bob))
            async with asyncio.timeout(WAIT_S):
                await receiving.acknowledge(await receiving.deliveries(1))
            _, metrics = await http_request(two.url, "GET", "/metrics")
        assert "cm_broker_wakeups_missed_total 1.0" in metrics


async def test_coming_and_going_is_heard_at_every_broker(tmp_path: Path) -> None:
    """peer_join, peer_leave and the directory know of members elsewhere."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link:
            async with at(bob, two).connect():
                assert (await link.event("peer_join"))["member_id"] == bob.member_id
                reply = await link.call("peers")
                assert {item["name"]: item["online"] for item in reply["ok"]["items"]} == {
                    "bob": True,
                    "owner": True,
                }
            assert (await link.event("peer_leave"))["member_id"] == bob.member_id
            cleo = await join_mesh(at(ada, two), "cleo")
            assert (await link.event("member_added"))["member_id"] == cleo.member_id


@pytest.mark.parametrize("has_signals", [True, False])
async def test_changes_of_members_are_heard_at_every_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_signals: bool
) -> None:
    """A signal brings them at once; without it the sweep finds them. In their order, without a gap."""
    if not has_signals:

        async def lost(self: object, payloads: object) -> None:
            return None

        monkeypatch.setattr(postgres_cluster.PostgresCluster, "signal", lost)
    limits = SIGNALS_ONLY if has_signals else Limits(sweep_s=0.1)
    async with brokers(tmp_path, limits=limits) as ((one, two), _):
        ada = await create_mesh(one)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link, at(bob, two).connect() as other:
            version = (await link.call("peers", follow=True))["ok"]["version"]
            names: list[str] = []
            await other.call("profile", summary="builds")
            await join_mesh(at(ada, two), "cleo")
            await join_mesh(ada, "dan")
            async with asyncio.timeout(WAIT_S):
                while len(names) < 3:
                    change = await link.event("members_changed")
                    assert change["since"] == version
                    version = change["version"]
                    names += [item["name"] for item in change["items"]]
            assert names == ["bob", "cleo", "dan"]


@pytest.mark.parametrize("policy", ["prefer_newest", "prefer_oldest", "allow_concurrent"])
async def test_the_clone_policy_holds_across_brokers(tmp_path: Path, policy: str) -> None:
    """4003 for the older, 4004 for the newer, or both stay; each case is audited."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one, clone_concurrency_policy=policy)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending, bob.connect() as older:
            await older.settle()
            if policy == "prefer_oldest":
                async with dial(two.url) as newer:
                    await newer.say(at(bob, two).hello(await newer.next("challenge")))
                    assert (await newer.closed())[0] == 4004
            else:
                async with at(bob, two).connect() as newer:
                    if policy == "prefer_newest":
                        assert (await older.closed())[0] == 4003
                    await company(one, two)
                    await sending.request(ada.envelope(bob))
                    async with asyncio.timeout(WAIT_S):
                        [frame] = await newer.deliveries(1)
                    if policy == "allow_concurrent":
                        assert await older.deliveries(1) == [frame]
        [event] = await audited(two, ada.mesh_id, "member_concurrent_connection", 1)
        outcomes = {"prefer_newest": "older_replaced", "prefer_oldest": "newer_refused"}
        assert event["outcome"] == outcomes.get(policy, "admitted")


async def test_two_brokers_that_are_asked_at_once_admit_one(tmp_path: Path) -> None:
    """prefer_oldest: of connections that come in the same moment one stays."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one, clone_concurrency_policy="prefer_oldest")
        bob = await join_mesh(ada, "bob")

        async def come(broker: Broker, over: asyncio.Event) -> bool:
            try:
                async with at(bob, broker).connect() as link:
                    await link.settle()
                    await over.wait()
                    return True
            except Exception:
                return False

        for _ in range(5):
            over = asyncio.Event()
            coming = [asyncio.ensure_future(come(broker, over)) for broker in (one, two)]
            await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            over.set()
            assert sorted(await asyncio.gather(*coming)) == [False, True]

            async def nobody_is_here() -> bool:
                return not await one.context.store.presence.online(bob.mesh_id, one.context.lived.now_ms())

            await eventually(nobody_is_here)


async def test_a_daemon_that_changes_the_broker_replaces_itself_under_any_policy(tmp_path: Path) -> None:
    """Its old connection may look alive for a while; the same instance is no clone."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one, clone_concurrency_policy="prefer_oldest")
        bob = await join_mesh(ada, "bob")
        same = {"instance_id": new_id()}
        async with ada.connect() as watching, bob.connect(hello=same) as older:
            await watching.event("peer_join")
            async with at(bob, two).connect(hello=same) as newer:
                assert (await older.closed())[0] == 4003
                await newer.settle()
                await nothing_else_is_told(watching, ada)


async def test_revocation_ends_connections_at_every_broker(tmp_path: Path) -> None:
    """4002, at once by a signal."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one)
        bob = await join_mesh(ada, "bob")
        async with at(bob, two).connect() as link:
            body = {"mesh": ada.slug, "member": "bob"}
            status, _ = await http_request(
                one.url, "POST", "/v1/admin/members/revoke", body, token=one.admin_token
            )
            assert status == 200
            async with asyncio.timeout(WAIT_S):
                assert (await link.closed())[0] == 4002


async def test_a_member_revoked_by_another_one_is_refused_at_every_broker(tmp_path: Path) -> None:
    """The owner asks one broker; the member is connected to the other one, and told before it is closed."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one)
        bob, carol = at(await join_mesh(ada, "bob"), two), at(await join_mesh(ada, "carol"), two)
        statement = sign_statement(
            ada.identity,
            "revocation",
            mesh_id=ada.mesh_id,
            subject=bob.member_id,
            at_ms=1,
            pubkey=bob.identity.ed25519_pubkey,
        ).to_dict()
        async with ada.connect() as owner, bob.connect() as link, carol.connect() as other:
            await company(one, two)
            reply = await owner.call("member_revoke", statement=statement)
            assert reply["ok"]["changed"]
            assert (await link.event("member_revoked"))["statement"] == statement
            assert (await link.closed())[0] == 4002
            assert (await other.event("keypair_revoked"))["statement"] == statement
        for each in (at(bob, one), bob):
            async with dial(each.broker_url) as refused:
                await refused.say(each.hello(await refused.next("challenge")))
                assert (await refused.closed())[0] == 4002
        events = await two.context.store.audit.newest(ada.mesh_id, 10)
        [event] = [event for event in events if event.kind == "member_revoked"]
        assert (event.member_id, event.data["by"]) == (bob.member_id, ada.member_id)


async def test_a_revocation_that_was_not_heard_is_found_by_the_sweep(tmp_path: Path) -> None:
    """The database decides on membership, for changes of any writer."""
    async with brokers(tmp_path, count=1, limits=Limits(sweep_s=0.1)) as ((one,), url):
        ada = await create_mesh(one)
        bob = await join_mesh(ada, "bob")
        async with bob.connect() as link:
            await sql(
                url, f"UPDATE mesh.member SET status = 'revoked' WHERE id = '{bob.member_id}'", "SELECT 1"
            )
            async with asyncio.timeout(WAIT_S):
                assert (await link.closed())[0] == 4002


async def test_leases_of_a_broker_that_died_run_out(tmp_path: Path) -> None:
    """Its members are offline once their leases are over, and the others get an event."""
    limits = Limits(sweep_s=0.1)
    async with brokers(tmp_path, count=1, limits=limits) as ((one,), url):
        ada = await create_mesh(one)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link:
            dead = f"""INSERT INTO mesh.presence VALUES ('c1', '{bob.member_id}', '{bob.mesh_id}',
                       'a-dead-broker', now(), now() + interval '1 s', 'x')"""
            await sql(url, dead, "SELECT 1")
            assert (await link.event("peer_join"))["member_id"] == bob.member_id
            reply = await link.call("peers")
            assert {item["name"] for item in reply["ok"]["items"] if item["online"]} == {"bob", "owner"}
            assert (await link.event("peer_leave"))["member_id"] == bob.member_id

        async def is_removed() -> bool:
            left = "SELECT count(*) FROM mesh.presence WHERE broker_id = 'a-dead-broker'"
            return int(await sql(url, left)) == 0

        await eventually(is_removed)


async def test_leases_that_ran_out_while_the_database_was_away_are_taken_again(tmp_path: Path) -> None:
    """A connection that is still here is online again, though nothing came over it."""
    async with brokers(tmp_path, count=1, limits=Limits(sweep_s=0.1)) as ((one,), url):
        ada = await create_mesh(one)
        async with ada.connect() as link:
            await link.settle()
            await sql(url, "DELETE FROM mesh.presence", "SELECT 1")

            async def is_online() -> bool:
                now_ms = one.context.lived.now_ms()
                return await one.context.store.presence.online(ada.mesh_id, now_ms) == {ada.member_id}

            await eventually(is_online)
            await nothing_else_is_told(link, ada)


async def test_a_handshake_that_failed_is_no_coming_or_going(tmp_path: Path) -> None:
    """A member that never came online is not reported as offline."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as watching:
            async with at(bob, two).connect(negotiate=False):
                pass

            async def nobody_is_here() -> bool:
                now_ms = one.context.lived.now_ms()
                return await one.context.store.presence.online(ada.mesh_id, now_ms) == {ada.member_id}

            await eventually(nobody_is_here)
            await nothing_else_is_told(watching, at(ada, two))


async def test_signals_are_heard_again_after_the_listening_connection_was_ended(tmp_path: Path) -> None:
    """Missed changes are read from the database; later ones arrive as signals."""
    async with brokers(tmp_path) as ((one, two), url):
        ada = await create_mesh(one)
        bob = at(await join_mesh(ada, "bob"), two)
        async with ada.connect() as sending, bob.connect() as receiving:
            await company(one, two)
            await receiving.settle()
            ended = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE application_name = 'claudemesh signals'"""
            assert await sql(url, ended) == 2
            await sending.request(ada.envelope(bob, "while nobody listens"))
            async with asyncio.timeout(WAIT_S):
                await receiving.acknowledge(await receiving.deliveries(1))
            await sending.request(ada.envelope(bob, "and later"))
            async with asyncio.timeout(WAIT_S):
                await receiving.acknowledge(await receiving.deliveries(1))


async def test_a_database_that_was_restored_has_another_epoch_and_daemons_hear_of_it(tmp_path: Path) -> None:
    """As `pg_restore --clean` does it, under a running broker: 4006, then a hello_ack with the new one."""
    async with brokers(tmp_path, count=1, limits=Limits(sweep_s=0.1)) as ((one,), url):
        ada = await create_mesh(one)
        async with ada.connect() as link:
            before = link.ack["epoch"]
            await sql(
                url,
                "CREATE TABLE mesh.restored AS SELECT * FROM mesh.epoch",
                "DROP TABLE mesh.epoch",
                "ALTER TABLE mesh.restored RENAME TO epoch",
                "SELECT 1",
            )
            async with asyncio.timeout(WAIT_S):
                assert (await link.closed())[0] == 4006
        async with ada.connect() as link:
            after = link.ack["epoch"]
        assert before != after


async def test_brokers_go_by_the_databases_clock(tmp_path: Path) -> None:
    """A machine whose clock is off leases and keeps by the same time as the others."""
    from tests.support.clock import ManualClock

    async with (
        database() as url,
        running_broker(
            database_url=url, data_dir=tmp_path / "one", clock=ManualClock(), limits=Limits(sweep_s=3600)
        ) as broker,
    ):
        now = await broker.context.store.cluster.now_ms()
        assert abs(broker.context.clock.wall_ms() - now) < 60_000


async def test_a_queue_is_served_by_whichever_broker_has_a_subscriber(tmp_path: Path) -> None:
    """At once, by a signal; and what one broker's subscriber gives back another's is given."""
    async with brokers(tmp_path) as ((one, two), _):
        ada = await create_mesh(one)
        bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
        async with ada.connect() as sending, at(bob, two).connect() as worker:
            await company(one, two)
            await queues.make_queue(sending, worker)
            sent = await queues.put(ada, sending, 4)
            async with asyncio.timeout(WAIT_S):
                held = await worker.deliveries(4)
            assert sorted(queues.ids(held)) == sorted(sent)
            async with cleo.connect() as other:
                assert await other.work("jobs")
                await worker.websocket.close()
                assert sorted(queues.ids(await queues.take(other, 4))) == sorted(sent)


async def test_what_a_dead_brokers_subscribers_held_is_given_to_others(tmp_path: Path) -> None:
    """Once their leases are over."""
    async with brokers(tmp_path, count=1, limits=Limits(sweep_s=0.1)) as ((one,), url):
        ada = await create_mesh(one)
        bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
        async with ada.connect() as sending, cleo.connect() as worker:
            await queues.make_queue(sending)
            sent = await queues.put(ada, sending, 3)
            # As if bob had them, at a broker that is no more.
            await sql(
                url,
                f"UPDATE mesh.delivery_queue SET recipient_member_id = '{bob.member_id}'",
                f"""INSERT INTO mesh.presence VALUES ('c1', '{bob.member_id}', '{bob.mesh_id}',
                        'a-dead-broker', now(), now() + interval '1 s', 'x')""",
                "SELECT 1",
            )
            assert await worker.work("jobs")
            assert sorted(queues.ids(await queues.take(worker, 3))) == sorted(sent)


async def test_a_storm_of_connections_after_an_outage_is_served(tmp_path: Path) -> None:
    """A broker ends, and all members connect to the other one at once: all are admitted and get their
    deliveries."""
    async with database() as url, AsyncExitStack() as stack:
        settings = {"database_url": url, "limits": SIGNALS_ONLY}
        async with running_broker(data_dir=tmp_path / "one", **settings) as one:
            ada = await create_mesh(one)
            crowd = [await join_mesh(ada, f"member-{number}") for number in range(120)]
            async with ada.connect() as sending:
                assert (await sending.request(ada.envelope("all", "to everybody")))["status"] == 201
        two = await stack.enter_async_context(running_broker(data_dir=tmp_path / "two", **settings))

        async def come(peer: Peer) -> None:
            async with at(peer, two).connect() as link:
                await link.acknowledge(await link.deliveries(1))
                await link.settle()

        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*map(come, crowd))

        async def nothing_is_owed() -> bool:
            return await two.context.store.messages.deliveries_pending() == 0

        await eventually(nothing_is_owed)


async def test_a_broker_with_another_admin_token_does_not_start(tmp_path: Path) -> None:
    """Joins would fail that meet both; the token can be replaced while no broker runs."""
    old, new = "the-old-token-of-all-brokers", "the-new-token-of-all-brokers"
    async with database() as url:
        async with running_broker(database_url=url, data_dir=tmp_path / "0", admin_token=old) as first:

            async def is_marked() -> bool:
                return bool(await sql(url, "SELECT count(*) > 0 FROM pg_locks WHERE classid = 1129137005"))

            await eventually(is_marked)
            with pytest.raises(ExitWith) as caught:
                async with running_broker(database_url=url, data_dir=tmp_path / "1", admin_token=new):
                    pass
            assert (caught.value.code, caught.value.error) == (78, "admin_token_differs")
            assert "CLAUDEMESH_BROKER_ADMIN_TOKEN" in caught.value.message
            async with running_broker(database_url=url, data_dir=tmp_path / "2", admin_token=old) as second:
                owner = await create_mesh(first)
                await join_mesh(at(owner, second), "bob")
        async with running_broker(database_url=url, data_dir=tmp_path / "1", admin_token=new) as third:
            await join_mesh(replace(at(owner, third), challenge=challenge_keypair(new.encode())[1]), "carol")


async def test_a_token_that_differs_beside_a_running_broker_is_shown(tmp_path: Path) -> None:
    """Two that start at the same moment see each other's marks later, and say so until one has gone."""
    limits = Limits(database=DatabaseDeadlines(ping_s=0.02))
    async with brokers(tmp_path, 1, limits=limits) as ([broker], url):
        conditions = broker.context.degraded.conditions

        async def is_shown() -> bool:
            return conditions.holds("admin_token_differs")

        async def is_over() -> bool:
            return not conditions.holds("admin_token_differs")

        async with watching(url) as other:
            await other.execute("SELECT pg_advisory_lock_shared(1129137005, 1)")
            await eventually(is_shown)
        await eventually(is_over)
