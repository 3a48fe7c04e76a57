"""Replies, and the one place where an exception becomes one (protocol.md, Errors over HTTP)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from claudemesh.daemon.outbox.states import Answer
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.errors import StorageCorrupt, StorageError, StorageFull, StorageUnavailable
from claudemesh.runtime.logs import get_logger

log = get_logger("api")

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

CLOSE: Headers = ((b"connection", b"close"),)
JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer: a JSON object, the parts of its text, or bytes of another type."""

    status: int
    body: Mapping[str, Any] | Sequence[bytes] | bytes
    headers: Headers = ()
    content_type: bytes = JSON


class Refusal(ProtocolError):
    """An error of HTTP itself, whose status is given; `headers` go with the answer."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Headers = (), **fields: object
    ) -> None:
        super().__init__(code, message, **fields)
        self._status = status
        self.headers = headers

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return self._status


def refused(error: ProtocolError) -> Reply:
    """Return the reply that an error of ours stands for."""
    headers = error.headers if isinstance(error, Refusal) else ()
    return Reply(error.status, error.as_body(), headers)


def answered(answer: Answer) -> Reply:
    """Return the core's answer as a reply."""
    return Reply(answer.status, answer.body)


def reply_to(error: Exception) -> Reply:
    """Return the reply to whatever was raised; what nobody foresaw is logged, and says nothing of itself."""
    if isinstance(error, ProtocolError):
        return refused(error)
    if isinstance(error, StorageError):
        return _storage_reply(error)
    log.error("request_failed", error=type(error).__name__, exc_info=error)
    return INTERNAL


def not_found() -> Refusal:
    """The path is none of this API's."""
    return Refusal(404, "not_found", "There is no such route; GET /v1/openapi.json lists them.")


def method_not_allowed(allowed: Iterable[str]) -> Refusal:
    """The path is known, the method is not one of its."""
    methods = ", ".join(sorted(allowed))
    return Refusal(
        405,
        "method_not_allowed",
        f"Use {methods} on this route.",
        headers=((b"allow", methods.encode()),),
        allowed=methods,
    )


INTERNAL = Reply(
    500,
    {"error": "internal_error", "message": "Something failed inside the daemon: its log has the details."},
)


def _storage_reply(error: StorageError) -> Reply:
    log.error("storage_failed", kind=type(error).__name__, error=str(error))
    if isinstance(error, StorageFull):
        return refused(Refusal(507, "insufficient_storage", f"Nothing was changed: {error}."))
    if isinstance(error, StorageUnavailable):
        return refused(Refusal(503, "storage_unavailable", f"Ask again shortly: {error}."))
    code = "storage_corrupt" if isinstance(error, StorageCorrupt) else "storage_broken"
    return refused(Refusal(500, code, f"The daemon's storage needs its operator: {error}."))
