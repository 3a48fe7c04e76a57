"""Replies to exceptions of the daemon's routes, and the answers of its core as replies."""

from __future__ import annotations

from claudemesh.daemon.outbox.states import Answer
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.errors import StorageCorrupt, StorageError, StorageFull, StorageUnavailable
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.web import errors
from claudemesh.runtime.web.errors import HttpRefusal, refused
from claudemesh.runtime.web.replies import INTERNAL, Reply

log = get_logger("api")


def reply_to(error: Exception) -> Reply:
    """Return the reply to an exception. An unexpected one is logged, and its reply has no details."""
    if isinstance(error, ProtocolError):
        return refused(error)
    if isinstance(error, StorageError):
        return _storage_reply(error)
    log.error("request_failed", error=type(error).__name__, exc_info=error)
    return INTERNAL


def answered(answer: Answer) -> Reply:
    """Return the outbox's answer as a reply."""
    return Reply(answer.status, answer.body)


def not_found() -> HttpRefusal:
    """Return the 404 of a path that is not a route of the local API."""
    return errors.not_found("GET /v1/openapi.json lists the routes.")


def _storage_reply(error: StorageError) -> Reply:
    log.error("storage_failed", kind=type(error).__name__, error=str(error))
    if isinstance(error, StorageFull):
        return refused(HttpRefusal(507, "insufficient_storage", f"Nothing was changed: {error}."))
    if isinstance(error, StorageUnavailable):
        return refused(HttpRefusal(503, "storage_unavailable", f"Ask again shortly: {error}."))
    code = "storage_corrupt" if isinstance(error, StorageCorrupt) else "storage_broken"
    return refused(HttpRefusal(500, code, f"The daemon's storage needs its operator: {error}."))
