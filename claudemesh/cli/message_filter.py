"""Selection of messages by sender, topic, mention and text, for commands that list or follow messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """The conditions that a message has to meet; a condition that is None holds for every message."""

    # A name, with or without @, or a public key.
    sender: str | None = None
    # A name, with or without # or queue:.
    topic: str | None = None
    # A part of the body, in any case.
    text: str | None = None
    mentions: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether every message meets the conditions."""
        return self == MessageFilter()

    def holds(self, item: Mapping[str, Any]) -> bool:
        """Whether a message meets the conditions."""
        if self.mentions and not item["mentioned"]:
            return False
        if self.topic is not None and item["topic"] != self.topic.removeprefix("#").removeprefix("queue:"):
            return False
        return self._is_from(item) and self._has_text(item)

    def _is_from(self, item: Mapping[str, Any]) -> bool:
        wanted = None if self.sender is None else self.sender.removeprefix("@").lower()
        return wanted in (None, item["sender_name"].lower(), item["sender_pubkey"])

    def _has_text(self, item: Mapping[str, Any]) -> bool:
        return self.text is None or self.text.casefold() in (item["body"] or "").casefold()
