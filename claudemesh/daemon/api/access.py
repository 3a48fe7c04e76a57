"""Access checks on the head of a request, before its body is read (docs/spec/daemon.md, Access).

A web page can reach the loopback, so the checks of `runtime/web/browser.py` apply to every connection. The
unix socket also relies on its file mode, and TCP on a bearer token.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.console.admission import CONSOLE_KEY
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.rate_limit import TokenBucket
from claudemesh.runtime.sparse import SparseLog
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send, hang_up
from claudemesh.runtime.web.bodies import too_large
from claudemesh.runtime.web.browser import BROWSER_HEADERS, is_foreign_page, names_loopback
from claudemesh.runtime.web.errors import HttpRefusal, refused
from claudemesh.runtime.web.replies import CLOSE, respond
from claudemesh.runtime.web.routes import MAX_BODY
from claudemesh.runtime.web.server import admit

log = get_logger("api.access")
_events = SparseLog(log)

MAX_IN_FLIGHT: Final = 64

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

_WATCHED: Final = frozenset(
    {
        b"host",
        *BROWSER_HEADERS,
        b"authorization",
        b"cookie",
        CONSOLE_KEY,
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"transfer-encoding",
    }
)
_JSON_TYPE: Final = re.compile(
    rb'application/json[ \t]*(?:;[ \t]*charset=(?:utf-8|"utf-8")[ \t]*)?', re.IGNORECASE
)
_BEARER: Final = re.compile(rb"bearer +([!-~]{1,512})", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_BODILESS: Final = frozenset({"GET", "HEAD"})


class AccessRules(Struct, frozen=True):
    """Access rules of one listener.

    `allowed_origins` are the web origins that are admitted; one of `tokens` is required as bearer token,
    unless there are none; `public_paths` are served without it; `closed_paths` are refused.

    A listener with the console has `is_session`, which gets the header `Cookie` and the key of a browser's
    session. Such a session is as good as a token. Pages of the listener's own origin are admitted, and
    `browser_paths` are served to them without a session.
    """

    allowed_origins: frozenset[bytes] = frozenset()
    tokens: tuple[bytes, ...] = ()
    public_paths: frozenset[str] = frozenset()
    closed_paths: frozenset[str] = frozenset()
    browser_paths: frozenset[str] = frozenset()
    is_session: Callable[[bytes, bytes], bool] | None = None


class Denial(Struct, frozen=True):
    """The refusal of a request; `security` marks those that are logged as a security event."""

    error: ProtocolError
    security: bool = False


def judge(
    method: str, headers: RawHeaders, query: bytes, rules: AccessRules, path: str = ""
) -> Denial | None:
    """Return the refusal of a request, or None when it is admitted. Only the head of the request is used."""
    seen: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _WATCHED:
            if name in seen:
                return _twice(name)
            seen[name] = value
    if not names_loopback(seen.get(b"host", b"")):
        return _strange_host()
    if not seen.keys().isdisjoint(BROWSER_HEADERS) and is_foreign_page(seen, _origins(seen, rules)):
        return _strange_origin()
    if method == "OPTIONS":
        return _preflight()
    if query and _names_token(query):
        return _token_in_query()
    if not (_is_open(method, path, rules) or _is_known(seen, rules)):
        return _no_bearer()
    if path in rules.closed_paths:
        return _socket_only()
    return _judge_body(method, seen)


def _origins(seen: dict[bytes, bytes], rules: AccessRules) -> frozenset[bytes]:
    if rules.is_session is None:
        return rules.allowed_origins
    return rules.allowed_origins | {b"http://" + seen.get(b"host", b"")}


def _is_open(method: str, path: str, rules: AccessRules) -> bool:
    is_public = method in ("GET", "HEAD") and path in rules.public_paths
    return not rules.tokens or is_public or path in rules.browser_paths


def _is_known(seen: dict[bytes, bytes], rules: AccessRules) -> bool:
    """Whether a request has a token, or both parts of a browser's session."""
    if _has_bearer(seen.get(b"authorization", b""), rules.tokens):
        return True
    cookies, key = seen.get(b"cookie", b""), seen.get(CONSOLE_KEY, b"")
    return rules.is_session is not None and key != b"" and rules.is_session(cookies, key)


def _judge_body(method: str, seen: dict[bytes, bytes]) -> Denial | None:
    length = seen.get(b"content-length", b"0")
    chunked = b"transfer-encoding" in seen
    if _LENGTH.fullmatch(length) is None:
        return Denial(
            HttpRefusal(
                400, "invalid_content_length", "Content-Length must be a whole number.", headers=CLOSE
            )
        )
    if chunked and (b"content-length" in seen or seen[b"transfer-encoding"].lower() != b"chunked"):
        text = "Send the body with a Content-Length, or as Transfer-Encoding: chunked, not both."
        return Denial(HttpRefusal(400, "invalid_transfer_encoding", text, headers=CLOSE))
    size = int(length)
    if method in _BODILESS and not size and not chunked:
        return None
    ending = CLOSE if chunked or size > MAX_BODY else ()
    content_type = seen.get(b"content-type")
    if content_type is None:
        wrong_type = size > 0 or chunked
    else:
        wrong_type = content_type != b"application/json" and _JSON_TYPE.fullmatch(content_type) is None
    if wrong_type:
        return _unsupported("Send the body as Content-Type: application/json.", ending)
    if seen.get(b"content-encoding", b"identity").lower() != b"identity":
        return _unsupported("Send the body as it is, without Content-Encoding.", ending)
    return Denial(too_large(MAX_BODY, size)) if size > MAX_BODY else None


def _names_token(query: bytes) -> bool:
    """Whether a query has a parameter `token`, in any spelling."""
    names = (part.split(b"=", 1)[0] for part in re.split(rb"[&;]", query))
    return any(unquote_to_bytes(name).strip().lower() == b"token" for name in names)


def _has_bearer(authorization: bytes, tokens: Sequence[bytes]) -> bool:
    match = _BEARER.fullmatch(authorization)
    given = match[1] if match else b""
    # Every token is compared, also after a match, so that the duration reveals nothing.
    matches = [hmac.compare_digest(given, token) for token in tokens]
    return any(matches) and match is not None


def _twice(name: bytes) -> Denial:
    if name == b"host":
        return _strange_host()
    text = f"Give the header {name.decode()} once."
    return Denial(HttpRefusal(400, "duplicate_header", text, headers=CLOSE, header=name.decode()))


def _strange_host() -> Denial:
    text = "Set Host to localhost, 127.0.0.1 or [::1]. This API is not served under another name."
    return Denial(HttpRefusal(403, "host_not_allowed", text, headers=CLOSE), security=True)


def _strange_origin() -> Denial:
    text = "Web pages may not use this API; add the page's origin to [ipc] allowed_origins if it is yours."
    return Denial(HttpRefusal(403, "origin_not_allowed", text, headers=CLOSE), security=True)


def _preflight() -> Denial:
    return Denial(
        HttpRefusal(403, "preflight_refused", "This API takes no cross-origin requests.", headers=CLOSE)
    )


def _token_in_query() -> Denial:
    text = "Never put a token into a URL: send it as Authorization: Bearer, and rotate this one."
    return Denial(HttpRefusal(400, "token_in_query", text, headers=CLOSE), security=True)


def _no_bearer() -> Denial:
    headers = (*CLOSE, (b"www-authenticate", b"Bearer"))
    text = "Send Authorization: Bearer with the content of the file local_token."
    return Denial(HttpRefusal(401, "unauthenticated", text, headers=headers), security=True)


def _socket_only() -> Denial:
    text = "This route is served on the unix socket only. Use the socket, or the command line."
    return Denial(HttpRefusal(403, "socket_only", text, headers=CLOSE), security=True)


def _unsupported(text: str, ending: Sequence[tuple[bytes, bytes]]) -> Denial:
    return Denial(HttpRefusal(415, "unsupported_media_type", text, headers=tuple(ending)))


_VERSIONS: Final = ("1.1", "1.0")
_OTHER_VERSION = Denial(HttpRefusal(505, "http_version_not_supported", "Speak HTTP/1.1.", headers=CLOSE))

_BUSY = HttpRefusal(
    429,
    "daemon_busy",
    f"{MAX_IN_FLIGHT} requests are in progress already. Try again shortly.",
    headers=(*CLOSE, (b"retry-after", b"1")),
)


def _too_fast(wait_s: float) -> HttpRefusal:
    seconds = max(1, math.ceil(wait_s))
    text = f"The rate limit of this listener is exceeded. Try again in {seconds} s."
    return HttpRefusal(429, "rate_limited", text, headers=((b"retry-after", b"%d" % seconds),))


class AccessControl:
    """ASGI middleware of one listener: access rules, rate limit, and at most 64 requests in progress.

    `put_in_force` replaces the rules. Requests in progress, above all streams, are then checked again.
    Those that the new rules refuse are disconnected, for example after a rotation of the token.
    """

    def __init__(
        self,
        app: App,
        rules: AccessRules,
        max_in_flight: int = MAX_IN_FLIGHT,
        rate_limit: TokenBucket | None = None,
        uncounted: frozenset[str] = frozenset(),
    ) -> None:
        """`uncounted` are the paths of streams, which have a limit of their own."""
        self._uncounted = uncounted
        self._app = app
        self._rules = rules
        self._served: dict[int, tuple[Scope, Send]] = {}
        self._max_in_flight = max_in_flight
        self._rate_limit = rate_limit
        self.in_flight = 0

    def put_in_force(self, rules: AccessRules) -> None:
        """Apply other rules."""
        self._rules = rules
        for scope, send in list(self._served.values()):
            verdict = self._judge(scope)
            if verdict is not None:
                log.info("request_cut_off", reason=verdict.error.code, path=scope["path"][:200])
                hang_up(send)

    def _judge(self, scope: Scope) -> Denial | None:
        return judge(scope["method"], scope["headers"], scope["query_string"], self._rules, scope["path"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the refusal, or pass the request on unchanged."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        verdict = self._judge(scope)
        if scope["http_version"] not in _VERSIONS:
            verdict = _OTHER_VERSION
        elif verdict is None and self._rate_limit is not None:
            wait_s = self._rate_limit.take(asyncio.get_running_loop().time())
            verdict = Denial(_too_fast(wait_s)) if wait_s else None
        open_paths = self._rules.public_paths | self._rules.browser_paths
        if self._rules.tokens and verdict is None and path not in open_paths:
            admit(scope)
        if verdict is not None:
            _note(verdict, scope)
            await respond(send, refused(verdict.error))
        elif path in self._uncounted:
            await self._serve(scope, receive, send)
        elif self.in_flight >= self._max_in_flight:
            await respond(send, refused(_BUSY))
        else:
            self.in_flight += 1
            try:
                await self._serve(scope, receive, send)
            finally:
                self.in_flight -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = id(scope)
        self._served[key] = (scope, send)
        try:
            await self._app(scope, receive, send)
        finally:
            del self._served[key]


def _note(verdict: Denial, scope: Scope) -> None:
    if verdict.security:
        # Only the path, because a query may hold a secret.
        _events.warning(
            "security_event", reason=verdict.error.code, method=scope["method"], path=scope["path"][:200]
        )
