"""The call `history`: the caller's own messages, as they are stored."""

from __future__ import annotations

import orjson

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, count, only, short_text
from claudemesh.broker.store.history import HistoryWanted
from claudemesh.broker.store.types import DueDelivery
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.frames import DeliverySender, deliver_tail
from claudemesh.protocol.ids import check_key, check_topic
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.destinations import QUEUE_MARK, TOPIC_MARK

_DESTINATION_CHARACTERS = 80


async def history(caller: Caller, params: Params) -> Answer:
    """Return a page of the caller's own messages in the order of their history ids.

    With `after` the page begins behind this history id. Without it, the page ends with the newest message, or
    before the history id `before`. `more` is true when the page leaves messages out in that direction.
    """
    only(params, "after", "before", "limit", "destination")
    limits = caller.context.settings.limits
    limit = count(params, "limit", 0) or limits.history_items
    if limit > limits.history_items:
        most = limits.history_items
        raise InvalidField("invalid_params", "limit", f"limit must be a whole number up to {most}.")
    wanted = HistoryWanted(
        mesh_id=caller.mesh_id,
        member_id=caller.member_id,
        after=_bound(params, "after"),
        before=_bound(params, "before"),
        limit=limit,
        max_bytes=limits.history_bytes,
        destination=_destination(params),
    )
    page = await caller.context.store.history.page(wanted)
    items, slices = [], Slices()
    for row in page.rows:
        await slices.rest()
        items.append(_item(row))
    return {"items": items, "more": page.more, "pruned_before": page.pruned_before}


def _bound(params: Params, name: str) -> int | None:
    return None if params.get(name) is None else count(params, name, 0)


def _destination(params: Params) -> tuple[str, str] | None:
    given = short_text(params, "destination", _DESTINATION_CHARACTERS)
    if given is None:
        return None
    if given.startswith(TOPIC_MARK):
        return "topic", check_topic(given.removeprefix(TOPIC_MARK), "destination")
    if given.startswith(QUEUE_MARK):
        return "queue", check_topic(given.removeprefix(QUEUE_MARK), "destination")
    return "dm", check_key(given, "destination")


def _item(row: DueDelivery) -> orjson.Fragment:
    tail = deliver_tail(
        broker_message_id=row.broker_message_id,
        history_id=row.history_id,
        sender=DeliverySender(row.sender_member_id, row.sender_name, row.sender_pubkey),
        accepted_at=row.accepted_at,
        envelope=row.envelope,
    )
    return orjson.Fragment(f"{{{tail}")


METHODS: dict[str, Method] = {"history": history}
