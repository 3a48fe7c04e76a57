"""The directory follows the broker's list by versions: one question a link, none while nothing is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.sync import DirectorySync
from claudemesh.daemon.restore.vouching import as_unconfirmed, vouch_for
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import parse_event
from claudemesh.protocol.frames import Event
from claudemesh.runtime.clock import SystemClock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.sidefiles import PacedFile
from tests.support.daemon import MESH_ID, Person, person
from tests.support.waiting import WAIT_S

ALICE, BOB, CLEO = person("alice"), person("bob"), person("cleo")


def page(*people: Person, **fields: Any) -> dict[str, Any]:
    """An answer to `peers`, or the data of a change."""
    return {"items": [one.entry() for one in people], "gone": [], "next": None, "whole": False, **fields}


@dataclass
class Host:
    """A directory that is kept in step, and a broker that answers from a script."""

    directory: Directory
    answers: list[Any]
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    saved: int = 0
    changes: int = 0
    tasks: TaskOwner = field(default_factory=TaskOwner)

    def __post_init__(self) -> None:
        self.sync = DirectorySync(
            self.directory,
            self.ask,
            self.tasks,
            SystemClock(),
            PacedFile(self.tasks, self.save),
            Conditions(SystemClock()),
            spread_s=0.0,
            most_pages=5,
        )
        self.sync.on_change(self.changed)

    async def ask(self, method: str, params: Mapping[str, Any], read: Any) -> Any:
        self.asked.append({key: value for key, value in params.items() if key not in ("follow", "online")})
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return read(answer)

    def save(self) -> None:
        self.saved += 1
        self.directory.save()

    def changed(self) -> None:
        self.changes += 1

    def hear(self, **data: Any) -> None:
        """An event of the broker's."""
        news = parse_event(Event("members_changed", data))
        assert news is not None
        self.sync.on_event(news)

    async def settle(self) -> None:
        """Let what was begun end."""
        for _ in range(20):
            await asyncio.sleep(0)

    def names(self) -> Sequence[str]:
        return [peer.name for peer in self.directory.peers()]


def host(folder: Path, *answers: Any, version: str | None = None, known: Sequence[Person] = ()) -> Host:
    """A host that knows some members at a version."""
    directory = Directory(folder / "peers.json", MESH_ID)
    directory.apply([replies.peer_entry(one.entry()) for one in known])
    directory.note_version(version)
    return Host(directory, list(answers))


async def test_a_link_up_asks_what_has_changed_and_nothing_more(tmp_path: Path) -> None:
    """Most of the time that is nothing."""
    made = host(tmp_path, page(version="7-ab"), version="7-ab", known=[ALICE, BOB])
    made.directory.save()
    await made.sync.now()
    assert made.asked == [{"since": "7-ab"}]
    assert (made.saved, made.changes, made.names()) == (0, 0, ["alice", "bob"])


async def test_a_change_that_begins_at_the_known_version_needs_no_question(tmp_path: Path) -> None:
    """Members that joined, that changed, that left."""
    made = host(tmp_path, version="7-ab", known=[ALICE, BOB])
    made.hear(**page(CLEO, since="7-ab", version="8-cd"))
    made.hear(**{**page(since="8-cd", version="9-ef"), "items": [BOB.entry(summary="busy")]})
    made.hear(**page(since="9-ef", version="10-aa", gone=[ALICE.member_id]))
    await made.settle()
    assert (made.asked, made.names(), made.directory.version) == ([], ["bob", "cleo"], "10-aa")
    bob = made.directory.by_name("bob")
    assert bob is not None
    assert (bob.summary, made.changes) == ("busy", 3)
    await made.tasks.stop()


async def test_a_change_that_was_missed_leads_to_one_question(tmp_path: Path) -> None:
    """However many come behind it; what is older than the answer is passed over."""
    made = host(tmp_path, page(BOB, CLEO, version="10-aa"), version="7-ab", known=[ALICE])
    made.hear(**page(CLEO, since="8-cd", version="9-ef"))
    made.hear(**page(CLEO, since="9-ef", version="10-aa"))
    await made.settle()
    made.hear(**page(CLEO, since="9-ef", version="10-aa"))
    await made.settle()
    assert (made.asked, made.names()) == ([{"since": "7-ab"}], ["alice", "bob", "cleo"])
    await made.tasks.stop()


async def test_a_change_during_a_question_is_asked_for_behind_it(tmp_path: Path) -> None:
    """The answer may have been read before the change."""
    made = host(tmp_path, page(version="7-ab"), page(BOB, version="8-cd"), version="7-ab", known=[ALICE])
    made.sync.link_up()
    await asyncio.sleep(0)
    made.hear(**page(BOB, since="7-ab", version="8-cd"))
    await made.settle()
    assert made.asked == [{"since": "7-ab"}, {"since": "7-ab"}]
    assert (made.names(), made.directory.version) == (["alice", "bob"], "8-cd")
    await made.tasks.stop()


async def test_a_broker_with_another_history_is_read_from_the_beginning(tmp_path: Path) -> None:
    """Page by page; whom it does not list is not shown, and can still be vouched for."""
    answers = (page(ALICE, whole=True, next=5, version=None), page(BOB, whole=True, version="6-cc"))
    made = host(tmp_path, *answers, version="7-ab", known=[ALICE, CLEO])
    await made.sync.now()
    assert made.asked == [{"since": "7-ab"}, {"after": 5}]
    assert (made.names(), made.directory.version) == (["alice", "bob"], "6-cc")
    cleo = made.directory.by_name("cleo")
    assert cleo is not None
    assert cleo.status == "unlisted"
    vouched = vouch_for(as_unconfirmed(replies.peer_entry(CLEO.entry())), made.directory)
    assert vouched is not None
    assert vouched["status"] == "active"


async def test_pages_of_changes_are_versions_of_their_own(tmp_path: Path) -> None:
    """A link that is lost between two of them costs nothing twice."""
    lost = ProtocolError("broker_unavailable", "gone")
    made = host(tmp_path, page(BOB, next=8, version="8-cd"), lost, page(CLEO, version="9-ef"), version="7-ab")
    with pytest.raises(ProtocolError):
        await made.sync.now()
    await made.sync.now()
    assert made.asked == [{"since": "7-ab"}, {"since": "8-cd"}, {"since": "8-cd"}]
    assert (made.names(), made.directory.version) == (["bob", "cleo"], "9-ef")
    await made.tasks.stop()


async def test_a_broker_without_versions_is_asked_for_everybody(tmp_path: Path) -> None:
    """As before; those whom it does not list stay as they were."""
    refused = ProtocolError("unknown_field", "remove the unknown parameter 'follow'")
    answer = {"items": [ALICE.entry(), BOB.entry(status="left")]}
    made = host(tmp_path, refused, answer, answer, version="7-ab", known=[CLEO])
    await made.sync.now()
    await made.sync.now()
    assert made.asked == [{"since": "7-ab"}, {}, {}]
    assert (made.names(), made.directory.version) == (["alice", "cleo"], None)
    await made.tasks.stop()


async def test_a_broker_whose_list_has_no_end_is_not_believed(tmp_path: Path) -> None:
    """It is an error, and not a question for ever."""
    made = host(tmp_path, *[page(whole=True, next=number, version=None) for number in range(9)])
    with pytest.raises(ProtocolError, match="no end"):
        await made.sync.now()
    assert len(made.asked) == 5


async def test_what_was_not_taken_over_is_asked_for_again_by_the_next_run(tmp_path: Path) -> None:
    """An entry that is refused or unreadable is checked again only when it is listed again."""
    forged = BOB.entry(x25519_pubkey=ALICE.identity.x25519_pubkey)
    for items in ([ALICE.entry(), forged], [ALICE.entry(), BOB.entry(role="emperor")]):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        made = host(folder, {**page(version="7-ab"), "items": items})
        await made.sync.now()
        made.sync.close()
        assert made.directory.version == "7-ab"
        again = Directory(folder / "peers.json", MESH_ID)
        again.load()
        assert (again.version, [peer.name for peer in again.peers()]) == (None, ["alice"])
        await made.tasks.stop()


async def test_many_changes_share_a_write_and_the_last_one_is_not_lost(tmp_path: Path) -> None:
    """At once, at most once a second, and at the end."""
    made = host(tmp_path, version="0-aa", known=[ALICE])
    for number in range(100):
        entry = ALICE.entry(summary=f"s{number}")
        made.hear(**{**page(since=f"{number}-aa", version=f"{number + 1}-aa"), "items": [entry]})
        await asyncio.sleep(0)
    assert made.saved == 1
    await made.tasks.stop()
    made.sync.close()
    again = Directory(tmp_path / "peers.json", MESH_ID)
    again.load()
    alice = again.by_name("alice")
    assert alice is not None
    assert (alice.summary, again.version, made.saved) == ("s99", "100-aa", 2)


async def test_a_broker_that_lets_everybody_ask_again_is_asked(tmp_path: Path) -> None:
    """Its database is another one than a moment ago."""
    made = host(tmp_path, page(BOB, whole=True, version="3-ff"), version="7-ab", known=[ALICE])
    made.hear(**page(since=None, version="3-ff"))
    async with asyncio.timeout(WAIT_S):
        while made.directory.version != "3-ff":  # noqa: ASYNC110 - the directory has no event
            await asyncio.sleep(0.01)
    assert made.names() == ["bob"]
    await made.tasks.stop()
