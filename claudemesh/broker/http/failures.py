"""Replies to exceptions of the broker's HTTP routes."""

from __future__ import annotations

from claudemesh.broker.degraded import Degraded
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.web import errors
from claudemesh.runtime.web.errors import HttpRefusal, refused
from claudemesh.runtime.web.replies import INTERNAL, Reply


def reply_to(degraded: Degraded, error: Exception) -> Reply:
    """Return the reply to an exception. A failure is reported to `degraded`, and not described."""
    if isinstance(error, ProtocolError):
        return refused(error)
    degraded.failed("request", error)
    if isinstance(error, StorageError):
        text = "The broker's database did not answer. Try again."
        return refused(HttpRefusal(503, "storage_unavailable", text))
    return INTERNAL


def not_found() -> HttpRefusal:
    """Return the 404 of a path that is not a route of a broker."""
    return errors.not_found("Routes of a daemon are on its own socket.")
