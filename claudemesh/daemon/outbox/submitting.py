"""The way into the outbox: each part that takes a send and passes it on has this form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer


class Submit(Protocol):
    """Accepts a send durably, or answers with the state of the row that has its id."""

    async def __call__(
        self,
        request: SendRequest,
        *,
        wait_ms: int | None = None,
        on_queued: Callable[[], None] | None = None,
    ) -> Answer:
        """Return the answer; with `wait_ms`, wait that long for the broker's.

        `on_queued` is called when no later send can overtake this one.
        """
        ...
