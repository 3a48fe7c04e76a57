"""A route as data, and the endpoint that serves what the data says. openapi.json is made of the same data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlencode

import msgspec

from claudemesh.daemon.api.body import parse_struct
from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Refusal, Reply, method_not_allowed, reply_to
from claudemesh.daemon.api.query import Parameter, parse_query
from claudemesh.daemon.api.wire import body_of, respond
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import CLIENT_MESSAGE_ID
from claudemesh.runtime import aside
from claudemesh.runtime.http import App, ClientGone, Receive, Scope, Send

Method: TypeAlias = Literal["GET", "POST"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose every part is valid in itself."""

    path: str
    path_values: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any = None

    def following(self, cursor: str) -> bytes:
        """Return the Link header's value that leads to the next page."""
        given = {name: value for name, value in self.query.items() if value is not None and name != "after"}
        query = urlencode({**{name: _spelt(value) for name, value in given.items()}, "after": cursor})
        return f'<{self.path}?{query}>; rel="next"'.encode("ascii")


Handler: TypeAlias = Callable[[CoreLike, Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class HeaderField:
    """A request header that an operation reads."""

    name: str
    schema: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path. It has a `handler`, or it is a bare ASGI app made by `build`.

    `answers` says which type goes with which status; `errors` lists the statuses that go with `Error`,
    beyond those that any request may meet.
    """

    method: Method
    path: str
    summary: str
    answers: Mapping[int, Any]
    handler: Handler | None = None
    build: Callable[[CoreLike], App] | None = None
    query: tuple[Parameter, ...] = ()
    headers: tuple[HeaderField, ...] = ()
    body: type[msgspec.Struct] | None = None
    body_required: bool = True
    errors: tuple[int, ...] = ()
    content_type: str = "application/json"
    # Lasts as long as its reader wants: it takes no request's place, and its duration is not measured.
    streams: bool = False
    # A hook's capability token is good for it.
    for_hooks: bool = False
    # Answered on TCP without a token when the settings say so.
    public: bool = False
    # Refused on TCP: only who may open the socket's folder may ask.
    socket_only: bool = False


class Endpoint:
    """Serves the operations of one path."""

    def __init__(self, core: CoreLike, operations: Sequence[Operation]) -> None:
        self._core = core
        self._operations = {operation.method: operation for operation in operations}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, whatever it is."""
        await serve(self._reply(scope, receive), send)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        operation = self._operations.get(scope["method"])
        if operation is None or operation.handler is None:
            raise method_not_allowed(self._operations)
        request = Request(
            path=scope["path"],
            path_values={name: _unquoted(name, value) for name, value in scope["path_params"].items()},
            query=parse_query(scope["query_string"], operation.query),
            body=await _read(operation, receive),
        )
        return await operation.handler(self._core, request)


async def serve(replying: Awaitable[Reply], send: Send) -> None:
    """Send what comes of it: the reply, or the error's. A client that has gone gets nothing."""
    try:
        reply = await replying
    except ClientGone:
        return
    except Exception as error:
        reply = reply_to(error)
    await respond(send, reply)


async def _read(operation: Operation, receive: Receive) -> Any:
    if operation.body is None:
        return None
    raw, required = await body_of(receive), operation.body_required
    return await aside.run(aside.weight_of(raw), parse_struct, raw, operation.body, required=required)


def _unquoted(name: str, raw: str) -> str:
    try:
        return unquote(raw, errors="strict")
    except UnicodeDecodeError:
        raise Refusal(
            400, "invalid_parameter", f"{name} must be UTF-8, percent-encoded.", field=name
        ) from None


def row_key(request: Request) -> str:
    """Return the path's `id`: a row's own id, or its client_message_id. `InvalidField`."""
    key = request.path_values["id"]
    if CLIENT_MESSAGE_ID.fullmatch(key) is None:
        text = "The id is a row's id or its client_message_id: 1 to 255 characters, each from ! to ~."
        raise InvalidField("invalid_parameter", "id", text)
    return key


def _spelt(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
