"""Acceptance: a send is resolved, fingerprinted and sealed once, on every path."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.callers import WaitingCallers
from claudemesh.daemon.outbox.destinations import Destinations
from claudemesh.daemon.outbox.draft import Drafts
from claudemesh.daemon.outbox.request import SendRequest, Target, parse_post, parse_send
from claudemesh.daemon.outbox.sealer import NONCE_BYTES, Sealer
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.submit import Submitter
from claudemesh.daemon.outbox.types import Now, Submission
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.sealing import SealedContent
from claudemesh.protocol.wire import DEFAULT_INLINE_BYTES
from claudemesh.runtime.clock import SystemClock
from tests.support.daemon import MESH_ID, NOW, KeyOfEachTopic, directory_of, keyring_of, new_ulid, person
from tests.support.values import replace

ALICE, BOB = person("alice"), person("bob")
FULL = Answer(507, {"error": "insufficient_storage", "message": "Full."})


class Hook:
    """A pre-send hook that is asked for each send and may change its message."""

    guards_sends = True

    def __init__(self, answer: Answer | None = None) -> None:
        self.asked: list[str] = []
        self.answer = answer
        self.message = "changed"

    async def before_send(self, request: SendRequest, client_message_id: str) -> SendRequest | Answer:
        self.asked.append(client_message_id)
        return self.answer or replace(request, message=self.message)


class Host:
    """Alice's accepting half; `seals` counts the nonces that were drawn, one for each sealed dm."""

    def __init__(self, store: OutboxStore, directory: Directory) -> None:
        self.store = store
        self.directory = directory
        self.seals = 0
        self.looked: list[Target] = []
        self.refusal: Answer | None = None
        self.hook: Hook | None = None
        self.limit = DEFAULT_INLINE_BYTES
        self.topic_keys = KeyOfEachTopic()

    def submitter(self) -> Submitter:
        return Submitter(
            self.store,
            Drafts(Destinations(self.directory), lambda: self.refusal, self._look_again),
            Sealer(
                keyring_of(ALICE.identity), MESH_ID, self._entropy, BodyLimit(self.limit), self.topic_keys
            ),
            SystemClock(),
            new_ulid,
            WaitingCallers(),
            self._enqueue,
            self.hook,
        )

    async def send(self, **body: object) -> Answer:
        return await self.submitter().submit(parse_send({"to": "bob", "message": "hello", **body}))

    async def message(self, client_message_id: str) -> str:
        return (await self.content(client_message_id)).message

    async def content(self, client_message_id: str) -> SealedContent:
        found = await self.store.find(client_message_id)
        assert found is not None
        sealer = self._sealer(BodyLimit())
        envelope = Envelope.decode(found[1])
        to = Destinations(self.directory).resolve(Target("dm", ref=envelope.destination_ref))
        return sealer.open_own(envelope, to)

    def _sealer(self, limit: BodyLimit) -> Sealer:
        return Sealer(keyring_of(ALICE.identity), MESH_ID, self._entropy, limit, self.topic_keys)

    def _entropy(self, size: int) -> bytes:
        assert size == NONCE_BYTES
        self.seals += 1
        return os.urandom(size)

    def _enqueue(self, submission: Submission) -> asyncio.Future[Answer]:
        async def write() -> Answer:
            return (await self.store.turn([submission], [], Now(NOW, 1), 0)).answers[0]

        return asyncio.ensure_future(write())

    async def _look_again(self, target: Target) -> bool:
        self.looked.append(target)
        return self.directory.apply([BOB.listed()])


@asynccontextmanager
async def host(*, knows_bob: bool = True) -> AsyncGenerator[Host]:
    with tempfile.TemporaryDirectory() as folder:
        store = await OutboxStore.open(Path(folder) / "outbox.db")
        people = (ALICE, BOB) if knows_bob else (ALICE,)
        try:
            yield Host(store, directory_of(Path(folder), *people))
        finally:
            await store.close()


async def test_a_plain_send_is_sealed_once() -> None:
    async with host() as alice:
        assert (await alice.send()).status == 202
        assert (alice.seals, alice.looked) == (1, [])


async def test_a_name_in_the_text_of_a_post_is_a_mention() -> None:
    """Found in the text that is sealed, after the pre-send hook; a name of no member is text."""
    async with host() as alice:
        texts = {
            "one": ("thanks @Bob, and @nobody", [BOB]),
            "two": ("@bob. and @alice: look", [BOB, ALICE]),
            "three": ("mail x@bob, path /@bob, @bobby", []),
        }
        for name, (text, mentioned) in texts.items():
            request = parse_post({"topic": "news", "message": text, "client_message_id": name})
            assert (await alice.submitter().submit(request)).status == 202
            found = await alice.store.find(name)
            assert found is not None
            keys = tuple(one.identity.ed25519_pubkey for one in mentioned)
            assert Envelope.decode(found[1]).mentions == keys
        alice.hook = Hook()
        alice.hook.message = "see @bob"
        request = parse_post({"topic": "news", "message": "nothing", "client_message_id": "four"})
        assert (await alice.submitter().submit(request)).status == 202
        found = await alice.store.find("four")
        assert found is not None and Envelope.decode(found[1]).mentions == (BOB.identity.ed25519_pubkey,)


async def test_a_text_mentions_no_more_members_than_an_envelope_holds() -> None:
    """Those that the request names come first."""
    async with host() as alice:
        crowd = [person(f"m{number}") for number in range(70)]
        alice.directory.apply([one.listed() for one in crowd])
        text = " ".join(f"@{one.name}" for one in crowd)
        body = {"topic": "news", "message": text, "mentions": ["bob"], "client_message_id": "one"}
        assert (await alice.submitter().submit(parse_post(body))).status == 202
        found = await alice.store.find("one")
        assert found is not None
        mentions = Envelope.decode(found[1]).mentions
        assert len(mentions) == 64 and mentions[0] == BOB.identity.ed25519_pubkey


async def test_another_session_is_another_request() -> None:
    """An id that was used for one session is refused for another one and for the host."""
    async with host() as alice:
        given = {"client_message_id": "one", "from_session": "web"}
        assert (await alice.send(to="bob/api", **given)).status == 202
        assert (await alice.send(to="bob/api", **given)).status == 202
        assert [(await alice.send(to=to, **given)).status for to in ("bob/other", "bob")] == [409, 409]
        sessions = (await alice.content("one")).sessions
        assert (sessions.sender, sessions.recipient) == ("web", "api")


async def test_a_send_that_a_hook_changes_is_sealed_once_as_changed() -> None:
    """The row holds the hook's text; a retry of the caller's text is still the same send."""
    async with host() as alice:
        alice.hook = Hook()
        assert (await alice.send(client_message_id="one")).status == 202
        assert (alice.seals, await alice.message("one")) == (1, "changed")
        assert (await alice.send(client_message_id="one")).status == 202
        assert alice.hook.asked == ["one"]


async def test_a_send_that_a_hook_refuses_is_not_sealed() -> None:
    async with host() as alice:
        alice.hook = Hook(Answer(403, {"error": "refused_by_hook"}))
        assert (await alice.send()).status == 403
        assert alice.seals == 0


async def test_a_hook_is_not_asked_about_a_send_that_is_refused_anyway() -> None:
    async with host() as alice:
        alice.hook = Hook()
        assert (await alice.send(to="nobody")).body["error"] == "destination_not_found"
        assert (await alice.send(mentions=["nobody"])).body["error"] == "destination_not_found"
        alice.refusal = FULL
        assert (await alice.send()).status == 507
        assert (alice.hook.asked, alice.seals) == ([], 0)


async def test_the_size_is_judged_as_the_send_goes_out() -> None:
    """A hook may shorten what would be too large, and may not send more than the broker takes."""
    async with host() as alice:
        alice.hook = Hook()
        alice.limit = 1000
        submitter = alice.submitter()
        large = parse_send({"to": "bob", "message": "x" * 2000})
        assert (await submitter.submit(large)).status == 202
        alice.hook.message = "y" * 2000
        answer = await submitter.submit(parse_send({"to": "bob", "message": "small"}))
        assert answer.body["error"] == "payload_too_large"


async def test_an_unknown_name_is_looked_up_once_more_and_then_sealed_once() -> None:
    async with host(knows_bob=False) as alice:
        assert (await alice.send()).status == 202
        assert ([target.name for target in alice.looked], alice.seals) == (["bob"], 1)


async def test_a_known_id_is_answered_although_nothing_new_is_accepted() -> None:
    """Full disk, unknown name: the row answers, and no list is asked for."""
    async with host() as alice:
        await alice.send(client_message_id="one")
        alice.refusal = FULL
        assert (await alice.send(client_message_id="one")).status == 202
        assert (await alice.send(client_message_id="one", message="other")).status == 409
        assert alice.seals == 1


async def test_prepare_seals_for_a_requeue() -> None:
    async with host() as alice:
        made = alice.submitter().prepare(parse_send({"to": "bob", "message": "again"}), "two")
        assert made.row is not None
        assert Envelope.decode(made.row.payload).client_message_id == "two"
