"""Admission of browsers to a console: one-time codes, and the sessions that they begin.

A session has two parts. A browser sends its cookie to every port of the loopback, also to those of other
programs. So a request also needs the session's key, which only pages of this port can read. Neither part is
stored. Both are derived from the server's token, so a session outlives a restart of the server, and ends
with the token.

A browser has one session. A code that it uses while it has one prolongs that session, so that the pages that
it shows already stay signed in.

Times are milliseconds of the host-lived clock (`runtime/lived.py`).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

CODE_MS: Final = 60_000
SESSION_MS: Final = 12 * 3_600_000
# The header with the key of a browser's session. Only pages of the server's own origin know the key.
CONSOLE_KEY: Final = b"x-claudemesh-console"
COOKIE_PREFIX: Final = b"claudemesh-console-"
# Codes that wait at a time. One more replaces the oldest.
_MAX_CODES: Final = 16
# Cookies of a request that are looked at: a browser sends those of all programs on the loopback.
_MAX_COOKIES: Final = 256
_NONCE_BYTES: Final = 16
# The end of the session in milliseconds, a nonce, and the code that authenticates both.
_COOKIE: Final = re.compile(rb"([0-9]{1,15})\.([0-9a-f]{32})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A session of a browser: the value of its cookie, and its key."""

    cookie: bytes
    key: bytes

    def header(self, port: int, path: bytes, *, secure: bool = False) -> bytes:
        """Return the value of `Set-Cookie`."""
        return b"%s%d=%s; Path=%s; Max-Age=%d; HttpOnly; SameSite=Strict%s" % (
            COOKIE_PREFIX,
            port,
            self.cookie,
            path,
            SESSION_MS // 1000,
            b"; Secure" if secure else b"",
        )


def begin(token: bytes, now_ms: int, nonce: bytes) -> BrowserSession:
    """Return a session that ends after 12 hours, or with the token. `nonce` has 16 random bytes."""
    text = nonce.hex().encode()
    body = b"%d.%s" % (now_ms + SESSION_MS, text)
    # The key stays the same when the session is prolonged.
    return BrowserSession(body + b"." + _code(token, b"cookie", body), _code(token, b"key", text))


def is_session(token: bytes, cookies: bytes, key: bytes, now_ms: int) -> bool:
    """Whether the header `Cookie` has a session of the token that has not ended and has this key."""
    keys = [_code(token, b"key", nonce) for nonce in sessions_in(token, cookies, now_ms)]
    # Every key is compared, also after a match, so that the duration reveals nothing.
    matches = [hmac.compare_digest(key, one) for one in keys]
    return any(matches)


def sessions_in(token: bytes, cookies: bytes, now_ms: int) -> list[bytes]:
    """Return the nonces of the sessions in the header `Cookie` that are of the token and have not ended."""
    nonces = []
    for part in cookies.split(b";")[:_MAX_COOKIES]:
        name, _, value = part.strip().partition(b"=")
        found = _COOKIE.fullmatch(value) if name.startswith(COOKIE_PREFIX) else None
        if found is None:
            continue
        is_genuine = hmac.compare_digest(found[3], _code(token, b"cookie", value.rpartition(b".")[0]))
        if is_genuine and now_ms < int(found[1]):
            nonces.append(found[2])
    return nonces


def cookies_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the header `Cookie` of a request, empty when there is none."""
    return next((value for name, value in headers if name == b"cookie"), b"")


class OneTimeCodes:
    """Codes that begin one session each. A code ends after 60 s, and when it is used."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._ends: dict[str, int] = {}

    def make(self) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(_NONCE_BYTES)
        self._ends[code] = self._now_ms() + CODE_MS
        while len(self._ends) > _MAX_CODES:
            del self._ends[next(iter(self._ends))]
        return code

    def take(self, code: str) -> bool:
        """Use up a code. Return whether it was valid."""
        end = self._ends.pop(code, None)
        return end is not None and self._now_ms() < end


class Admission:
    """Admission of browsers to the console of one server.

    `port` names the cookie: all ports of a host share its cookies. It is None while there is no console.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._codes = OneTimeCodes(now_ms)
        self._token = b""
        self.port: int | None = None

    def opened(self, port: int, token: bytes) -> None:
        """Note the port of the console, and the token that admits to the API behind it."""
        self.port, self._token = port, token

    def rotated(self, token: bytes) -> None:
        """Note another token. All sessions end."""
        self._token = token

    def make_code(self) -> str:
        """Return a one-time code."""
        return self._codes.make()

    def begin_session(self, code: str, cookies: bytes = b"") -> BrowserSession | None:
        """Return the session that a code begins or, with the cookie of one, prolongs.

        None: the code is not valid.
        """
        if not self._token or not self._codes.take(code):
            return None
        now_ms = self._now_ms()
        known = sessions_in(self._token, cookies, now_ms)
        nonce = bytes.fromhex(known[0].decode()) if known else secrets.token_bytes(_NONCE_BYTES)
        return begin(self._token, now_ms, nonce)

    def is_session(self, cookies: bytes, key: bytes) -> bool:
        """Whether a request has both parts of a session that has not ended."""
        return is_session(self._token, cookies, key, self._now_ms())


def _code(token: bytes, purpose: bytes, body: bytes) -> bytes:
    return hmac.new(token, b"claudemesh console " + purpose + b"\0" + body, sha256).hexdigest().encode()
