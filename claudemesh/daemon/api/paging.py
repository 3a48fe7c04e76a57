"""Lists: `{items, next}`, at most 10 MiB a response, and a Link header to what follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson

from claudemesh.daemon.api.errors import Reply
from claudemesh.daemon.api.routes import Request
from claudemesh.daemon.api.wire import MAX_RESPONSE
from claudemesh.protocol.jsontext import plain
from claudemesh.runtime.aside import Slices

# Items read at a time: what is in memory at once stays small, however large a page was asked for.
_STRIDE: Final = 32
_ENVELOPE: Final = 4096

Item: TypeAlias = Mapping[str, Any]
Fetch: TypeAlias = Callable[[int, str | None], Awaitable[tuple[Sequence[Item], str | None]]]
Cursor: TypeAlias = Callable[[Item], str]


async def page(
    request: Request, fetch: Fetch, cursor_of: Cursor | None, limit: int, *, reset: bool = False
) -> Reply:
    """Return up to `limit` items, fewer when they would pass 10 MiB, but one at least.

    `fetch(limit, after)` brings items and the cursor behind them. `cursor_of` names the place behind one
    item; where there is none, the page is cut between two fetches. `reset` passes over the cursor of the
    request and says so in the answer.
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
    """Return a `fetch` over items in memory that are sorted by their cursor."""

    async def fetch(limit: int, after: str | None) -> tuple[Sequence[Item], str | None]:
        rest = [item for item in items if after is None or cursor_of(item) > after]
        more = len(rest) > limit
        return rest[:limit], cursor_of(rest[limit - 1]) if more else None

    return fetch


def _reply(request: Request, parts: Sequence[bytes], following: str | None, reset: bool) -> Reply:
    """Return the answer in parts: the items are JSON already, megabytes of it perhaps."""
    link = () if following is None else ((b"link", request.following(following)),)
    end = b',"reset":true}' if reset else b"}"
    body = [b'{"items":[']
    for number, part in enumerate(parts):
        body += (b",", part) if number else (part,)
    return Reply(200, [*body, b'],"next":', orjson.dumps(following), end], link)
