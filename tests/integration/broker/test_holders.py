"""Holders of topic keys and a real broker: makers that die, wraps that lie, members that were revoked."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from claudemesh.broker.settings import Limits
from claudemesh.daemon.identity.changes import KEYPAIR_REVOKED, MemberChange
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.topics.keys import TopicKeys
from claudemesh.daemon.topics.wrapping import Wrapping
from claudemesh.home.keyring import Keyring
from claudemesh.home.topic_keyring import HeldKey, TopicKeyring
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import TOPIC_KEY_WANTED, TOPIC_REKEY_WANTED, TopicDeleted, TopicKeyEvent
from claudemesh.protocol.replies import Read, peer_entry
from claudemesh.protocol.statements import REVOCATION, sign_statement
from claudemesh.protocol.topic_keys import TopicKey, sign_epoch
from claudemesh.runtime.services import TaskOwner
from tests.integration.broker.test_topic_keys import make, sealed, wrap
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.waiting import WAIT_S
from tests.support.wspeer import Frame, Link, Peer

T = TypeVar("T")
PATIENT = Limits(key_answer_s=600)


class Holder:
    """The topic keys of a daemon, over one connection of a peer."""

    def __init__(self, peer: Peer, link: Link, folder: Path) -> None:
        self.peer, self._link, self._one_at_a_time = peer, link, asyncio.Lock()
        self.asked: list[Mapping[str, Any]] = []
        self.withholds = False
        self.directory = Directory(folder / f"{peer.name}.json", peer.mesh_id)
        self.held = TopicKeyring(folder / f"{peer.name}-keys.json", peer.mesh_id)
        keyring = Keyring(Path("/dev/null/keypair.json"), peer.identity)
        wrapping = Wrapping(keyring, peer.mesh_id, self.directory, self._know, secrets.token_bytes)
        self._tasks = TaskOwner()
        self.keys = TopicKeys(self.held, wrapping, self._ask, self._tasks)

    async def start(self) -> Holder:
        """Learn the members, and use the link."""
        reply = await self._link.call("peers")
        self.directory.apply([peer_entry(item) for item in reply["ok"]["items"]])
        self.keys.link_up()
        return self

    async def stop(self) -> None:
        """End its tasks."""
        await self._tasks.stop()

    async def call(self, method: str, **params: Any) -> Frame:
        """Call the broker beside the tasks of the keys: a link has one reader."""
        async with self._one_at_a_time:
            return await self._link.call(method, **params)

    async def request(self, envelope: Frame) -> Frame:
        """Send beside the tasks of the keys."""
        async with self._one_at_a_time:
            return await self._link.request(envelope)

    async def _know(self, member_ids: Collection[str]) -> None:
        raise AssertionError(f"unknown members {member_ids}")

    async def _ask(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        async with self._one_at_a_time:
            self.asked.append({"method": method, **params})
            reply = await self._link.call(method, **params)
        if "error" in reply:
            raise ProtocolError(reply["error"]["code"], reply["error"]["message"])
        if self.withholds and method == "topic_key":
            reply["ok"]["wraps"] = []
        return read(reply["ok"])


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition of this process."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the keys have no event
            await asyncio.sleep(0.01)


async def test_a_maker_that_died_before_it_wrapped_the_key_holds_up_no_sender(tmp_path: Path) -> None:
    """The epoch is there and its key with no other member: the next sender makes the next one."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as one:
            await make(one, ada)
        async with bob.connect() as two:
            holder = await Holder(bob, two, tmp_path).start()
            holder.keys.want_to_send("all")
            await until(lambda: holder.keys.current("all"))
            newest = holder.held.newest("all")
            assert newest is not None
            assert (newest.key.key_epoch, newest.statement.created_by) == (2, bob.pubkey)
            await holder.stop()


async def test_a_wrap_of_another_key_is_counted_and_other_holders_are_asked(tmp_path: Path) -> None:
    """The recipient takes the first wrap that opens to the commitment."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob, mallory = await join_mesh(ada, "bob"), await join_mesh(ada, "mallory")
        async with ada.connect() as one, bob.connect() as two, mallory.connect() as three:
            key, _ = await make(one, ada, mallory)
            wrong = TopicKey("all", 1, secrets.token_bytes(32))
            lie = await three.call(
                "topic_wrap_add", topic="all", key_epoch=1, wraps=[wrap(wrong, mallory, bob)]
            )
            assert lie["ok"] == {"added": 1}
            holder = await Holder(bob, two, tmp_path).start()
            holder.keys.want("all", 1)
            wanted = await one.event("topic_key_wanted")
            assert (wanted["key_epoch"], wanted["member_id"]) == (1, bob.member_id)
            assert holder.keys.find("all", 1) is None
            assert holder.keys.wrong_wraps >= 1
            await one.call("topic_wrap_add", topic="all", key_epoch=1, wraps=[wrap(key, ada, bob)])
            await until(lambda: holder.keys.find("all", 1) == key)
            assert {"wanted": True}.items() <= holder.asked[1].items()
            await holder.stop()


async def test_a_broker_that_withholds_wraps_holds_up_no_sender(tmp_path: Path) -> None:
    """A sender makes the next epoch. A reader asks again until it has its wrap."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob, carol = await join_mesh(ada, "bob"), await join_mesh(ada, "carol")
        async with ada.connect() as one, bob.connect() as two, carol.connect() as three:
            key, _ = await make(one, ada, bob, carol)
            sender = await Holder(bob, two, tmp_path).start()
            reader = await Holder(carol, three, tmp_path).start()
            sender.withholds = reader.withholds = True
            reader.keys.want("all", 1)
            sender.keys.want_to_send("all")
            await until(lambda: sender.keys.current("all"))
            newest = sender.held.newest("all")
            assert newest is not None and newest.key.key_epoch == 2
            await until(lambda: len(reader.asked) > 1)
            assert (reader.keys.find("all", 1), list(reader.keys.waiting)) == (None, ["all"])
            reader.withholds = False
            await until(lambda: reader.keys.find("all", 1) == key)
            await sender.stop()
            await reader.stop()


async def test_a_member_that_was_away_for_a_hundred_epochs_gets_the_key_of_each(tmp_path: Path) -> None:
    """More than its file keeps, and more than one call asks for."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as one, bob.connect() as two:
            keys = [(await make(one, ada, bob, expected=number))[0] for number in range(100)]
            holder = await Holder(bob, two, tmp_path).start()
            for key in keys:
                holder.keys.want("all", key.key_epoch)
            await until(lambda: not holder.keys.waiting)
            assert [holder.keys.find("all", key.key_epoch) for key in keys] == keys
            await holder.stop()


async def test_a_holder_passes_an_epoch_on_however_many_have_followed(tmp_path: Path) -> None:
    """Its maker may have died before it has wrapped the key for all: messages under it are owed still."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as one, bob.connect() as two:
            key, _ = await make(one, ada)
            assert (await one.request(sealed(ada, key, b"for bob")))["status"] == 201
            for number in range(1, 6):
                await make(one, ada, bob, expected=number)
            reader = await Holder(bob, two, tmp_path).start()
            reader.keys.want("all", 1)
            wanted = await one.event(TOPIC_KEY_WANTED)
            holder = await Holder(ada, one, tmp_path).start()
            holder.held.add(HeldKey(key, sign_epoch(ada.identity, ada.mesh_id, key)))
            holder.keys.on_event(TopicKeyEvent(TOPIC_KEY_WANTED, **wanted))
            await until(lambda: reader.keys.find("all", 1) == key)
            await holder.stop()
            await reader.stop()


async def test_a_topic_that_is_made_again_after_its_deletion_has_keys_of_its_own(tmp_path: Path) -> None:
    """Members of the one before hold its keys, revoked ones too. One host was told of it, one not."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as one, bob.connect() as two:
            holder = await Holder(ada, one, tmp_path).start()
            away = await Holder(bob, two, tmp_path).start()
            for each in (holder, away):
                await each.call("topic_create", topic="plans", mode="topic")
                await each.call("topic_subscribe", topic="plans")
            holder.keys.want_to_send("plans")
            await until(lambda: holder.keys.current("plans"))
            before = holder.keys.current("plans")
            assert before is not None and before.key_epoch == 1
            await holder.call("topic_delete", topic="plans")
            holder.keys.on_event(TopicDeleted("plans"))
            away.keys.want("plans", 1)
            await until(lambda: away.keys.find("plans", 1) == before)
            await holder.call("topic_create", topic="plans", mode="topic")
            assert holder.keys.current("plans") is None
            reply = await away.request(sealed(bob, before, b"of before"))
            assert (reply["status"], reply["error"]) == (422, "key_epoch_expired")
            for each in (away, holder):
                each.keys.renew("plans")
                await until(lambda keys=each.keys: keys.current("plans"))
            after = [each.keys.current("plans") for each in (away, holder)]
            assert all(key is not None and key.key_epoch > 1 for key in after)
            await away.stop()
            await holder.stop()


async def test_a_wish_for_the_key_of_a_topic_ends_with_its_deletion(tmp_path: Path) -> None:
    """The rows that wait for it are given up at once."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as one:
            holder = await Holder(ada, one, tmp_path).start()
            await holder.call("topic_create", topic="plans", mode="topic")
            gone: list[str] = []
            holder.keys.on_gone(lambda topic: not gone.append(topic))
            holder.keys.link_down()
            holder.keys.want_to_send("plans")
            await holder.call("topic_delete", topic="plans")
            holder.keys._is_up = True
            holder.keys.on_event(TopicDeleted("plans"))
            await until(lambda: gone == ["plans"] and not holder.keys.waiting)
            await holder.stop()


async def test_a_reader_is_sent_no_list_of_members_without_a_key(tmp_path: Path) -> None:
    """A holder that is asked wraps for one member; a sender gets the list."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as one, bob.connect() as two:
            sender = await Holder(ada, one, tmp_path).start()
            sender.keys.want_to_send("all")
            await until(lambda: sender.keys.current("all"))
            reader = await Holder(bob, two, tmp_path).start()
            reader.keys.want("all", 1)
            await until(lambda: reader.keys.find("all", 1))
            assert {each["missing"] for each in reader.asked} == {False}
            assert sender.asked[0]["missing"] is True
            await sender.stop()
            await reader.stop()


async def test_a_key_of_a_revoked_member_seals_nothing_more(tmp_path: Path) -> None:
    """Also when the broker does not ask for the next epoch. Earlier posts stay readable."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob, mallory = await join_mesh(ada, "bob"), await join_mesh(ada, "mallory")
        async with bob.connect() as two, mallory.connect() as three:
            key, _ = await make(three, mallory, bob, ada)
            holder = await Holder(bob, two, tmp_path).start()
            holder.directory.revoke(
                sign_statement(
                    ada.identity,
                    REVOCATION,
                    mesh_id=ada.mesh_id,
                    subject=mallory.member_id,
                    at_ms=time.time_ns() // 1_000_000,
                    pubkey=mallory.pubkey,
                )
            )
            holder.keys.want_to_send("all")
            await until(lambda: holder.keys.current("all"))
            newest = holder.held.newest("all")
            assert newest is not None
            assert (newest.key.key_epoch, newest.statement.created_by) == (2, bob.pubkey)
            assert holder.keys.find("all", 1) == key
            await holder.stop()


async def test_a_poster_asks_for_the_key_again_when_a_member_was_revoked(tmp_path: Path) -> None:
    """Before it seals, though the key is here and no other member has made the next one."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob, mallory = await join_mesh(ada, "bob"), await join_mesh(ada, "mallory")
        async with ada.connect() as one, bob.connect() as two:
            await make(one, ada, bob, mallory)
            poster = await Holder(bob, two, tmp_path).start()
            poster.keys.want("all", 1)
            await until(lambda: poster.keys.current("all"))
            await broker.context.store.members.set_status(ada.mesh_id, mallory.member_id, "revoked")
            poster.keys.members_changed([MemberChange(KEYPAIR_REVOKED, {})])
            assert poster.keys.current("all") is None
            poster.keys.want_to_send("all")
            await until(lambda: poster.keys.current("all"))
            newest = poster.held.newest("all")
            assert newest is not None and newest.key.key_epoch == 2
            await poster.stop()


async def test_an_epoch_that_a_restore_has_lost_does_not_end_the_wish_for_the_next(tmp_path: Path) -> None:
    """The broker of before the epoch is told of a revocation: the member may hold the lost key too."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob, mallory = await join_mesh(ada, "bob"), await join_mesh(ada, "mallory")
        async with ada.connect() as one, bob.connect() as two:
            key, _ = await make(one, ada, bob, mallory)
            holder = await Holder(bob, two, tmp_path).start()
            holder.keys.want("all", 1)
            await until(lambda: holder.keys.find("all", 1) == key)
            lost = TopicKey("all", 2, secrets.token_bytes(32))
            holder.held.add(
                HeldKey(lost, sign_epoch(bob.identity, bob.mesh_id, lost, key.commitment(bob.mesh_id)))
            )
            await broker.context.store.members.set_status(ada.mesh_id, mallory.member_id, "revoked")
            holder.keys.look_again()
            await until(lambda: holder.keys.find("all", 3))
            reply = await one.call("topic_key", topic="all", key_epochs=[2])
            assert [one["commitment"] for one in reply["ok"]["epochs"]] == [lost.commitment(bob.mesh_id)]
            assert (reply["ok"]["current"]["key_epoch"], reply["ok"]["rekey_wanted"]) == (3, False)
            await holder.stop()


async def test_a_member_that_asks_for_epochs_without_end_holds_up_no_sender(tmp_path: Path) -> None:
    """The present key seals on, unless the broker refuses it: then a revoked member may hold it."""
    async with running_broker(limits=Limits(key_answer_s=600, key_epochs_an_hour=2)) as broker:
        ada = await create_mesh(broker)
        mallory = await join_mesh(ada, "mallory")
        async with ada.connect() as one, mallory.connect() as two:
            sender = await Holder(ada, one, tmp_path).start()
            for _ in range(4):
                await two.call("topic_rekey", topic="all")
                sender.keys.on_event(TopicKeyEvent(TOPIC_REKEY_WANTED, "all", None))
                sender.keys.want_to_send("all")
                await until(lambda: sender.keys.current("all"))
            key = sender.keys.current("all")
            assert key is not None and key.key_epoch == 2
            # The next epoch is still owed.
            await until(lambda: sender.keys.waiting.get("all"))
            assert (await sender.request(sealed(ada, key, b"post")))["status"] == 201
            # A post under an earlier epoch was refused: that says nothing of the present one.
            sender.keys.renew("all", 1)
            await until(lambda: sender.keys.current("all"))
            sender.keys.renew("all")
            await until(lambda: sender.keys.waiting.get("all"))
            assert sender.keys.current("all") is None
            await sender.stop()


async def test_an_epoch_that_was_put_off_is_made_when_it_may_be(tmp_path: Path) -> None:
    """A member that has left holds the present key, and no event asks for the next one a second time."""
    async with running_broker(limits=Limits(key_answer_s=600, key_epochs_an_hour=1)) as broker:
        ada = await create_mesh(broker)
        mallory = await join_mesh(ada, "mallory")
        async with ada.connect() as one, mallory.connect() as two:
            sender = await Holder(ada, one, tmp_path).start()
            sender.keys.want_to_send("all")
            await until(lambda: sender.keys.current("all"))
            await two.call("topic_rekey", topic="all")
            sender.keys.on_event(TopicKeyEvent(TOPIC_REKEY_WANTED, "all", None))
            await until(lambda: "an hour" in str(sender.keys.waiting.get("all")))
            # As if the hour were over.
            object.__setattr__(broker.context.settings.limits, "key_epochs_an_hour", 2)
            await until(lambda: sender.keys.find("all", 2))
            await until(lambda: not sender.keys.waiting)
            await sender.stop()


async def test_a_holder_gives_a_revoked_member_no_key(tmp_path: Path) -> None:
    """The broker asks for it all the same: its word does not count."""
    async with running_broker(limits=PATIENT) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as one:
            holder = await Holder(ada, one, tmp_path).start()
            key = TopicKey("all", 1, secrets.token_bytes(32))
            holder.held.add(HeldKey(key, sign_epoch(ada.identity, ada.mesh_id, key)))
            holder.directory.revoke(
                sign_statement(
                    ada.identity,
                    REVOCATION,
                    mesh_id=ada.mesh_id,
                    subject=bob.member_id,
                    at_ms=time.time_ns() // 1_000_000,
                    pubkey=bob.pubkey,
                )
            )
            holder.keys.on_event(TopicKeyEvent(TOPIC_KEY_WANTED, "all", 1, bob.member_id))
            await holder._tasks.join()
            assert [each for each in holder.asked if each["method"] == "topic_wrap_add"] == []
            await holder.stop()
