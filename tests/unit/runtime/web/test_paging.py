"""Lists: items, next, Link; never more than 10 MiB, always at least one item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from claudemesh.runtime.web.paging import MAX_RESPONSE, Item, listed, page
from claudemesh.runtime.web.routes import Request

ITEMS = [{"seq": number, "body": "x"} for number in range(1, 101)]


def rows(items: Sequence[Item], reads: list[int] | None = None) -> Any:
    async def fetch(limit: int, after: str | None) -> tuple[Sequence[Item], str | None]:
        rest = [item for item in items if item["seq"] > int(after or 0)]
        if reads is not None:
            reads.append(limit)
        return rest[:limit], str(rest[limit - 1]["seq"]) if len(rest) > limit else None

    return fetch


def cursor(item: Item) -> str:
    return str(item["seq"])


async def ask(items: Sequence[Item], limit: int, after: str | None = None, **query: Any) -> Mapping[str, Any]:
    request = Request("/v1/inbox", {}, {"limit": limit, "after": after, **query})
    reply = await page(request, rows(items), cursor, limit)
    raw = b"".join(cast("Sequence[bytes]", reply.body))
    return {**orjson.loads(raw), "size": len(raw), "link": dict(reply.headers).get(b"link")}


async def test_a_page_ends_where_it_was_asked_to() -> None:
    """`next` is the cursor of what follows, and Link says the same."""
    answer = await ask(ITEMS, 40, unread=True, topic=None)
    assert [item["seq"] for item in answer["items"]] == list(range(1, 41))
    assert answer["next"] == "40"
    assert answer["link"] == b'</v1/inbox?limit=40&unread=true&after=40>; rel="next"'


async def test_the_last_page_has_no_next() -> None:
    """null, and no Link."""
    answer = await ask(ITEMS, 500, after="60")
    assert [item["seq"] for item in answer["items"]] == list(range(61, 101))
    assert (answer["next"], answer["link"]) == (None, None)


async def test_a_limit_that_ends_with_the_list_has_no_next() -> None:
    """No page is promised that would be empty."""
    assert (await ask(ITEMS, 100))["next"] is None


async def test_following_next_reads_everything_once() -> None:
    """No gap, no duplicate, for any page size."""
    for limit in (1, 7, 32, 33, 99):
        seen: list[int] = []
        after = None
        while True:
            answer = await ask(ITEMS, limit, after)
            seen += [item["seq"] for item in answer["items"]]
            after = answer["next"]
            if after is None:
                break
        assert seen == list(range(1, 101)), limit


async def test_a_page_is_cut_before_ten_mebibytes() -> None:
    """Large items: the page ends early, `next` continues behind the last item that fitted."""
    large = [{"seq": number, "body": "x" * (1 << 20)} for number in range(1, 31)]
    first = await ask(large, 500)
    assert first["size"] <= MAX_RESPONSE
    assert len(first["items"]) == 9
    assert first["next"] == "9"
    second = await ask(large, 500, after="9")
    assert second["items"][0]["seq"] == 10


async def test_one_item_is_given_however_large() -> None:
    """A reader always gets on."""
    answer = await ask([{"seq": 1, "body": "x" * (11 << 20)}, {"seq": 2, "body": ""}], 10)
    assert [item["seq"] for item in answer["items"]] == [1]
    assert answer["next"] == "1"


async def test_without_item_cursors_a_page_is_cut_between_reads() -> None:
    """Rows that do not tell their cursor are cut where the store did."""
    large = [{"seq": number, "body": "x" * (200 << 10)} for number in range(1, 101)]
    request = Request("/v1/outbox", {}, {"limit": 500, "after": None})
    reply = await page(request, rows(large), None, 500)
    body = orjson.loads(b"".join(cast("Sequence[bytes]", reply.body)))
    assert body["next"] == str(body["items"][-1]["seq"]) == "32"


async def test_memory_holds_a_few_items_at_a_time() -> None:
    """However large the page, the store is asked for 32 rows at most."""
    reads: list[int] = []
    await page(Request("/v1/inbox", {}, {"after": None}), rows(ITEMS, reads), cursor, 500)
    assert max(reads) <= 32


async def test_items_in_memory_page_by_name() -> None:
    """Peers and topics: a name that comes or goes between two pages shifts nothing."""
    names = [{"name": name} for name in ("a", "b", "c", "d")]
    fetch = listed(names, lambda item: str(item["name"]))
    assert await fetch(2, None) == (names[:2], "b")
    assert await fetch(2, "b") == (names[2:], None)
    assert await fetch(2, "bb") == (names[2:], None)
