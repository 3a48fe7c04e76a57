"""Authorization by the admin token, compared in constant time, with a rate limit of wrong ones by address.

Leaky bucket: an address may give ten wrong tokens at once, and one more each six seconds. Past that, requests
are answered 429 without a comparison. Requests through a proxy are counted apart from direct ones, so that
guesses through a proxy on the broker's own host do not lock out its operator there.
"""

from __future__ import annotations

import hmac
import math

from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.console.admission import CONSOLE_KEY, Admission, cookies_of
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.web.asgi import Scope
from claudemesh.runtime.web.server import address_of, admit

log = get_logger("broker.http")

BURST = 10
EACH_S = 6.0
# Addresses that are counted one by one. Past this number, new ones share one count.
_ADDRESSES = 1024
_CROWD = "others"
_TOKEN_CHARACTERS = 512
_READING = frozenset({"GET", "HEAD"})
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})


class AdminAuth:
    """Checks the bearer token of requests to the admin API."""

    def __init__(self, token: bytes, clock: Clock, sessions: Admission | None = None) -> None:
        """`sessions` are those of browsers with the console, which read and never act."""
        self._token = token
        self._clock = clock
        self._sessions = sessions
        # Monotonic time in seconds at which the bucket of each address is empty again.
        self._full_at: dict[str, float] = {}

    def require(self, scope: Scope) -> None:
        """Raise `ProtocolError` unless the request has the token: 401, or 429 after too many wrong ones.

        A request that reads may have a session of a browser instead.
        """
        if self._sessions is not None and scope.get("method") in _READING:
            key = next((value for name, value in scope["headers"] if name == CONSOLE_KEY), b"")
            if key and self._sessions.is_session(cookies_of(scope["headers"]), key):
                admit(scope)
                return
        now = self._clock.monotonic()
        source = self._counted_as(_source(scope), now)
        ahead_s = max(self._full_at.get(source, now) - now, 0.0)
        wait_s = ahead_s - (BURST - 1) * EACH_S
        if wait_s > 0:
            raise _too_many(wait_s)
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or len(given[0]) > _TOKEN_CHARACTERS:
            raise _not_admin()
        scheme, _, secret = given[0].partition(" ")
        matches = hmac.compare_digest(secret.strip().encode("latin-1", "replace"), self._token)
        if scheme.lower() == "bearer" and matches:
            admit(scope)
            return
        self._full_at[source] = now + ahead_s + EACH_S
        log.warning("admin_token_refused", client=source, path=scope["path"][:200])
        raise _not_admin()

    def _counted_as(self, source: str, now: float) -> str:
        if source in self._full_at or len(self._full_at) < _ADDRESSES:
            return source
        self._full_at = {known: at for known, at in self._full_at.items() if at > now}
        return source if len(self._full_at) < _ADDRESSES else _CROWD


def _source(scope: Scope) -> str:
    """Return the name of the bucket of a request: the client's address, marked if a proxy forwarded it."""
    host = address_of(scope)
    return f"{host} forwarded" if any(name in _FORWARDED for name, _ in scope["headers"]) else host


def _too_many(wait_s: float) -> ProtocolError:
    seconds = max(1, math.ceil(wait_s))
    return ProtocolError(
        "too_many_guesses",
        f"Too many wrong admin tokens came from this address. Try again in {seconds} s, "
        "or send the request on the broker's own host.",
        retry_after_ms=seconds * 1000,
    )


def _not_admin() -> ProtocolError:
    return ProtocolError(
        "unauthenticated",
        "This needs the broker's admin token, which is in the file admin_token of its data directory.",
    )
