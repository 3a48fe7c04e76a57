"""Routes of the broker's console: its files, one-time codes, and sessions (docs/spec/broker.md, Console).

A session is as good as the admin token for requests that read, and for nothing else.
"""

from __future__ import annotations

import asyncio

from claudemesh.broker.addresses import arrival_of
from claudemesh.broker.context import Context
from claudemesh.broker.http.failures import not_found
from claudemesh.broker.http.pages import PAGE_PATH, SESSION_PATH
from claudemesh.broker.http.schemas import CodeBody, NoBody, given
from claudemesh.runtime.console.admission import CODE_MS, SESSION_MS, Admission, cookies_of
from claudemesh.runtime.console.assets import INDEX, PAGE_HEADERS, Assets
from claudemesh.runtime.web.asgi import Scope
from claudemesh.runtime.web.errors import HttpRefusal
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

_ASSETS = Assets("claudemesh.broker.console")
_COOKIE_PATH = b"/v1"
_WRONG_CODE = HttpRefusal(
    403,
    "code_not_valid",
    "This code was used, is older than 60 s, or is of another broker. Run claudemesh broker web for another.",
)


class ConsoleRoutes:
    """Handlers of the console's routes."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def make_code(self, request: Request) -> Reply:
        """Return a one-time code, which this broker alone knows."""
        return Reply(200, {"code": self._admission.make_code(), "expires_in_s": CODE_MS // 1000})

    async def begin_session(self, request: Request) -> Reply:
        """Exchange a code for a session."""
        code = given(request.body).get("code")
        cookies = cookies_of(request.scope["headers"])
        found = self._admission.begin_session(code, cookies) if isinstance(code, str) else None
        if found is None:
            raise _WRONG_CODE
        header = found.header(_port(request.scope), _COOKIE_PATH, secure=_is_secure(request.scope))
        answer = {"key": found.key.decode(), "expires_in_s": SESSION_MS // 1000}
        return Reply(200, answer, headers=((b"set-cookie", header),))

    async def get_index(self, request: Request) -> Reply:
        """Return the page."""
        return await _file(INDEX)

    async def get_file(self, request: Request) -> Reply:
        """Return a file of the page."""
        return await _file(request.path.rpartition("/")[2])


def console_of(context: Context) -> Admission | None:
    """Return the admission of browsers to the console, None where it is off."""
    if not context.settings.console:
        return None
    made = Admission(context.lived.now_ms)
    made.opened(context.settings.address[1], context.admin_token)
    return made


async def _file(name: str) -> Reply:
    found = await asyncio.to_thread(_ASSETS.read, name)
    if found is None:
        raise not_found()
    kind, content = found
    return Reply(200, content, headers=PAGE_HEADERS, content_type=kind)


def _port(scope: Scope) -> int:
    arrived = arrival_of(scope)
    return 0 if arrived is None else arrived[1]


def _is_secure(scope: Scope) -> bool:
    """Whether the browser has an encrypted connection, to this broker or to a proxy in front of it."""
    return any(name == b"origin" and value.startswith(b"https://") for name, value in scope["headers"])


ROUTES = (
    Route(
        "POST",
        "/v1/admin/console/code",
        "Make a one-time code for a browser",
        handler=ConsoleRoutes.make_code,
        body=NoBody,
        body_required=False,
        admin=True,
    ),
    Route(
        "POST",
        SESSION_PATH,
        "Exchange a one-time code for a session of a browser",
        handler=ConsoleRoutes.begin_session,
        body=CodeBody,
    ),
)
# The page itself is no part of the API.
PAGE_ROUTES = (
    Route("GET", PAGE_PATH, "The console", handler=ConsoleRoutes.get_index, query=None),
    *(
        Route(
            "GET", f"{PAGE_PATH}/{name}", "A file of the console", handler=ConsoleRoutes.get_file, query=None
        )
        for name in sorted(_ASSETS.names() - {INDEX})
    ),
)
