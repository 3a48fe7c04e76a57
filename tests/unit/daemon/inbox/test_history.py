"""Messages of the broker's history are believed after verification only (docs/spec/daemon.md, Inbox)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.inbox.history import History, HistoryWish, Seen
from claudemesh.daemon.inbox.verify import Verifier
from claudemesh.daemon.outbox.request import SendRequest, Target, parse_post, parse_send
from claudemesh.protocol.frames import Deliver
from claudemesh.protocol.receipts import RECEIPT_ID, Receipt
from claudemesh.protocol.replies import BadReply, Read
from tests.support.daemon import (
    MESH_ID,
    NOW,
    KeyOfEachTopic,
    Person,
    delivery,
    directory_of,
    keyring_of,
    new_ulid,
    person,
)
from tests.support.values import replace

ALICE, BOB, CAROL = person("alice"), person("bob"), person("carol")
STRANGER = person("stranger")
TO_ALICE = parse_send({"to": "alice", "message": "to alice"})
PUBKEY = {one.name: one.identity.ed25519_pubkey for one in (ALICE, BOB, CAROL)}


class Broker:
    """A broker that answers each call with these messages, and the history of bob."""

    def __init__(self, folder: Path) -> None:
        self.directory = directory_of(folder, ALICE, BOB, CAROL)
        self.items: list[dict[str, Any]] = []
        self.more = False
        self.dropped = 0
        self.asked_for: list[set[str]] = []
        self.params: list[Mapping[str, Any]] = []

    def holds(self, *messages: Deliver, first: int = 1) -> None:
        """Keep these messages under ids from `first`."""
        kept = [replace(one, history_id=number).to_dict() for number, one in enumerate(messages, first)]
        self.items = [{k: v for k, v in one.items() if k not in ("type", "delivery_id")} for one in kept]

    def message(self, sender: Person, request: Any = None) -> Deliver:
        """A genuine message."""
        return delivery(sender, self.directory, request)

    async def ask(self, method: str, params: Mapping[str, Any], read: Read[Any]) -> Any:
        """Answer a call."""
        assert method == "history"
        self.params.append(params)
        return read({"items": self.items, "more": self.more, "pruned_before": 3})

    async def page(self, **wish: Any) -> Seen:
        """Return the page that bob gets."""

        async def know(member_ids: Collection[str]) -> None:
            self.asked_for.append(set(member_ids))

        def drop() -> None:
            self.dropped += 1

        keyring = keyring_of(BOB.identity)
        verifier = Verifier(
            keyring, MESH_ID, "demo", new_ulid, 1 << 20, lambda *_, **__: (), KeyOfEachTopic()
        )
        history = History(self.ask, verifier, self.directory, know, BOB.member_id, drop)
        return await history.page(HistoryWish(**{"limit": 10, **wish}), NOW)


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    """A broker without messages."""
    return Broker(tmp_path)


def texts(seen: Seen) -> list[str | None]:
    """The texts of a page."""
    return [one.row.body for one in seen.messages]


async def test_received_and_sent_messages_are_opened(broker: Broker) -> None:
    """A dm that this member sent is opened with its own key, and names its recipient."""
    post = broker.message(CAROL, parse_post({"topic": "all", "message": "to all"}))
    note = broker.message(BOB, parse_send({"to": "bob", "message": "to myself"}))
    broker.holds(broker.message(ALICE), broker.message(BOB, TO_ALICE), post, note)
    seen = await broker.page()
    assert texts(seen) == ["hello", "to alice", "to all", "to myself"]
    assert [one.is_own for one in seen.messages] == [False, True, False, True]
    assert [one.recipient and one.recipient.peer for one in seen.messages] == [
        None,
        broker.directory.by_key(PUBKEY["alice"]),
        None,
        None,
    ]
    assert [one.was_received for one in seen.messages] == [True, False, True, True]
    assert (seen.dropped, seen.next, seen.pruned_before) == (0, None, 3)


async def test_own_messages_that_the_broker_delivers_are_received_ones(broker: Broker) -> None:
    """A job that this member has done is one, a post is not."""
    post = broker.message(BOB, parse_post({"topic": "all", "message": "a post"}))
    job = broker.message(BOB, parse_send({"to": "queue:builds", "message": "a job"}))
    broker.holds(post, job)
    seen = await broker.page()
    assert [(one.row.body, one.was_received) for one in seen.messages] == [("a post", False), ("a job", True)]


async def test_a_message_to_a_member_that_this_host_does_not_know_is_shown_sealed(
    broker: Broker, tmp_path: Path
) -> None:
    """The signature of this member proves it; the key of its recipient, which would open it, is not here."""
    everyone = directory_of(tmp_path / "other", ALICE, BOB, STRANGER)
    request = parse_send({"to": "stranger", "message": "to a stranger"})
    broker.holds(broker.message(BOB, TO_ALICE), delivery(BOB, everyone, request))
    seen = await broker.page()
    assert [(one.row.body, one.row.sealed is None) for one in seen.messages] == [
        ("to alice", True),
        (None, False),
    ]
    shown = seen.messages[1]
    assert (shown.is_own, shown.was_received) == (True, False)
    assert shown.recipient == (STRANGER.identity.ed25519_pubkey, None)
    assert (seen.dropped, broker.dropped, broker.asked_for) == (0, 0, [set()])
    assert texts(await broker.page(destination=PUBKEY["alice"])) == ["to alice"]


async def test_own_receipts_are_no_messages_also_those_to_a_member_that_this_host_does_not_know(
    broker: Broker, tmp_path: Path
) -> None:
    """They cannot be opened here, and would be shown as empty messages."""
    everyone = directory_of(tmp_path / "other", ALICE, BOB, STRANGER)
    receipt = Receipt(client_message_id="m1", delivered_at=NOW)
    requests = [
        SendRequest(
            target=Target("dm", ref=to.identity.ed25519_pubkey),
            message="",
            priority="low",
            client_message_id=f"{RECEIPT_ID}{new_ulid()}",
            receipts=(receipt,),
        )
        for to in (ALICE, STRANGER)
    ]
    broker.holds(*[delivery(BOB, everyone, one) for one in requests], broker.message(BOB, TO_ALICE))
    seen = await broker.page()
    assert (texts(seen), seen.dropped) == (["to alice"], 0)


async def test_a_message_to_a_stranger_that_another_member_signed_is_no_own_one(
    broker: Broker, tmp_path: Path
) -> None:
    """It is dropped when the broker shows it under the name of this member, too."""
    everyone = directory_of(tmp_path / "other", BOB, CAROL, STRANGER)
    foreign = delivery(CAROL, everyone, parse_send({"to": "stranger", "message": "not of bob"}))
    renamed = replace(foreign, sender=replace(foreign.sender, member_id=BOB.member_id))
    broker.holds(foreign, renamed)
    seen = await broker.page()
    assert (seen.messages, seen.dropped) == ((), 2)


async def test_what_a_broker_has_made_up_is_dropped_and_counted(broker: Broker) -> None:
    """A changed envelope, another's dm, a message under another's name, and what is no message at all."""
    good, own = broker.message(ALICE), broker.message(BOB, TO_ALICE)
    changed = replace(good, envelope={**good.envelope, "priority": "now"})
    foreign = broker.message(CAROL, TO_ALICE)
    renamed = replace(good, sender=replace(good.sender, member_id=CAROL.member_id))
    moved = replace(own, envelope={**own.envelope, "destination_ref": PUBKEY["carol"]})
    broker.holds(good, changed, foreign, renamed, moved)
    broker.items.append({"history_id": 9})
    seen = await broker.page()
    assert texts(seen) == ["hello"]
    assert (seen.dropped, broker.dropped) == (5, 4)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (PUBKEY["alice"], ["hello", "to alice"]),
        (PUBKEY["carol"], []),
        ("#all", ["to all"]),
        ("#other", []),
        ("queue:all", []),
    ],
)
async def test_messages_of_another_destination_are_dropped(
    broker: Broker, destination: str, expected: list[str]
) -> None:
    """A genuine message is shown where it belongs only."""
    post = broker.message(CAROL, parse_post({"topic": "all", "message": "to all"}))
    broker.holds(broker.message(ALICE), broker.message(BOB, TO_ALICE), post)
    seen = await broker.page(destination=destination)
    assert texts(seen) == expected
    assert seen.dropped == 3 - len(expected)


async def test_the_next_page_begins_where_the_page_of_the_broker_ends(broker: Broker) -> None:
    """Also when the message there is dropped, so that no page comes twice."""
    broker.more = True
    broker.holds(broker.message(CAROL, TO_ALICE), broker.message(ALICE), first=5)
    assert (await broker.page()).next == 5
    broker.holds(broker.message(ALICE), broker.message(CAROL, TO_ALICE), first=5)
    assert (await broker.page(after=4)).next == 6
    assert broker.params == [{"limit": 10}, {"limit": 10, "after": 4}]


@pytest.mark.parametrize("wish", [{"after": 5}, {"before": 6}, {"limit": 1}])
async def test_a_page_out_of_its_bounds_is_refused(broker: Broker, wish: Mapping[str, int]) -> None:
    """It would be read for ever, or skip messages."""
    broker.holds(broker.message(ALICE), broker.message(ALICE), first=5)
    with pytest.raises(BadReply):
        await broker.page(**wish)


async def test_an_endless_empty_history_and_one_out_of_order_are_refused(broker: Broker) -> None:
    """A reader of pages comes to an end."""
    broker.more = True
    with pytest.raises(BadReply):
        await broker.page()
    broker.holds(broker.message(ALICE), broker.message(ALICE))
    broker.items.reverse()
    with pytest.raises(BadReply):
        await broker.page()
