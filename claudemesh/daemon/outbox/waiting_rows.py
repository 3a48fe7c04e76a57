"""Rows that wait for the key of their topic or queue: sealed when it comes, before they leave.

A row that the broker refuses because of its seal waits too. The broker has kept nothing of it, so it is
sealed again under the same id.

Crash story: a row waits on the disk with its text, and is sealed in one commit. A crash before it leaves the
row waiting, and the next start asks for the key again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import orjson

from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import Settlement, TakenRow
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.topic_keys import TopicKey
from claudemesh.runtime.errors import StorageBroken, StorageError
from claudemesh.runtime.logs import get_logger

log = get_logger("outbox")

# Rows sealed in one commit.
_AT_ONCE: Final = 128
_RETRY_S: Final = 1.0
# From this attempt on a row that is refused for its seal waits for a retry before it is sealed again.
_AT_ONCE_UNTIL: Final = 12
_UNKNOWN: Final = "key_epoch_unknown"
# Refusals for the seal of a row.
ABOUT_SEAL: Final = frozenset({"seal_required", "key_epoch_expired", _UNKNOWN})


class KeysOfTopics(Protocol):
    """The keys of topics that this host uses (daemon/topics/keys.py)."""

    def current(self, topic: str) -> TopicKey | None:
        """Return the key to seal with; None while there is none, or a newer one is to be used."""
        ...

    def find(self, topic: str, key_epoch: int) -> TopicKey | None:
        """Return the key of an epoch, if it is held."""
        ...

    def want_to_send(self, topic: str) -> None:
        """Get the present key of a topic, or make one."""
        ...

    def renew(self, topic: str, key_epoch: int | None = None) -> None:
        """Use no held key for further sends before the broker has told of the present one.

        The broker has refused `key_epoch`, by default the present one.
        """
        ...


class WaitingRows:
    """Seals waiting rows when a key has come. Until then further rows of the topic wait behind them."""

    def __init__(
        self,
        store: OutboxStore,
        keys: KeysOfTopics,
        seal: Callable[[bytes], bytes],
        wake: Callable[[], None],
        may_come_back: Callable[[str], bool],
        on_ended: Callable[[Settlement], None],
    ) -> None:
        """`seal` returns the sealed form of an envelope; `wake` starts the drain.

        `may_come_back` tells whether a refusal may be temporary. `on_ended` gets each row that has died.
        """
        self._store = store
        self._keys = keys
        self._seal = seal
        self._wake = wake
        self._may_come_back = may_come_back
        self._on_ended = on_ended
        # Topics with waiting rows, and how many more of these are on their way to the disk.
        self._behind: dict[str, int] = {}
        # Topics that the broker lacks: their rows die.
        self._gone: set[str] = set()
        self._topics: dict[str, None] = {}
        self._came = asyncio.Event()

    def current(self, topic: str) -> TopicKey | None:
        """Return the key that a new row is sealed with; None when it has to wait."""
        return None if topic in self._behind else self._keys.current(topic)

    def present(self, topic: str) -> TopicKey | None:
        """Return the key that waiting rows are sealed with, None while there is none."""
        return self._keys.current(topic)

    def find(self, topic: str, key_epoch: int) -> TopicKey | None:
        """Return the key of an epoch, if it is held."""
        return self._keys.find(topic, key_epoch)

    def begin(self, topic: str) -> None:
        """Note that a row which has to wait is on its way to the disk, and ask for the key."""
        self._behind[topic] = self._behind.get(topic, 0) + 1
        self._keys.want_to_send(topic)

    def written(self, topic: str) -> None:
        """Note that such a row is on the disk, or will not be."""
        self._behind[topic] = max(0, self._behind.get(topic, 0) - 1)
        self.key_came(topic)

    async def load(self) -> None:
        """Ask for the keys that rows of an earlier run wait for."""
        for topic in await self._store.topics_waited_for():
            self._behind.setdefault(topic, 0)
            self._keys.want_to_send(topic)
            self.key_came(topic)

    def key_came(self, topic: str) -> None:
        """Seal the rows of a topic."""
        self._topics[topic] = None
        self._came.set()

    def topic_is_gone(self, topic: str) -> bool:
        """Give up the rows of a topic that the broker lacks. It returns whether it may not come back."""
        if self._may_come_back("topic_not_found"):
            return False
        self._gone.add(topic)
        self.key_came(topic)
        return True

    def refused(self, row: TakenRow, error: str) -> str | None:
        """Return the topic whose key a refused row waits for now; None when its seal is not the reason.

        `written` follows when the row waits on the disk. Each refusal is one attempt more, so after many of
        them every second one is a retry with its backoff: a broker that refuses every seal is not flooded.
        """
        if error not in ABOUT_SEAL or (row.attempts >= _AT_ONCE_UNTIL and row.attempts % 2):
            return None
        envelope = orjson.loads(row.payload)
        topic: str = envelope["destination_ref"]
        if envelope["destination_kind"] == "dm":
            return None
        key = self._keys.current(topic)
        key_epoch: int | None = envelope["seal"].get("epoch")
        if error == _UNKNOWN and (key is None or key.key_epoch == key_epoch):
            # The broker has lost the epoch: this host registers it again, and the row leaves as it is. When
            # it cannot, another epoch is the present one by the next refusal.
            self._keys.renew(topic, key_epoch)
            return None
        self._keys.renew(topic, key_epoch)
        self._behind[topic] = self._behind.get(topic, 0) + 1
        return topic

    def seal_offer(self, payload: bytes) -> bytes | None:
        """Return a done send sealed with the present key, for a broker that does not take its epoch.

        None while the key is not here, or the key that it was sealed with is not held any more.
        """
        envelope = orjson.loads(payload)
        topic: str = envelope["destination_ref"]
        key = self._keys.current(topic)
        key_epoch: int | None = envelope["seal"].get("epoch")
        if key is None or key.key_epoch == key_epoch:
            self._keys.renew(topic, key_epoch)
            return None
        try:
            return self._seal(payload)
        except ProtocolError as error:
            log.info("send_not_sealed_again", topic=topic, error=error.code)
            return None

    async def run(self) -> None:
        """Seal rows until cancelled, or until the storage is broken."""
        while True:
            await self._came.wait()
            self._came.clear()
            topics, self._topics = self._topics, {}
            for topic in topics:
                try:
                    await self._seal_all(topic)
                except StorageBroken:
                    return
                except StorageError as error:
                    log.warning("rows_not_sealed", topic=topic, error=str(error))
                    self.key_came(topic)
                    await asyncio.sleep(_RETRY_S)

    async def _seal_all(self, topic: str) -> None:
        if topic in self._gone:
            reason = f"topic_not_found: The mesh has no topic {topic}, so its post was not sent."
            for ended in await self._store.refuse_waiting(topic, reason):
                self._on_ended(ended)
            self._gone.discard(topic)
        count = _AT_ONCE
        while count == _AT_ONCE:
            try:
                count, dead = await self._store.seal_waiting(topic, self._seal, _AT_ONCE)
            except ProtocolError as error:
                # The key is not here, or is outdated again; it is on its way.
                log.debug("rows_wait_for_key", topic=topic, error=error.code)
                self._keys.want_to_send(topic)
                return
            for ended in dead:
                self._on_ended(ended)
            if count:
                self._wake()
        if not self._behind.get(topic):
            self._behind.pop(topic, None)
