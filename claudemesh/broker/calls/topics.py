"""Topics: create, subscribe, unsubscribe, list."""

from __future__ import annotations

from typing import cast

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, only
from claudemesh.broker.store.base import TopicMode
from claudemesh.protocol import InvalidField, ProtocolError, check_topic

_MODES = ("topic", "queue")


async def create(caller: Caller, params: Params) -> Answer:
    """Make a topic, or tell what it already is. The creator is not subscribed by it."""
    only(params, "topic", "mode")
    topic = check_topic(params.get("topic"))
    mode = params.get("mode") or "topic"
    if mode not in _MODES:
        raise InvalidField("invalid_mode", "mode", "mode must be topic or queue")
    context = caller.context
    created = await context.store.topic_create(
        caller.mesh_id, topic, cast(TopicMode, mode), caller.member_id, context.clock.wall_ms()
    )
    if not created:
        rows = await context.store.topic_list(caller.mesh_id, caller.member_id)
        mode = next((row.mode for row in rows if row.topic == topic), mode)
    return {"topic": topic, "mode": mode, "created": created}


async def subscribe(caller: Caller, params: Params) -> Answer:
    """Subscribe the caller; once more is no error."""
    only(params, "topic")
    topic = check_topic(params.get("topic"))
    context = caller.context
    done = await context.store.topic_subscribe(
        caller.mesh_id, topic, caller.member_id, context.clock.wall_ms()
    )
    if not done:
        raise _not_found(topic)
    context.queues.subscribe(caller.mesh_id, caller.member_id)
    return {"topic": topic, "subscribed": True}


async def unsubscribe(caller: Caller, params: Params) -> Answer:
    """Unsubscribe the caller; once more is no error."""
    only(params, "topic")
    topic = check_topic(params.get("topic"))
    await caller.context.store.topic_unsubscribe(caller.mesh_id, topic, caller.member_id)
    caller.context.queues.subscribe(caller.mesh_id, caller.member_id)
    return {"topic": topic, "subscribed": False}


async def list_topics(caller: Caller, params: Params) -> Answer:
    """List the mesh's topics as the caller sees them."""
    only(params)
    rows = await caller.context.store.topic_list(caller.mesh_id, caller.member_id)
    return {
        "items": [
            {
                "topic": row.topic,
                "mode": row.mode,
                "subscribed": row.subscribed,
                "subscribers": row.subscribers,
                "sealed": False,
                "created_at": row.created_at,
            }
            for row in rows
        ]
    }


def _not_found(topic: str) -> ProtocolError:
    return ProtocolError("topic_not_found", f"there is no topic {topic}: create it first")


METHODS: dict[str, Method] = {
    "topic_create": create,
    "topic_subscribe": subscribe,
    "topic_unsubscribe": unsubscribe,
    "topic_list": list_topics,
}
