"""Look-ups by what a user types: a member's name, the id of a received message."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from claudemesh.client.errors import ApiError
from claudemesh.client.local import LocalClient


def find_received(client: LocalClient, message_id: str) -> dict[str, Any] | None:
    """Return a message of the inbox by its seq or any of its ids; None when there is none."""
    try:
        return client.get(f"/v1/inbox/{quote(message_id, safe='')}")
    except ApiError as error:
        if error.status != 404:
            raise
        return None


def find_peer(client: LocalClient, name: str) -> dict[str, Any] | None:
    """Return a member by its name, with or without @, or by its public key; None when there is none.

    Where a name stands for several members, one that is online goes first.
    """
    wanted = name.removeprefix("@").lower()
    found = [peer for peer in client.items("/v1/peers") if wanted in (peer["name"].lower(), peer["pubkey"])]
    return max(found, key=lambda peer: peer["online"], default=None)
