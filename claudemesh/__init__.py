"""claudemesh: a durable, sealed messaging mesh for AI coding sessions, servers and CI jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claudemesh.sdk import AsyncDaemon, Daemon, DaemonError, Event, Kept, Message, Peer, Sent

__version__ = "0.1.0"
__all__ = ["AsyncDaemon", "Daemon", "DaemonError", "Event", "Kept", "Message", "Peer", "Sent"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: every command imports this package, and few need the SDK.
    if name in __all__:
        from claudemesh import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
