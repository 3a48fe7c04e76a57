"""The present epochs of topics, as the broker has stated them."""

from __future__ import annotations

from typing import Final

from claudemesh.home.topic_keyring import HeldKey, TopicKeyring
from claudemesh.protocol.topic_keys import TopicKey

_DELETED: Final = 0


class PresentEpochs:
    """Decides with which held key a topic is sealed."""

    def __init__(self, held: TopicKeyring) -> None:
        self._held = held
        # As of the last answer of the broker.
        self._numbers: dict[str, int] = {}
        # Topics with an epoch after that, or with one that is wanted.
        self._outdated: set[str] = set()

    def current(self, topic: str) -> TopicKey | None:
        """Return the key to seal with; None while there is none, or a newer one is to be used."""
        present = None if topic in self._outdated else self.present(topic)
        return None if present is None else present.key

    def present(self, topic: str) -> HeldKey | None:
        """Return the held key of the present epoch; of the newest one until the broker has told of it."""
        number = self._numbers.get(topic)
        return self._held.newest(topic) if number is None else self._held.find(topic, number)

    def use(self, topic: str, number: int) -> None:
        """Use the key of this epoch, which the broker has stated as the present one."""
        self._numbers[topic] = number
        self._outdated.discard(topic)

    def delete(self, topic: str) -> None:
        """Use no held key of a topic that was deleted: one that is made again under its name has others."""
        self._numbers[topic] = _DELETED

    def is_deleted(self, topic: str) -> bool:
        """Whether a topic was deleted, and no epoch of one that was made again is known."""
        return self._numbers.get(topic) == _DELETED

    def outdate(self, *topics: str) -> None:
        """Use the held keys of these topics no more before the broker has told of the present epoch."""
        self._outdated.update(topics)

    def stated(self, topic: str, number: int) -> None:
        """Compare the number of a list of the broker with the held key."""
        present = self.present(topic)
        if present is not None and number != present.key.key_epoch:
            self._outdated.add(topic)
