"""The admin token at the door: compared in constant time, and wrong ones are counted for each address.

An address that has given ten wrong tokens is answered 429 without a comparison until its count has gone down,
one each six seconds. Requests through a proxy are counted apart from direct ones, so that guesses through a
proxy on the broker's own host do not keep its operator from asking the broker there.
"""

from __future__ import annotations

import hmac
import math

from starlette.requests import Request

from claudemesh.protocol import ProtocolError
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.web.server import address_of, admit

log = get_logger("broker.http")

BURST = 10
EACH_S = 6.0
# Addresses that are counted one by one; past it those that come new share one count.
_ADDRESSES = 1024
_CROWD = "others"
_TOKEN_CHARACTERS = 512
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class AdminGate:
    """Lets through who bears the token."""

    def __init__(self, token: bytes, clock: Clock) -> None:
        self._token = token
        self._clock = clock
        # The time at which each address has its whole allowance again (monotonic seconds).
        self._full_at: dict[str, float] = {}

    def require(self, request: Request) -> None:
        """Raise unless the request bears the token: 401, or 429 after too many wrong ones."""
        now = self._clock.monotonic()
        source = self._counted_as(_source(request), now)
        ahead_s = max(self._full_at.get(source, now) - now, 0.0)
        wait_s = ahead_s - (BURST - 1) * EACH_S
        if wait_s > 0:
            raise _braked(wait_s)
        given = request.headers.getlist("authorization")
        if len(given) != 1 or len(given[0]) > _TOKEN_CHARACTERS:
            raise _not_admin()
        scheme, _, secret = given[0].partition(" ")
        matches = hmac.compare_digest(secret.strip().encode("latin-1", "replace"), self._token)
        if scheme.lower() == "bearer" and matches:
            # Its connection does not give way to those of strangers.
            admit(request.scope)
            return
        self._full_at[source] = now + ahead_s + EACH_S
        log.warning("admin_token_refused", client=source, path=request.url.path[:200])
        raise _not_admin()

    def _counted_as(self, source: str, now: float) -> str:
        if source in self._full_at or len(self._full_at) < _ADDRESSES:
            return source
        self._full_at = {known: at for known, at in self._full_at.items() if at > now}
        return source if len(self._full_at) < _ADDRESSES else _CROWD


def _source(request: Request) -> str:
    """Name who asks, and whether a proxy speaks for others; one that is trusted has told for whom."""
    host = address_of(request.scope)
    return f"{host} forwarded" if any(name in request.headers for name in _FORWARDED) else host


def _braked(wait_s: float) -> ProtocolError:
    seconds = max(1, math.ceil(wait_s))
    return ProtocolError(
        "too_many_guesses",
        f"too many wrong admin tokens came from your address: try again in {seconds} s, "
        "or ask on the broker's own host",
        retry_after_ms=seconds * 1000,
    )


def _not_admin() -> ProtocolError:
    return ProtocolError(
        "unauthenticated", "this needs the broker's admin token: it is in admin_token in its data dir"
    )
