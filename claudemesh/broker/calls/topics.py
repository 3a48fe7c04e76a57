"""Topics: create, subscribe, unsubscribe, list."""

from __future__ import annotations

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, count, flag, only, short_text
from claudemesh.broker.calls.topic_keys import want_for_subscriber
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.fields import MAX_TIME_MS
from claudemesh.protocol.ids import check_topic
from claudemesh.protocol.wire import TOPIC_MODES
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog

# A member can ask for posts as often as it likes.
_backfilled = SparseLog(get_logger("broker.topics"))

# The period for which daemons keep sends to offer again, and a week for hosts that were away.
_BACKFILL_MS = 10 * 86_400_000
_BACKFILL_POSTS = 10_000
_NAME_CHARACTERS = 64


async def create(caller: Caller, params: Params) -> Answer:
    """Create a topic or queue, or return the mode of the existing one. The creator is not subscribed."""
    only(params, "topic", "mode")
    topic = check_topic(params.get("topic"))
    given = params.get("mode")
    mode = "topic" if given is None else given
    if mode not in TOPIC_MODES:
        raise InvalidField("invalid_mode", "mode", "mode must be topic or queue.")
    context = caller.context
    await _check_topics(caller, topic)
    created = await context.store.topics.create(
        caller.mesh_id, topic, mode, caller.member_id, context.clock.wall_ms()
    )
    if created:
        # Daemons refuse sends to topics that they do not know, also while the broker is away.
        context.cluster.broadcast(caller.mesh_id, "topic_created", {"topic": topic, "mode": mode})
    else:
        found = await context.store.topics.mode(caller.mesh_id, topic)
        mode = mode if found is None else found
    return {"topic": topic, "mode": mode, "created": created}


async def subscribe(caller: Caller, params: Params) -> Answer:
    """Subscribe the caller; a second time changes nothing.

    `since` is for a subscription that a restore of the database has lost: posts accepted since that moment
    (Unix milliseconds, broker time) are delivered too. The recipient recognises those that it has.
    """
    only(params, "topic", "since")
    topic = check_topic(params.get("topic"))
    since_ms = _since(params)
    context = caller.context
    await _check_subscriptions(caller, topic)
    done = await context.store.topics.subscribe(
        caller.mesh_id, topic, caller.member_id, context.clock.wall_ms()
    )
    if not done:
        raise _not_found(topic)
    context.queues.refresh_member(caller.mesh_id, caller.member_id)
    await want_for_subscriber(caller, topic)
    if since_ms is not None:
        await _backfill(caller, topic, since_ms)
    return {"topic": topic, "subscribed": True}


async def _check_topics(caller: Caller, topic: str) -> None:
    """`ProtocolError` too_many_topics when the caller may create no other one."""
    store = caller.context.store
    mesh = await store.meshes.get(caller.mesh_id)
    if mesh is None or await store.topics.mode(caller.mesh_id, topic) is not None:
        return
    if await store.usage.topics_made(caller.mesh_id, caller.member_id) >= mesh.member_topics:
        raise ProtocolError(
            "too_many_topics",
            f"A member may create {mesh.member_topics} topics and queues of this mesh. Use one that exists, "
            "or ask the operator of the broker to raise member_topics.",
        )


async def _check_subscriptions(caller: Caller, topic: str) -> None:
    """`ProtocolError` too_many_subscriptions when the caller may have no other one."""
    store = caller.context.store
    mesh = await store.meshes.get(caller.mesh_id)
    if mesh is None:
        return
    held = await store.usage.subscriptions_held(caller.mesh_id, caller.member_id)
    if held < mesh.member_subscriptions:
        return
    rows = await store.topics.page(caller.mesh_id, caller.member_id)
    if not any(row.topic == topic and row.subscribed for row in rows):
        raise ProtocolError(
            "too_many_subscriptions",
            f"A member may have {mesh.member_subscriptions} subscriptions in this mesh. Remove one, "
            "or ask the operator of the broker to raise member_subscriptions.",
        )


def _since(params: Params) -> int | None:
    value = params.get("since")
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_TIME_MS:
        raise InvalidField("invalid_params", "since", "since must be a time in Unix milliseconds.")
    return value


async def _backfill(caller: Caller, topic: str, since_ms: int) -> None:
    context, now_ms = caller.context, caller.context.clock.wall_ms()
    since_ms = max(since_ms, now_ms - _BACKFILL_MS)
    owed = await context.store.restoring.backfill(
        caller.mesh_id, topic, caller.member_id, since_ms=since_ms, limit=_BACKFILL_POSTS, now_ms=now_ms
    )
    if owed:
        _backfilled.info("topic_backfilled", topic=topic, count=owed)
        for link in context.hub.of_member(caller.mesh_id, caller.member_id):
            link.refresh()


async def unsubscribe(caller: Caller, params: Params) -> Answer:
    """Remove the caller's subscription; a second time changes nothing."""
    only(params, "topic")
    topic = check_topic(params.get("topic"))
    if await caller.context.store.topics.unsubscribe(caller.mesh_id, topic, caller.member_id):
        caller.context.keys.departed(caller.mesh_id, caller.member_id)
    caller.context.queues.refresh_member(caller.mesh_id, caller.member_id)
    return {"topic": topic, "subscribed": False}


async def list_topics(caller: Caller, params: Params) -> Answer:
    """List the mesh's topics as the caller sees them, by name, beginning behind `after`.

    There is more while `next` is given. With `counts` false subscribers are not counted: that takes longer
    the more there are.
    """
    only(params, "after", "limit", "counts")
    most = caller.context.settings.limits.list_items
    limit = min(count(params, "limit", 0) or most, most)
    rows = await caller.context.store.topics.page(
        caller.mesh_id,
        caller.member_id,
        after=short_text(params, "after", _NAME_CHARACTERS) or "",
        limit=limit + 1,
        counts=flag(params, "counts", default=True),
    )
    return {
        "next": rows[limit - 1].topic if len(rows) > limit else None,
        "items": [
            {
                "topic": row.topic,
                "mode": row.mode,
                "subscribed": row.subscribed,
                "subscribers": row.subscribers,
                "sealed": row.key_epoch > 0,
                "key_epoch": row.key_epoch or None,
                "members_without_key": row.keyless,
                "created_at": row.created_at,
            }
            for row in rows[:limit]
        ],
    }


def _not_found(topic: str) -> ProtocolError:
    return ProtocolError("topic_not_found", f"The mesh has no topic {topic}. Create it first.")


METHODS: dict[str, Method] = {
    "topic_create": create,
    "topic_subscribe": subscribe,
    "topic_unsubscribe": unsubscribe,
    "topic_list": list_topics,
}
