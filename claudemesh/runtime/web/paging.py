"""Lists in pages: `{items, next}`, at most 10 MiB a reply, and a `Link` header to the next page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson

from claudemesh.protocol.jsontext import plain
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.web.query import Parameter, whole_number
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request

MAX_PAGE: Final = 500
DEFAULT_PAGE: Final = 100
MAX_RESPONSE: Final = 10 << 20
# Items fetched at a time. It bounds the memory for any `limit` of a client.
_STRIDE: Final = 32
_ENVELOPE: Final = 4096

Item: TypeAlias = Mapping[str, Any]
Fetch: TypeAlias = Callable[[int, str | None], Awaitable[tuple[Sequence[Item], str | None]]]
Cursor: TypeAlias = Callable[[Item], str]


def page_limit(default: int = DEFAULT_PAGE) -> Parameter:
    """Declare `limit`: the number of items of a page, 1 to 500."""
    return whole_number("limit", 1, MAX_PAGE, default)


async def page(
    request: Request, fetch: Fetch, cursor_of: Cursor | None, limit: int, *, reset: bool = False
) -> Reply:
    """Return up to `limit` items: fewer when the reply would exceed 10 MiB, but at least one.

    `fetch(limit, after)` returns items and the cursor behind them. `cursor_of` returns the cursor behind one
    item; without it a page ends only between two fetches. `reset` ignores the request's cursor and adds
    `"reset": true`.
    """
    parts: list[bytes] = []
    slices = Slices()
    size, after = _ENVELOPE, None if reset else request.query["after"]
    while True:
        items, following = await fetch(min(limit - len(parts), _STRIDE), after)
        encoded = []
        for item in items:
            await slices.rest()
            encoded.append(orjson.dumps(item, default=plain))
        if parts and cursor_of is None and size + sum(map(len, encoded)) > MAX_RESPONSE:
            return _reply(request, parts, after, reset)
        for item, raw in zip(items, encoded, strict=True):
            if parts and cursor_of is not None and size + len(raw) > MAX_RESPONSE:
                return _reply(request, parts, after, reset)
            parts.append(raw)
            size += len(raw) + 1
            after = after if cursor_of is None else cursor_of(item)
        if following is None or len(parts) >= limit:
            return _reply(request, parts, following, reset)
        after = following


def listed(items: Sequence[Item], cursor_of: Cursor) -> Fetch:
    """Return a `fetch` over items in memory, which are sorted by their cursor."""

    async def fetch(limit: int, after: str | None) -> tuple[Sequence[Item], str | None]:
        rest = [item for item in items if after is None or cursor_of(item) > after]
        more = len(rest) > limit
        return rest[:limit], cursor_of(rest[limit - 1]) if more else None

    return fetch


def _reply(request: Request, parts: Sequence[bytes], following: str | None, reset: bool) -> Reply:
    """Return the reply in parts: the items are encoded already, and may be megabytes."""
    link = () if following is None else ((b"link", request.following(following)),)
    end = b',"reset":true}' if reset else b"}"
    body = [b'{"items":[']
    for number, part in enumerate(parts):
        body += (b",", part) if number else (part,)
    return Reply(200, [*body, b'],"next":', orjson.dumps(following), end], link)
