"""Routes of the console: files, one-time codes and sessions of browsers (docs/spec/daemon.md, Console)."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from claudemesh.daemon.api.failures import not_found
from claudemesh.daemon.api.schemas import EmptyBody
from claudemesh.daemon.api.schemas_console import ConsoleCode, ConsoleSession, ConsoleSessionBody
from claudemesh.runtime.console.admission import CODE_MS, SESSION_MS, Admission, cookies_of
from claudemesh.runtime.console.assets import INDEX, PAGE_HEADERS, Assets
from claudemesh.runtime.web.errors import HttpRefusal
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

ASSETS = Assets("claudemesh.daemon.console")
_CLOSED = HttpRefusal(
    409,
    "loopback_closed",
    "The console is served on the loopback, which is closed. Set [ipc] tcp_enabled = true in config.toml, "
    "and restart the daemon.",
)
_WRONG_CODE = HttpRefusal(
    403, "code_not_valid", "This code was used, or is older than 60 s. Run claudemesh web for another one."
)


class ConsoleRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of the console's routes."""

    admission: Admission

    async def make_code(self, request: Request) -> Reply:
        """Return a one-time code."""
        port = self.admission.port
        if port is None:
            raise _CLOSED
        code = self.admission.make_code()
        url = f"http://127.0.0.1:{port}/#{code}"
        return Reply(200, {"code": code, "url": url, "port": port, "expires_in_s": CODE_MS // 1000})

    async def begin_session(self, request: Request) -> Reply:
        """Exchange a code for a session."""
        body: ConsoleSessionBody = request.body
        port = self.admission.port
        if port is None:
            raise _CLOSED
        session = self.admission.begin_session(body.code, cookies_of(request.scope["headers"]))
        if session is None:
            raise _WRONG_CODE
        answer = {"key": session.key.decode(), "expires_in_s": SESSION_MS // 1000}
        return Reply(200, answer, headers=((b"set-cookie", session.header(port, b"/")),))

    async def get_index(self, request: Request) -> Reply:
        """Return the page."""
        return await _file(INDEX)

    async def get_file(self, request: Request) -> Reply:
        """Return a file of the page."""
        return await _file(request.path.rpartition("/")[2])


async def _file(name: str) -> Reply:
    found = await asyncio.to_thread(ASSETS.read, name)
    if found is None:
        raise not_found()
    kind, content = found
    return Reply(200, content, headers=PAGE_HEADERS, content_type=kind)


ROUTES = (
    Route(
        "POST",
        "/v1/console/code",
        "Make a one-time code for a browser; on the unix socket only",
        {200: ConsoleCode},
        ConsoleRoutes.make_code,
        body=EmptyBody,
        body_required=False,
        errors=(409,),
        socket_only=True,
    ),
    Route(
        "POST",
        "/v1/console/session",
        "Exchange a one-time code for a session of a browser",
        {200: ConsoleSession},
        ConsoleRoutes.begin_session,
        body=ConsoleSessionBody,
        errors=(403, 409),
        for_browsers=True,
    ),
)
# The page itself is no part of the API, and stands in no description of it.
PAGE_ROUTES = (
    Route("GET", "/", "The console", handler=ConsoleRoutes.get_index, query=None, for_browsers=True),
    *(
        Route(
            "GET",
            f"/console/{name}",
            "A file of the console",
            handler=ConsoleRoutes.get_file,
            query=None,
            for_browsers=True,
        )
        for name in sorted(ASSETS.names())
    ),
)
