"""Dialling the broker: a redirect is an error that names its target, and is not followed.

A hello is signed for the address in membership.json. The server there may not choose another one.
"""

from __future__ import annotations

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from claudemesh.runtime.terminal import safe

_SHOWN_CHARACTERS = 200


class Redirected(InvalidHandshake):
    """The answer to the upgrade was a redirect."""

    def __init__(self, status: int, target: str) -> None:
        super().__init__(status, target)
        self.status = status
        self.target = safe(target[:_SHOWN_CHARACTERS])

    def __str__(self) -> str:
        return (
            f"it answers with a redirect ({self.status}) to {self.target or 'nowhere'}, which is not "
            "followed. If the broker has moved there, dial it there: `claudemesh daemon set-broker URL`"
        )


class Dial(connect):
    """Opens the WebSocket at exactly the given address."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the error for a redirect; any other exception unchanged."""
        if isinstance(exc, InvalidStatus) and 300 <= exc.response.status_code < 400:
            return Redirected(exc.response.status_code, exc.response.headers.get("Location", ""))
        return exc
