"""Leaving of an ephemeral member: the daemon ends the membership when it stops."""

from __future__ import annotations

from claudemesh.daemon.calls import Ask
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.replies import nothing
from claudemesh.runtime.logs import get_logger

log = get_logger("daemon")


async def leave(ask: Ask) -> None:
    """Ask the broker to end the membership. Without an answer the broker ends it when the lease is over."""
    try:
        await ask("leave", {}, nothing)
    except ProtocolError as error:
        log.warning("leave_not_confirmed", error=error.code, detail=error.message)
