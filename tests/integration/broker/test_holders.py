"""Holders of topic keys and a real broker: makers that die, wraps that lie, members that were revoked."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from claudemesh.broker.settings import Limits
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.topics.keys import TopicKeys
from claudemesh.daemon.topics.wrapping import Wrapping
from claudemesh.home.keyring import Keyring
from claudemesh.home.topic_keyring import HeldKey, TopicKeyring
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import TOPIC_KEY_WANTED, TopicKeyEvent
from claudemesh.protocol.replies import Read, peer_entry
from claudemesh.protocol.statements import REVOCATION, sign_statement
from claudemesh.protocol.topic_keys import TopicKey, sign_epoch
from claudemesh.runtime.services import TaskOwner
from tests.integration.broker.test_topic_keys import make, wrap
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.waiting import WAIT_S
from tests.support.wspeer import Link, Peer

T = TypeVar("T")
PATIENT = Limits(key_answer_s=600)


class Holder:
    """The topic keys of a daemon, over one connection of a peer."""

    def __init__(self, peer: Peer, link: Link, folder: Path) -> None:
        self.peer, self._link, self._one_at_a_time = peer, link, asyncio.Lock()
        self.asked: list[Mapping[str, Any]] = []
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

    async def _know(self, member_ids: Collection[str]) -> None:
        raise AssertionError(f"unknown members {member_ids}")

    async def _ask(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        async with self._one_at_a_time:
            self.asked.append({"method": method, **params})
            reply = await self._link.call(method, **params)
        if "error" in reply:
            raise ProtocolError(reply["error"]["code"], reply["error"]["message"])
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
