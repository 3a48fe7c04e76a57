"""One ASGI request in a test: what is received, and what is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson

from claudemesh.runtime.web.asgi import App, Message


class Exchange:
    """Messages of one request: `receive` gives them in turn and then waits; `send` keeps what it gets."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


def body(*parts: bytes, whole: bool = True) -> Iterable[Message]:
    """A request's body in parts; without `whole` more is announced than comes."""
    for number, part in enumerate(parts):
        more = not whole or number < len(parts) - 1
        yield {"type": "http.request", "body": part, "more_body": more}


async def ask(app: App, method: str, path: str, raw: bytes = b"", query: bytes = b"") -> Exchange:
    """Send one request to an app, and return the exchange."""
    exchange = Exchange(*body(raw))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [],
    }
    await app(scope, exchange.receive, exchange.send)
    return exchange
