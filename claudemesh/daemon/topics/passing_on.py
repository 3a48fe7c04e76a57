"""Passing keys of topics on: wraps for subscribers that have none, and for members that the broker names.

The broker decides which epochs a member is owed: those under which messages were accepted since it
subscribed, or wait in a queue. It gets each of them that a holder has, however many epochs have followed.
"""

from __future__ import annotations

from collections.abc import Sequence

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.topics.wrapping import Wrapping
from claudemesh.protocol import topic_key_replies as replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.topic_keys import MAX_WRAPS, TopicKey, Wrap
from claudemesh.runtime.logs import get_logger

log = get_logger("topic_keys")


class PassingOn:
    """Wraps keys for other members, and hands the wraps to the broker."""

    def __init__(self, wrapping: Wrapping, ask: Ask) -> None:
        self._wrapping = wrapping
        self._ask = ask

    async def to_missing(self, key: TopicKey, reply: replies.TopicKeys) -> None:
        """Wrap the key of the present epoch for the subscribers that have none, page by page."""
        seen: set[str] = set()
        while reply.current is not None and reply.current.key_epoch == key.key_epoch:
            ids = [entry.member_id for entry in reply.missing if entry.member_id not in seen]
            if not ids:
                return
            seen.update(ids)
            await self._add(key, await self._wrapping.for_members(key, ids))
            if not reply.missing_more:
                return
            reply = await self._ask("topic_key", {"topic": key.topic}, replies.topic_keys)

    async def to_member(self, key: TopicKey, member_id: str) -> None:
        """Wrap a key for one member that the broker has named."""
        try:
            await self._add(key, await self._wrapping.for_members(key, [member_id]))
        except ProtocolError as error:
            log.info("topic_key_not_passed_on", topic=key.topic, key_epoch=key.key_epoch, error=error.code)

    async def _add(self, key: TopicKey, wraps: Sequence[Wrap]) -> None:
        for start in range(0, len(wraps), MAX_WRAPS):
            part = [wrap.to_dict() for wrap in wraps[start : start + MAX_WRAPS]]
            params = {"topic": key.topic, "key_epoch": key.key_epoch, "wraps": part}
            await self._ask("topic_wrap_add", params, replies.wraps_added)
