"""Threads: the message that another one answers, as the number that commands accept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from claudemesh.cli.lookup import find_received
from claudemesh.client.local import LocalClient

OWN = "you"
UNKNOWN = "?"
_NEWEST_SENDS = 500


class Threads:
    """The answered messages of an inbox: their numbers, as far as they are received or sent here."""

    def __init__(self, client: LocalClient) -> None:
        self._client = client
        self._numbers: dict[str, int] = {}

    def learn(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Remember the numbers of messages."""
        for item in items:
            if item["broker_message_id"] is not None:
                self._numbers[item["broker_message_id"]] = item["seq"]

    def mark(self, item: Mapping[str, Any]) -> str:
        """Return the number of the answered message, `you` for a send of this host, "" for no reply."""
        answered: str | None = item["reply_to_id"]
        if answered is None:
            return ""
        if answered not in self._numbers:
            found = find_received(self._client, answered)
            if found is None:
                return UNKNOWN if self.own_send(answered) is None else OWN
            self._numbers[answered] = found["seq"]
        return str(self._numbers[answered])

    def own_send(self, broker_message_id: str) -> dict[str, Any] | None:
        """Return one of the newest sends of this host; None when it is not among them."""
        page = self._client.get("/v1/outbox", order="desc", limit=_NEWEST_SENDS)
        rows: list[dict[str, Any]] = page["items"]
        return next((row for row in rows if row["broker_message_id"] == broker_message_id), None)

    def replies(self, broker_message_id: str | None) -> list[int]:
        """Return the numbers of the newest messages that answer this one, in their order."""
        if broker_message_id is None:
            return []
        page = self._client.get("/v1/inbox", order="desc", limit=_NEWEST_SENDS)
        return sorted(item["seq"] for item in page["items"] if item["reply_to_id"] == broker_message_id)
