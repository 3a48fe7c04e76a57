"""The address at which this host dials its broker, and its change when the mesh moves.

A new address is tried beside the present one, and replaces it when a session has opened there. Until then the
present one stays on the disk, so a crash at any point leaves an address that works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct


class Move(Struct, frozen=True):
    """A new address of the broker, and the time of its statement by the signer's clock."""

    url: str
    at_ms: int


class BrokerAddress:
    """The URL of the broker, and a new one that is not confirmed yet.

    The authorities of `ca_file`, which may be missing, are trusted at both.
    """

    def __init__(
        self,
        url: str,
        ca_file: Path | None = None,
        *,
        moved_at_ms: int = 0,
        keep: Callable[[Move], object] = lambda move: None,
    ) -> None:
        """`moved_at_ms` is the time of the last move that was followed. `keep` writes the next one."""
        self.url = url
        self.ca_file = ca_file
        self.moved_at_ms = moved_at_ms
        self._keep = keep
        self._pending: Move | None = None
        self._is_wanted = False
        # The new address that the present attempt dials.
        self._tried: Move | None = None
        self._outcome: asyncio.Future[str | None] | None = None

    @property
    def dialled(self) -> str:
        """The URL of the present attempt."""
        return self.url if self._tried is None else self._tried.url

    def propose(self, move: Move) -> asyncio.Future[str | None]:
        """Let the next attempt dial a new address. The result is why no session opened there, else None."""
        self._pending, self._is_wanted = move, True
        self._settle("another address was stated meanwhile")
        self._outcome = asyncio.get_running_loop().create_future()
        return self._outcome

    def remember(self, move: Move) -> None:
        """Keep a new address for the case that the present one fails."""
        self._pending = move

    def begin(self) -> bool:
        """Begin an attempt; return whether it is one at the new address."""
        self._tried = self._pending if self._is_wanted else None
        return self._tried is not None

    def opened(self) -> None:
        """Note that a session has opened at the dialled URL."""
        self._is_wanted = False
        if self._tried is not None:
            self.follow(self._tried)

    def failed(self, reason: str) -> None:
        """Note why no session has opened. The next attempt dials the other address, if there is one."""
        was_new, self._tried = self._tried is not None, None
        self._is_wanted = not was_new and self._pending is not None
        if was_new:
            self._settle(reason)

    def follow(self, move: Move) -> None:
        """Take a new address for the broker's, and write it."""
        self.url, self.moved_at_ms = move.url, move.at_ms
        self._pending = self._tried = None
        self._keep(move)
        self._settle(None)

    def _settle(self, failure: str | None) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is not None and not outcome.done():
            outcome.set_result(failure)
