"""Routes as data: an entry for each method and path, with flags. Dispatch and openapi.json use the table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import unquote, urlencode

import msgspec
from starlette.routing import compile_path

from claudemesh.runtime.web.asgi import App, Scope
from claudemesh.runtime.web.errors import HttpRefusal
from claudemesh.runtime.web.query import Parameter
from claudemesh.runtime.web.replies import WRITE_DEADLINE_S, Reply

Method: TypeAlias = Literal["GET", "POST", "DELETE"]

OTHER: Final = "other"
MAX_BODY: Final = 1 << 20
BODY_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose parts are valid. `path` is as received, `path_values` are decoded."""

    path: str
    path_values: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any = None
    scope: Scope = field(default_factory=dict)

    def following(self, cursor: str) -> bytes:
        """Return the `Link` header's value for the next page."""
        given = {name: value for name, value in self.query.items() if value is not None and name != "after"}
        query = urlencode({**{name: _spelt(value) for name, value in given.items()}, "after": cursor})
        return f'<{self.path}?{query}>; rel="next"'.encode("ascii")


Handler: TypeAlias = Callable[[Any, Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class HeaderField:
    """A request header that a route reads, for openapi.json."""

    name: str
    schema: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """One server's options for all of its routes: limits of size (bytes) and time (seconds), and errors.

    `reply_to` makes the reply to an exception. `authorize` gets the route and the head of each request before
    anything else of it is read, and raises `ProtocolError` to refuse it.
    """

    reply_to: Callable[[Exception], Reply]
    not_found: Callable[[], HttpRefusal]
    authorize: Callable[[Route, Scope], None] | None = None
    body_bytes: int = MAX_BODY
    body_deadline_s: float = BODY_DEADLINE_S
    write_deadline_s: float = WRITE_DEADLINE_S


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path.

    It has a `handler`, which is called with its group (see `dispatch.Group`) and the request, or it is a bare
    ASGI app made by `build`, which is called ahead of the others and parses the request itself.

    `answers` maps each status of success to the type of its body; `errors` lists the statuses with `Error`,
    beyond those that every request may get. The query of a route with `query=None` is ignored.
    """

    method: Method
    path: str
    summary: str
    answers: Mapping[int, Any] = field(default_factory=dict)
    handler: Handler | None = None
    build: Callable[[Any, ServeOptions], App] | None = None
    query: tuple[Parameter, ...] | None = ()
    headers: tuple[HeaderField, ...] = ()
    body: type[msgspec.Struct] | None = None
    body_required: bool = True
    errors: tuple[int, ...] = ()
    content_type: str = "application/json"
    # False for a stream: its reader decides when it ends. It does not count as a request in flight, and its
    # duration is not measured.
    counted: bool = True
    # A hook's capability token is accepted.
    for_hooks: bool = False
    # Served on TCP without a token when the settings allow it.
    public: bool = False
    # Served on TCP without a token: a browser needs it to begin a session.
    for_browsers: bool = False
    # Refused on TCP: only programs that can open the socket's directory may use it.
    socket_only: bool = False
    # Requires the broker's admin token.
    admin: bool = False
    # A GET that changes or fetches something.
    acts: bool = False


class RouteTable:
    """Paths of the routes, by label and by flag."""

    def __init__(self, routes: Iterable[Route]) -> None:
        listed = tuple(routes)
        self._plain = frozenset(one.path for one in listed if "{" not in one.path)
        templates = dict.fromkeys(one.path for one in listed if "{" in one.path)
        self._templates = [(compile_path(path)[0], path) for path in templates]
        self.uncounted = frozenset(one.path for one in listed if not one.counted)
        self.for_hooks = frozenset(one.path for one in listed if one.for_hooks)
        self.socket_only = frozenset(one.path for one in listed if one.socket_only)
        self.for_browsers = frozenset(one.path for one in listed if one.for_browsers)
        self.public = frozenset(one.path for one in listed if one.public)

    def label(self, path: str) -> str:
        """Return the template of a path as a metric label, or `other`: a label never has an id or a name."""
        if path in self._plain:
            return path
        return next((template for pattern, template in self._templates if pattern.match(path)), OTHER)


def decoded(name: str, raw: str) -> str:
    """Return a path value percent-decoded. `HttpRefusal` 400 when it is not UTF-8."""
    try:
        return unquote(raw, errors="strict")
    except UnicodeDecodeError:
        text = f"{name} must be UTF-8, percent-encoded."
        raise HttpRefusal(400, "invalid_parameter", text, field=name) from None


def _spelt(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
