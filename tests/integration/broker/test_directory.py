"""The member list of a broker: pages that fit a frame, changes since a version, and news in their order."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson

from claudemesh.broker.admission import invite_row
from claudemesh.broker.app import Broker
from claudemesh.broker.settings import Limits
from claudemesh.protocol.invites import parse_link
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.crowd import add_members
from tests.support.values import replace
from tests.support.wspeer import Link, Peer, http_request, make_invite

SMALL = Limits(list_items=5)


async def ask(link: Link, **params: Any) -> dict[str, Any]:
    """The answer to `peers`."""
    ok: dict[str, Any] = (await link.call("peers", **params))["ok"]
    return ok


async def whole(link: Link, **params: Any) -> tuple[list[dict[str, Any]], str]:
    """Return all members, page by page, and the version of the list."""
    answer = await ask(link, **params)
    items = answer["items"]
    while answer["next"] is not None:
        assert (answer["whole"], answer["version"]) == (True, None)
        answer = await ask(link, after=answer["next"], **params)
        items += answer["items"]
    return items, answer["version"]


async def revoke(broker: Broker, name: str) -> None:
    """Revoke a member as an operator does."""
    body = {"mesh": "home", "member": name}
    status, _ = await http_request(
        broker.url, "POST", "/v1/admin/members/revoke", body, token=broker.admin_token
    )
    assert status == 200


async def changes(link: Link, version: str, count: int) -> tuple[list[dict[str, Any]], str]:
    """Wait for so many items in changes that follow one another without a gap."""
    items: list[dict[str, Any]] = []
    while len(items) < count:
        change = await link.event("members_changed")
        assert change["since"] == version
        version = change["version"]
        items += change["items"]
        items += [{"member_id": member_id, "status": "left"} for member_id in change["gone"]]
    return items, version


async def test_no_page_is_larger_than_a_frame_may_be_however_long_the_profiles_are() -> None:
    """Also the first answer to a member that asks for everything at once."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        await add_members(broker.context.store, ada.mesh_id, 600, summary="\U0001f680" * 512)
        async with ada.connect() as link:
            first = await ask(link)
            assert first["next"] is not None
            assert len(orjson.dumps(first)) < broker.context.settings.limits.list_bytes + 1000
            items, version = await whole(link)
            assert len({item["member_id"] for item in items}) == len(items) == 601
            await broker.context.store.members.set_profile(
                ada.mesh_id, items[7]["member_id"], summary="short", status=None, visible=None
            )
            changed = await ask(link, since=version)
            assert [item["summary"] for item in changed["items"]] == ["short"]


async def test_a_known_version_costs_a_few_bytes_and_what_changed() -> None:
    """A member that comes back after a restart of the broker knows most members already."""
    async with running_broker(limits=SMALL) as broker:
        ada = await create_mesh(broker)
        members = await add_members(broker.context.store, ada.mesh_id, 23)
        async with ada.connect() as link:
            items, version = await whole(link)
            assert len(items) == 24
            nothing = await ask(link, since=version)
            assert len(orjson.dumps(nothing)) < 200
            assert (nothing["version"], nothing["items"], nothing["whole"]) == (version, [], False)
            for one in members[:12]:
                await broker.context.store.members.set_status(ada.mesh_id, one.id, "left")
            gone: list[str] = []
            while True:
                answer = await ask(link, since=version)
                version = answer["version"]
                gone += answer["gone"]
                assert answer["items"] == []
                if answer["next"] is None:
                    break
            assert gone == [one.id for one in members[:12]]
            assert len((await whole(link))[0]) == 12


async def test_a_connected_member_hears_of_every_change_in_its_order() -> None:
    """Joins, changed profiles, revocations and departures."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            _, version = await whole(link, follow=True)
            bob = await join_mesh(ada, "bob")
            [joined], version = await changes(link, version, 1)
            async with bob.connect() as other:
                await other.call("profile", summary="builds", status="busy")
                [busy], version = await changes(link, version, 1)
                await other.call("profile", visible=False)
                [hidden], version = await changes(link, version, 1)
            await revoke(broker, "bob")
            [revoked], version = await changes(link, version, 1)
            [eve] = await add_members(broker.context.store, ada.mesh_id, 1, ephemeral=True)
            broker.context.feed.publish(ada.mesh_id)
            _, version = await changes(link, version, 1)
            await broker.context.store.members.set_status(ada.mesh_id, eve.id, "left")
            broker.context.feed.publish(ada.mesh_id)
            [gone], version = await changes(link, version, 1)
            assert (await ask(link, since=version))["items"] == []
    assert (joined["name"], joined["pubkey"], joined["status"]) == ("bob", bob.pubkey, "active")
    assert (busy["summary"], busy["presence_status"]) == ("builds", "busy")
    assert (hidden["summary"], hidden["presence_status"], hidden["visible"]) == (None, None, False)
    assert (revoked["name"], revoked["status"]) == ("bob", "revoked")
    assert gone == {"member_id": eve.id, "status": "left"}


async def test_an_ephemeral_member_that_is_reaped_is_heard_to_have_left() -> None:
    """Without a request: the job sends the event."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        [eve] = await add_members(broker.context.store, ada.mesh_id, 1, ephemeral=True)
        async with ada.connect() as link:
            _, version = await whole(link, follow=True)
            jobs = broker.context.jobs
            await jobs.run("ephemeral-reaper")
            jobs._absent = dict.fromkeys(jobs._absent, -(10**9))
            assert (await jobs.run("ephemeral-reaper")).count == 1
            assert (await changes(link, version, 1))[0] == [{"member_id": eve.id, "status": "left"}]


async def test_an_invisible_member_sees_its_own_profile_and_others_do_not() -> None:
    """In the list and in what is told."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as others, bob.connect() as own:
            _, version = await whole(others, follow=True)
            await whole(own, follow=True)
            await own.call("profile", summary="secret", visible=False)
            [seen], _ = await changes(others, version, 1)
            [mine], _ = await changes(own, version, 1)
            listed = {item["name"]: item for item in (await whole(own))[0]}
    assert (seen["summary"], mine["summary"], listed["bob"]["summary"]) == (None, "secret", "secret")


async def test_many_joins_at_once_arrive_without_a_gap_and_share_frames() -> None:
    """A hundred joins do not cause a hundred frames on every connection."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            _, version = await whole(link, follow=True)
            for _ in range(100):
                await add_members(broker.context.store, ada.mesh_id, 1)
                broker.context.feed.publish(ada.mesh_id)
            items, version = await changes(link, version, 100)
            assert len({item["member_id"] for item in items}) == 100
            assert (await ask(link, since=version))["items"] == []


async def test_a_profile_that_changes_all_the_time_is_told_as_it_is() -> None:
    """At most once a second. States in between are left out, the last one is not."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link, bob.connect() as other:
            _, version = await whole(link, follow=True)
            began = time.monotonic()
            for number in range(200):
                call = {"type": "call", "id": f"p{number}", "method": "profile"}
                await other.say({**call, "params": {"status": f"at {number}"}})
            # Other calls of the connection do not wait for the turn of those.
            assert (await other.call("topic_list"))["ok"]["items"]
            told: list[str] = []
            while "at 199" not in told:
                [item], version = await changes(link, version, 1)
                told.append(item["presence_status"])
            assert len(told) <= 2 + time.monotonic() - began
            replies = [await other.next("reply") for _ in range(200)]
            assert all(reply["ok"] == {} for reply in replies)


async def test_connections_that_know_no_versions_hear_as_before(tmp_path: Path) -> None:
    """Members of an earlier version get no frames that they have not asked for."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            await ask(link)
            bob = await join_mesh(ada, "bob")
            card = {"name": "bob", "member_id": bob.member_id, "pubkey": bob.pubkey}
            assert await link.event("member_added") == card | {"role": "member"}
            await revoke(broker, "bob")
            assert await link.event("member_revoked") == card
            await link.settle()
            assert [frame for frame in link.waiting("event") if frame["event"] == "members_changed"] == []


async def test_a_restart_costs_nobody_the_list_and_a_restore_costs_it_once(tmp_path: Path) -> None:
    """The version is in the database; after a restore the same number names another state."""
    data, copy = tmp_path / "broker", tmp_path / "copy"
    async with running_broker(data_dir=data) as broker:
        ada = await create_mesh(broker)
        await add_members(broker.context.store, ada.mesh_id, 3)
    shutil.copytree(data, copy)
    async with running_broker(data_dir=data) as broker:
        await add_members(broker.context.store, ada.mesh_id, 2)
        async with at(ada, broker).connect() as link:
            _, version = await whole(link)
    async with running_broker(data_dir=data) as broker, at(ada, broker).connect() as link:
        answer = await ask(link, since=version)
        assert (answer["whole"], answer["items"], answer["version"]) == (False, [], version)
    shutil.rmtree(data)
    shutil.copytree(copy, data)
    async with running_broker(data_dir=data) as broker:
        await add_members(broker.context.store, ada.mesh_id, 2)
        async with at(ada, broker).connect() as link:
            answer = await ask(link, since=version)
            assert answer["whole"]
            assert len(answer["items"]) == 6
            assert answer["version"].partition("-")[0] == version.partition("-")[0]
            assert answer["version"] != version


async def test_parameters_that_mean_nothing_are_refused_by_name() -> None:
    """A version that is none is like one that is not known."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            for name, value in (("after", -1), ("limit", "all"), ("follow", 1), ("since", "x" * 65)):
                reply = await link.call("peers", **{name: value})
                assert reply["error"]["code"] == "invalid_params"
                assert name in reply["error"]["message"]
            assert (await link.call("peers", upto=1))["error"]["code"] == "unknown_field"
            assert (await ask(link, since="yesterday"))["whole"]
            assert len((await ask(link, limit=10**6))["items"]) == 1


async def test_a_store_that_fails_for_a_moment_delays_the_news_only(monkeypatch: Any) -> None:
    """The feed asks again; nothing is skipped."""
    async with running_broker(limits=Limits(retry_s=0.01)) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            _, version = await whole(link, follow=True)
            listing = type(broker.context.store.directory)
            real, failures = listing.page, iter(range(3))

            async def failing(self: Any, *args: Any, **options: Any) -> Any:
                if next(failures, None) is not None:
                    raise RuntimeError("a test said so")
                return await real(self, *args, **options)

            monkeypatch.setattr(listing, "page", failing)
            await add_members(broker.context.store, ada.mesh_id, 2)
            broker.context.feed.publish(ada.mesh_id)
            assert len((await changes(link, version, 2))[0]) == 2


def at(peer: Peer, broker: Broker) -> Peer:
    """The same member, at the broker's address of now."""
    return replace(peer, broker_url=broker.url)


async def test_topics_are_listed_in_pages() -> None:
    """However many there are; a member of an earlier version gets the first page."""
    async with running_broker(limits=Limits(list_items=7)) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            for number in range(20):
                await link.call("topic_create", topic=f"t{number:02}")
            seen: list[str] = []
            answer = (await link.call("topic_list"))["ok"]
            while True:
                assert len(answer["items"]) <= 7
                seen += [item["topic"] for item in answer["items"]]
                if answer["next"] is None:
                    break
                answer = (await link.call("topic_list", after=answer["next"], counts=False))["ok"]
            assert seen == ["all", *(f"t{number:02}" for number in range(20))]
            assert answer["items"][0]["subscribers"] is None


async def test_lists_of_operators_come_in_pages() -> None:
    """Members, those who left too, and invites; nothing is listed twice or missed."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        members = await add_members(broker.context.store, ada.mesh_id, 24)
        for one in members[::2]:
            await broker.context.store.members.set_status(ada.mesh_id, one.id, "left")
        invites = [invite_row(parse_link(make_invite(ada))) for _ in range(25)]
        for row in invites:
            await broker.context.store.members.register_invite(row)
        expected = {
            "members": sorted([*(one.name for one in members), "owner"], key=str.lower),
            "invites": sorted(row.id for row in invites),
            "meshes": ["home"],
        }
        for path, key in (
            ("members?mesh=home&", "name"),
            ("invites?mesh=home&", "invite_id"),
            ("meshes?", "slug"),
        ):
            seen: list[str] = []
            after = ""
            while True:
                route = f"/v1/admin/{path}limit=7{after}"
                _, page = await http_request(broker.url, "GET", route, token=broker.admin_token)
                assert len(page["items"]) <= 7
                seen += [item[key] for item in page["items"]]
                if page["next"] is None:
                    break
                after = f"&after={page['next']}"
            assert seen == expected[path.partition("?")[0]]
        for wrong in ("limit=0", "limit=1001", "limit=x", f"after={'x' * 101}", "after=%07"):
            route = f"/v1/admin/members?mesh=home&{wrong}"
            status, answer = await http_request(broker.url, "GET", route, token=broker.admin_token)
            assert (status, answer["error"]) == (400, f"invalid_{wrong.partition('=')[0]}")


async def test_a_change_on_its_way_to_many_takes_little_memory() -> None:
    """The memory of all connections together is bounded: many changes leave in many small events."""
    async with running_broker(limits=Limits(told_bytes=20_000)) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            _, version = await whole(link, follow=True)
            await add_members(broker.context.store, ada.mesh_id, 60)
            broker.context.feed.publish(ada.mesh_id)
            count = 0
            while count < 60:
                change = await link.event("members_changed")
                assert change["since"] == version
                assert len(orjson.dumps(change)) < 10_500
                version, count = change["version"], count + len(change["items"])


async def test_a_connection_that_comes_while_its_mesh_is_forgotten_hears_of_changes() -> None:
    """A sweep forgets meshes without connections, also between the hello and the first question of one."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            feed = broker.context.feed
            feed._sent.clear()
            _, version = await whole(link, follow=True)
            await add_members(broker.context.store, ada.mesh_id, 1)
            broker.context.feed.publish(ada.mesh_id)
            _, version = await changes(link, version, 1)
            feed._sent.clear()
            await feed.sweep()
            await add_members(broker.context.store, ada.mesh_id, 1)
            await feed.sweep()
            assert len((await changes(link, version, 1))[0]) == 1


async def test_a_page_of_the_whole_list_is_read_once_for_all_who_ask_at_once(monkeypatch: Any) -> None:
    """After a restore or an upgrade all members ask; later changes are in the next answer."""
    async with running_broker(limits=Limits(connections_per_member=64, list_items=10)) as broker:
        ada = await create_mesh(broker, clone_concurrency_policy="allow_concurrent")
        members = await add_members(broker.context.store, ada.mesh_id, 30)
        listing = type(broker.context.store.directory)
        real, reads = listing.page, []

        async def counting(self: Any, *args: Any, **options: Any) -> Any:
            reads.append(options)
            await asyncio.sleep(0.01)
            return await real(self, *args, **options)

        monkeypatch.setattr(listing, "page", counting)
        async with AsyncExitStack() as stack:
            links = [await stack.enter_async_context(ada.connect()) for _ in range(20)]
            lists = await asyncio.gather(*(whole(link, follow=True) for link in links))
            assert {len(items) for items, _ in lists} == {31}
            assert len(reads) == 4
            await broker.context.store.members.set_status(ada.mesh_id, members[3].id, "left")
            assert len((await whole(links[0], follow=True))[0]) == 30


async def test_a_page_that_is_kept_for_all_hides_nobody_from_itself() -> None:
    """An invisible member gets its own profile, and no other member gets it."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as others, bob.connect() as own:
            await own.call("profile", summary="secret", visible=False)
            found = []
            for link in (others, own, others):
                items, _ = await whole(link, follow=True)
                found.append({item["name"]: item["summary"] for item in items}["bob"])
    assert found == [None, "secret", None]


async def test_members_that_have_left_are_told_by_their_id() -> None:
    """A message of theirs may be on its way. Members that are here, and strangers, are not in the answer."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        gone, here = await join_mesh(ada, "gone"), await join_mesh(ada, "here")
        other = await create_mesh(broker, "other", "eve")
        async with gone.connect() as link:
            await link.call("leave")
        async with ada.connect() as link:
            wanted = [gone.member_id, here.member_id, other.member_id]
            [item] = (await link.call("members_left", member_ids=wanted))["ok"]["items"]
            assert (item["name"], item["pubkey"], item["status"]) == ("gone", gone.pubkey, "left")
            for wrong in ("all", [5], [gone.member_id] * 65):
                assert "error" in await link.call("members_left", member_ids=wrong)
