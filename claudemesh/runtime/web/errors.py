"""Errors as replies: `{"error": code, "message": sentence, …}` (docs/spec/protocol.md, Errors over HTTP)."""

from __future__ import annotations

from collections.abc import Iterable

from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.web.replies import Headers, Reply


class HttpRefusal(ProtocolError):
    """An error of HTTP itself, with its own status; `headers` are added to the reply."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Headers = (), **fields: object
    ) -> None:
        super().__init__(code, message, **fields)
        self._status = status
        self.headers = headers

    @property
    def status(self) -> int:
        """The HTTP status of the reply."""
        return self._status


def refused(error: ProtocolError) -> Reply:
    """Return the reply for an error; with `Retry-After` when the error has `retry_after_ms`."""
    headers = error.headers if isinstance(error, HttpRefusal) else ()
    wait_ms = error.fields.get("retry_after_ms")
    if isinstance(wait_ms, int):
        headers = (*headers, (b"retry-after", b"%d" % -(-wait_ms // 1000)))
    return Reply(error.status, error.as_body(), headers)


def not_found(hint: str) -> HttpRefusal:
    """Return the 404 of a path that has no route; `hint` is a sentence that tells where routes are listed.

    `unknown` tells programs that the route is missing, not the thing that it is about.
    """
    return HttpRefusal(404, "not_found", f"There is no such route. {hint}", unknown="route")


def method_not_allowed(allowed: Iterable[str], *, with_head: bool = True) -> HttpRefusal:
    """Return the 405 of a route that does not have the method, with `Allow`.

    `GET` brings `HEAD` with it, unless `with_head` is false.
    """
    known = set(allowed)
    methods = ", ".join(sorted(known | {"HEAD"} if "GET" in known and with_head else known))
    return HttpRefusal(
        405,
        "method_not_allowed",
        f"Use {methods} on this route.",
        headers=((b"allow", methods.encode()),),
        allowed=methods,
    )
