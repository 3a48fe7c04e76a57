"""Calls that delete topics, and that tell which were deleted (docs/spec/broker.md, Topics)."""

from __future__ import annotations

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, flag, only
from claudemesh.broker.store.topic_deletion import Deletion, TopicKept
from claudemesh.broker.store.types import DEFAULT_TOPIC
from claudemesh.protocol.authority import judge_administration
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.events import TOPIC_DELETED
from claudemesh.protocol.ids import check_topic

_MOST_NAMES = 256


async def delete(caller: Caller, params: Params) -> Answer:
    """Delete a topic or queue: by its creator, an owner or an admin.

    Posts that were accepted before are still delivered to their subscribers. A queue with messages that no
    subscriber has acknowledged is kept, unless `force` drops them.
    """
    only(params, "topic", "force")
    topic = check_topic(params.get("topic"))
    if topic == DEFAULT_TOPIC:
        raise ProtocolError("forbidden", f"The topic {topic} belongs to the mesh, and cannot be deleted.")
    context, mesh_id = caller.context, caller.mesh_id
    member = await context.store.members.find(mesh_id, caller.member_id)
    may_any = member is not None and judge_administration(member.role) is None
    wish = Deletion(mesh_id, topic, caller.member_id, may_any, flag(params, "force"), context.clock.wall_ms())
    outcome = await context.store.topic_deletions.delete(wish)
    if isinstance(outcome, TopicKept):
        raise _refusal(topic, outcome)
    context.audit.record(
        mesh_id, "topic_deleted", caller.member_id, topic=topic, mode=outcome.mode, dropped=outcome.dropped
    )
    context.queues.queue_gone(mesh_id, topic)
    # Daemons refuse sends to topics that they do not know, also while the broker is away.
    context.cluster.broadcast(mesh_id, TOPIC_DELETED, {"topic": topic, "mode": outcome.mode})
    return {"topic": topic, "mode": outcome.mode, "dropped": outcome.dropped}


async def deleted(caller: Caller, params: Params) -> Answer:
    """Tell which of some topics were deleted, and not created since."""
    only(params, "topics")
    given = params.get("topics")
    if not isinstance(given, list) or len(given) > _MOST_NAMES:
        raise InvalidField("invalid_params", "topics", f"topics must be a list of at most {_MOST_NAMES}.")
    names = [check_topic(name) for name in given]
    return {"items": list(await caller.context.store.topic_deletions.deleted(caller.mesh_id, names))}


def _refusal(topic: str, kept: TopicKept) -> ProtocolError:
    if kept.code == "queue_not_empty":
        return ProtocolError(
            kept.code,
            f"The queue {topic} holds {kept.waiting} messages that no subscriber has acknowledged. Let "
            "subscribers take them, or drop them with force.",
        )
    if kept.code == "not_authorized":
        return ProtocolError(
            kept.code, f"Only the creator of {topic}, an owner or an admin of the mesh may delete it."
        )
    return ProtocolError(kept.code, f"The mesh has no topic {topic}.")


METHODS: dict[str, Method] = {"topic_delete": delete, "topics_deleted": deleted}
