"""ASGI types, and the transport below an ASGI `send`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def transport_of(send: Send) -> asyncio.Transport | None:
    """Return the transport that `send` writes to, or None when `send` is not uvicorn's.

    Middleware that wraps `send` must pass its `__self__` on.
    """
    transport: asyncio.Transport | None = getattr(getattr(send, "__self__", None), "transport", None)
    return transport


def is_whole(receive: Receive) -> bool:
    """Whether the whole body of a request is here already, so that the first `receive` does not wait for it.

    False when `receive` is not uvicorn's.
    """
    return getattr(getattr(receive, "__self__", None), "more_body", True) is False


def hang_up(send: Send) -> None:
    """Abort the connection and discard unsent bytes. Does nothing when the transport is unknown.

    ASGI has no message for this: an ordinary close waits until the client has read what was sent.
    """
    transport = transport_of(send)
    if transport is not None:
        transport.abort()


def is_gone(send: Send) -> bool:
    """Whether the connection has ended. A `send` after its end does nothing, without an error."""
    transport = transport_of(send)
    return transport is not None and transport.is_closing()
