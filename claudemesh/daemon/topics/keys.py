"""Keys of topics and queues: gets them from the broker, makes them, and passes them on to other members.

Crash story: an epoch is made at the broker with a wrap for its maker, and is used here after its key is on
this disk. A crash in between gets the key back by that wrap. An epoch whose maker has died before it has
wrapped the key for others is followed by another one, made by the next member that sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.changes import KEYPAIR_REVOKED, MemberChange
from claudemesh.daemon.topics.key_steps import (
    MOST_LEFT_OUT,
    HeldEpoch,
    Step,
    TopicView,
    Wish,
    lost_epochs,
    may_seal_on,
    next_step,
)
from claudemesh.daemon.topics.passing_on import PassingOn
from claudemesh.daemon.topics.present import PresentEpochs
from claudemesh.daemon.topics.wrapping import Wrapping
from claudemesh.home.topic_keyring import HeldKey, TopicKeyring
from claudemesh.protocol import topic_key_replies as replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import (
    TOPIC_KEY_ADDED,
    TOPIC_KEY_CHANGED,
    TOPIC_KEY_WANTED,
    News,
    TopicDeleted,
    TopicKeyEvent,
)
from claudemesh.protocol.replies import PeerEntry, TopicList
from claudemesh.protocol.topic_keys import MAX_WRAPS, EpochStatement, TopicKey, Wrap
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner

log = get_logger("topic_keys")

# Steps in a row: a race for an epoch that is lost so many times is left to the others for a moment.
_ROUNDS: Final = 8
_BACKOFF: Final = Backoff(initial_s=0.5, cap_s=60)


def _is_gone(error: Exception) -> bool:
    return isinstance(error, ProtocolError) and error.code == "topic_not_found"


class TopicKeys:
    """The keys of topics that this host uses. Every method but those with `async` returns at once."""

    def __init__(
        self,
        held: TopicKeyring,
        wrapping: Wrapping,
        ask: Ask,
        tasks: TaskOwner,
    ) -> None:
        self._held = held
        self._wrapping = wrapping
        self._ask = ask
        self._tasks = tasks
        self._on_key: list[Callable[[str], None]] = []
        self._on_gone: Callable[[str], bool] = lambda topic: True
        self._wishes: dict[str, Wish] = {}
        self._working: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._epochs = PresentEpochs(held)
        self._passing_on = PassingOn(wrapping, ask)
        self._writing = asyncio.Lock()
        self._is_up = False
        # Wraps that did not open to the commitment, and epochs that no member has signed.
        self.wrong_wraps = 0

    def on_key(self, listener: Callable[[str], None]) -> None:
        """Add a function that is called with the name of a topic of which a key has come."""
        self._on_key.append(listener)

    def on_gone(self, listener: Callable[[str], bool]) -> None:
        """Set the function that gets a topic which the broker lacks and returns whether it stays gone."""
        self._on_gone = listener

    def current(self, topic: str) -> TopicKey | None:
        """Return the key to seal with; None while there is none, or a newer one is to be used."""
        return self._epochs.current(topic)

    def find(self, topic: str, key_epoch: int) -> TopicKey | None:
        """Return the key of an epoch, if it is held."""
        found = self._held.find(topic, key_epoch)
        return None if found is None else found.key

    @property
    def waiting(self) -> Mapping[str, str | None]:
        """The topics of which a key is wanted, each with the last error."""
        return {topic: wish.error for topic, wish in self._wishes.items()}

    def want_to_send(self, topic: str) -> None:
        """Get the present key of a topic, or make one."""
        self._want(topic).is_to_send = True
        self._start(topic)

    def want(self, topic: str, key_epoch: int) -> None:
        """Get the key of an epoch when a member has wrapped it for this one."""
        self._want(topic).key_epochs.add(key_epoch)
        self._start(topic)

    def renew(self, topic: str, key_epoch: int | None = None) -> None:
        """Use no held key for further sends of a topic before the broker has told of the present one.

        The broker has refused `key_epoch`, by default the present one.
        """
        present = self._epochs.present(topic)
        if key_epoch is None and present is not None:
            key_epoch = present.key.key_epoch
        self._epochs.outdate(topic)
        if key_epoch is not None:
            self._want(topic).refused.add(key_epoch)
        self.want_to_send(topic)

    def look_again(self) -> None:
        """Compare every held key with the broker, which may have lost epochs with a restore."""
        for topic in self._held.topics:
            self._want(topic).lists_missing = True
            self._start(topic)

    def link_up(self) -> None:
        """Continue on a new link."""
        self._is_up = True
        for topic in list(self._wishes):
            self._start(topic)

    def link_down(self) -> None:
        """Stop the work of this link."""
        self._is_up = False
        for task in self._working.values():
            task.cancel()
        self._working.clear()

    def on_event(self, news: News) -> None:
        """React to what the broker says of keys."""
        if isinstance(news, TopicDeleted):
            # A topic that is made again under this name has keys of its own.
            self._epochs.delete(news.topic)
            if news.topic in self._wishes:
                # Rows that wait for its key die, and wraps of posts from before are fetched.
                self._start(news.topic)
            return
        if not isinstance(news, TopicKeyEvent):
            return
        topic, key_epoch = news.topic, news.key_epoch
        present = self._epochs.present(topic)
        if news.event == TOPIC_KEY_WANTED:
            held = None if key_epoch is None else self._held.find(topic, key_epoch)
            if held is not None and news.member_id is not None:
                self._tasks.start(self._passing_on.to_member(held.key, news.member_id), "topic_wrap")
        elif news.event == TOPIC_KEY_ADDED:
            if key_epoch is not None and self.find(topic, key_epoch) is None:
                self.want(topic, key_epoch)
        elif present is None:
            return
        elif news.event == TOPIC_KEY_CHANGED:
            # The key is asked for when it is needed: a member that has left the topic needs none.
            if key_epoch is not None and present.key.key_epoch < key_epoch:
                self._epochs.outdate(topic)
        else:
            self._epochs.outdate(topic)
            self._want(topic).lists_missing = True
            self._start(topic)

    def members_changed(self, changes: Iterable[MemberChange]) -> None:
        """Ask the broker before a held key is used again if a member was revoked, which may hold it too."""
        if any(change.event == KEYPAIR_REVOKED for change in changes):
            self._epochs.outdate(*self._held.topics)

    def listed(self, answer: TopicList) -> None:
        """Note the topics whose present epoch is another one than the held one."""
        for entry in answer.items:
            self._epochs.stated(entry.topic, entry.key_epoch or 0)

    def _want(self, topic: str) -> Wish:
        return self._wishes.setdefault(topic, Wish())

    def _start(self, topic: str) -> None:
        if not self._is_up:
            return
        wake = self._wakes.setdefault(topic, asyncio.Event())
        wake.set()
        task = self._working.get(topic)
        if task is None or task.done():
            self._working[topic] = self._tasks.start(self._work(topic, wake), "topic_key")

    async def _work(self, topic: str, wake: asyncio.Event) -> None:
        """Work on the wishes for a topic until they are fulfilled or the link ends."""
        failures = 0
        while (wish := self._wishes.get(topic)) is not None:
            wake.clear()
            try:
                is_done = await self._settle(topic, wish)
            except (ProtocolError, OSError) as error:
                if _is_gone(error) and self._on_gone(topic):
                    self._wishes.pop(topic, None)
                    return
                is_done = False
                wish.error = str(error)
                log.info("topic_key_not_here", topic=topic, error=str(error))
            if is_done:
                failures = 0
                if not wake.is_set():
                    self._wishes.pop(topic, None)
                continue
            failures += 1
            try:
                async with asyncio.timeout(_BACKOFF.delay_s(failures)):
                    await wake.wait()
            except TimeoutError:
                continue

    async def _settle(self, topic: str, wish: Wish) -> bool:
        """Take steps until none is left; return whether every wish is fulfilled."""
        for _ in range(_ROUNDS):
            is_done = await self._turn(topic, wish)
            if is_done is not None:
                return is_done
        return False

    async def _turn(self, topic: str, wish: Wish) -> bool | None:
        """Ask the broker and take the next step.

        Return whether every wish is fulfilled; None when the broker is to be asked again.
        """
        asked = wish.next_asked()
        lists = wish.is_to_send or wish.lists_missing
        params: dict[str, Any] = {"topic": topic, "key_epochs": asked, "missing": lists}
        if wish.has_wrong_wrap:
            params["wanted"] = True
        reply = await self._ask("topic_key", params, replies.topic_keys)
        stated = {one.key_epoch: one for one in (*reply.epochs, *((reply.current,) if reply.current else ()))}
        if self._is_next_wanted(reply):
            # Before the key is here: a row that waits for it is not sealed with it.
            self._epochs.outdate(topic)
        wish.has_wrong_wrap = await self._open_wraps(topic, stated, reply.wraps)
        wish.key_epochs = {one for one in wish.key_epochs if self.find(topic, one) is None}
        if len(asked) == replies.MAX_EPOCHS_ASKED and wish.key_epochs.isdisjoint(asked):
            # Every one of them has come, and more are wanted or may be.
            return None
        view = self._view(topic, reply)
        step = next_step(view, is_to_send=wish.is_to_send, has_waited=wish.has_waited)
        if step in (Step.MAKE, Step.REGISTER) and not lists:
            wish.lists_missing = True
            return None
        if step is Step.REGISTER:
            await self._register(topic, view, reply.missing)
            if view.rekey_wanted:
                # The registered epochs have ended the mark, and a member that has gone may hold their keys.
                await self._ask("topic_rekey", {"topic": topic}, replies.rekey_noted)
            return None
        put_off = None
        if step is Step.MAKE:
            try:
                await self._make(topic, view, reply.missing)
            except ProtocolError as error:
                is_refused = view.current in wish.refused or self._is_of_revoked(reply)
                if error.code != "too_many_epochs" or not may_seal_on(view, is_refused=is_refused):
                    raise
                log.warning("topic_epoch_not_made", topic=topic, error=error.code)
                put_off = str(error)
            else:
                # The subscribers without a wrap of the new epoch follow.
                return None
        if step is Step.WAIT:
            wish.error, wish.has_waited = None, wish.is_to_send
            return not wish.key_epochs and reply.current is None
        self._epochs.use(topic, view.current)
        wish.is_to_send = wish.has_waited = False
        wish.refused.clear()
        self._tell(topic)
        present = self._epochs.present(topic)
        if present is not None:
            await self._passing_on.to_missing(present.key, reply)
        # An epoch that was put off is made when this host may: a member that has left has the present key.
        wish.error = put_off
        return put_off is None and not wish.key_epochs

    def _view(self, topic: str, reply: replies.TopicKeys) -> TopicView:
        current = reply.current
        number = 0 if current is None else current.key_epoch
        commitment = current.commitment if current is not None and self._wrapping.is_signed(current) else ""
        # Of a topic that was deleted the keys of before are none of those that the broker has lost.
        last = number if self._epochs.is_deleted(topic) else number + MOST_LEFT_OUT
        held = [
            HeldEpoch(key_epoch, one.statement.commitment, one.statement.previous_commitment)
            for key_epoch in range(max(1, number), last + 1)
            if (one := self._held.find(topic, key_epoch)) is not None
        ]
        return TopicView(number, commitment, self._is_next_wanted(reply), held)

    def _is_next_wanted(self, reply: replies.TopicKeys) -> bool:
        """Whether the next epoch is to be made: the broker says so, or the maker of this one was revoked."""
        return reply.rekey_wanted or self._is_of_revoked(reply)

    def _is_of_revoked(self, reply: replies.TopicKeys) -> bool:
        return reply.current is not None and self._wrapping.is_of_revoked(reply.current)

    async def _open_wraps(
        self, topic: str, stated: Mapping[int, EpochStatement], wraps: Iterable[Wrap]
    ) -> bool:
        """Keep the keys that open; return whether one is missing whose wrap does not open."""
        wrong: set[int] = set()
        is_new = False
        for wrap in sorted(wraps, key=lambda one: one.key_epoch):
            statement = stated[wrap.key_epoch]
            known = self._held.find(topic, wrap.key_epoch)
            if known is not None and known.statement.commitment == statement.commitment:
                continue
            try:
                key = self._wrapping.opened(wrap) if self._wrapping.is_signed(statement) else None
            except ProtocolError as error:
                log.warning("topic_wrap_wrong", topic=topic, key_epoch=wrap.key_epoch, error=error.message)
                key = None
            if key is None:
                self.wrong_wraps += 1
                wrong.add(wrap.key_epoch)
                continue
            await self._keep(HeldKey(key, statement))
            is_new = True
        if is_new:
            # At once: what has waited for several of them is opened in the order of its acceptance.
            self._tell(topic)
        return any(self._held.find(topic, key_epoch) is None for key_epoch in wrong)

    async def _make(self, topic: str, view: TopicView, missing: Sequence[PeerEntry]) -> None:
        """Make the next epoch, or find that another member has made it."""
        made = self._wrapping.new_epoch(topic, view.next_number, view.commitment)
        if await self._create(view.current, made, missing):
            await self._keep(made)

    async def _register(self, topic: str, view: TopicView, missing: Sequence[PeerEntry]) -> None:
        """Register the epochs again that the broker has lost."""
        for key_epoch in lost_epochs(view):
            held = self._held.find(topic, key_epoch)
            if held is None or not await self._create(key_epoch - 1, held, missing):
                return
            log.info("topic_epoch_registered_again", topic=topic, key_epoch=key_epoch)

    async def _create(self, expected: int, held: HeldKey, missing: Sequence[PeerEntry]) -> bool:
        """Create an epoch at the broker with the first wraps; return whether it is the one of this host."""
        wraps = [self._wrapping.for_itself(held.key)]
        wraps += await self._wrapping.for_members(
            held.key, [entry.member_id for entry in missing][: MAX_WRAPS - 1]
        )
        params = {
            "topic": held.key.topic,
            "expected": expected,
            "epoch": replace(held.statement, created_at=None).to_dict(),
            "wraps": [wrap.to_dict() for wrap in wraps],
        }
        try:
            await self._ask("topic_epoch_create", params, replies.epoch_created)
        except ProtocolError as error:
            if error.code != "key_epoch_conflict":
                raise
            return False
        return True

    async def _keep(self, held: HeldKey) -> None:
        async with self._writing:
            await asyncio.to_thread(self._held.add, held)

    def _tell(self, topic: str) -> None:
        for listener in self._on_key:
            listener(topic)
