"""Calls about the keys of topics: read them, make an epoch, add wraps, ask for the next epoch.

See docs/spec/broker.md, Topic keys. The broker reads no key: it checks the form of wraps, and the signature
of an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, count, flag, only
from claudemesh.broker.directory.cards import card
from claudemesh.broker.store.topic_keys import EpochRefused, EpochRow, KeyState, NewEpoch, WrapRow
from claudemesh.broker.store.types import Member
from claudemesh.protocol import fields
from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import check_topic
from claudemesh.protocol.replies import record
from claudemesh.protocol.topic_key_replies import MAX_EPOCHS_ASKED, MAX_MISSING
from claudemesh.protocol.topic_keys import (
    MAX_WRAPS,
    MAX_WRAPS_A_RECIPIENT,
    EpochStatement,
    Wrap,
    key_epoch_of,
    verify_epoch,
)

# Of the members in one reply.
_MISSING_BYTES: Final = 1 << 20


async def topic_key(caller: Caller, params: Params) -> Answer:
    """Return the keys of a topic as the caller sees them.

    Connected holders are asked for the wraps that the caller lacks: of the present epoch, if sends under it
    are accepted, and of those asked for under which messages are owed to it. `wanted`: the wraps that are
    there do not open. Without `missing` the subscribers without a wrap are not listed. Of a topic that was
    deleted the caller gets its wraps of the epochs that it asks for.
    """
    only(params, "topic", "key_epochs", "wanted", "missing")
    topic, asked = check_topic(params.get("topic")), _epochs(params)
    wants_more, lists_missing = flag(params, "wanted"), flag(params, "missing", default=True)
    store = caller.context.store.topic_keys
    state = await store.state(caller.mesh_id, topic, caller.member_id, asked)
    if state is None:
        raise _not_found(topic)
    await _want(caller, topic, state, asked, again=wants_more)
    missing: list[Any] = []
    has_more = False
    if lists_missing:
        members = await store.missing(caller.mesh_id, topic, MAX_MISSING + 1)
        missing = _cards(members[:MAX_MISSING])
        has_more = len(missing) < len(members)
    epochs = [_epoch(one) for one in state.epochs]
    current = [one for one in epochs if one["key_epoch"] == state.current]
    return {
        "topic": topic,
        "mode": state.mode,
        "current": current[0] if current else None,
        "epochs": [one for one in epochs if one["key_epoch"] in asked],
        "rekey_wanted": state.rekey_wanted,
        "wraps": [_wrap(one) for one in state.wraps],
        "missing": missing,
        "missing_more": has_more,
    }


async def topic_epoch_create(caller: Caller, params: Params) -> Answer:
    """Make the epoch after `expected`, with the first wraps. The same epoch once more changes nothing."""
    only(params, "topic", "expected", "epoch", "wraps")
    topic, expected = check_topic(params.get("topic")), count(params, "expected", 0)
    statement = EpochStatement.parse(record(params.get("epoch"), "epoch"), topic)
    wraps = await _wraps(caller, params, topic, statement.key_epoch)
    await _check_maker(caller, statement)
    context, mesh_id = caller.context, caller.mesh_id
    metrics = context.metrics.topic_epochs
    outcome = await context.store.topic_keys.create(
        NewEpoch(
            mesh_id,
            topic,
            expected,
            caller.member_id,
            EpochRow(
                statement.key_epoch,
                statement.commitment,
                statement.previous_commitment,
                statement.created_by,
                statement.signature,
                context.clock.wall_ms(),
            ),
            wraps,
            context.lived.now_ms(),
            context.settings.limits.key_epochs_an_hour,
        )
    )
    if isinstance(outcome, EpochRefused):
        metrics.labels("conflict" if outcome.code == "key_epoch_conflict" else "refused").inc()
        raise _refusal(topic, outcome, context.settings.limits.key_epochs_an_hour)
    if outcome.is_new:
        metrics.labels("made").inc()
        context.keys.changed(mesh_id, topic, outcome.key_epoch)
    await _told(caller, topic, outcome.key_epoch, outcome.recipients)
    return {"key_epoch": outcome.key_epoch}


async def topic_wrap_add(caller: Caller, params: Params) -> Answer:
    """Add wraps of one epoch. Wraps for keys that no active member has now are left out."""
    only(params, "topic", "key_epoch", "wraps")
    topic, key_epoch = check_topic(params.get("topic")), key_epoch_of(dict(params))
    wraps = await _wraps(caller, params, topic, key_epoch)
    added = await caller.context.store.topic_keys.add_wraps(
        caller.mesh_id, topic, caller.member_id, wraps, MAX_WRAPS_A_RECIPIENT
    )
    if added is None:
        raise ProtocolError(
            "key_epoch_unknown",
            f"The broker has no epoch {key_epoch} of {topic}. Register it with topic_epoch_create first.",
        )
    await _told(caller, topic, key_epoch, added)
    return {"added": len(added)}


async def topic_rekey(caller: Caller, params: Params) -> Answer:
    """Mark that the next epoch of a topic is wanted. A topic without an epoch needs no other one."""
    only(params, "topic")
    topic = check_topic(params.get("topic"))
    wanted = await caller.context.store.topic_keys.want(caller.mesh_id, topic)
    if wanted is None:
        raise _not_found(topic)
    if wanted:
        caller.context.keys.want_epochs(caller.mesh_id, (topic,))
    return {"topic": topic, "rekey_wanted": wanted}


async def want_for_subscriber(caller: Caller, topic: str) -> None:
    """Ask holders for the wraps that a new subscriber lacks, of waiting messages of a queue too."""
    store = caller.context.store.topic_keys
    waiting = await store.waiting(caller.mesh_id, topic)
    state = await store.state(caller.mesh_id, topic, caller.member_id, waiting)
    if state is not None:
        await _want(caller, topic, state, waiting)


async def _want(
    caller: Caller, topic: str, state: KeyState, asked: frozenset[int], *, again: bool = False
) -> None:
    there = {wrap.key_epoch for wrap in state.wraps}
    for epoch in state.epochs:
        number = epoch.key_epoch
        if number in there and not (again and (number in asked or not asked)):
            continue
        is_in_force = number == state.current and number > state.floor
        if not is_in_force and not await caller.context.store.topic_keys.is_owed(
            caller.mesh_id, topic, caller.member_id, number
        ):
            continue
        caller.context.keys.want(caller.mesh_id, topic, number, caller.member_id, again=again)


async def _told(caller: Caller, topic: str, key_epoch: int, recipients: Sequence[str]) -> None:
    if not recipients:
        return
    context = caller.context
    context.keys.added(caller.mesh_id, topic, key_epoch, list(recipients))
    if await context.store.topics.mode(caller.mesh_id, topic) == "queue":
        # A worker can open now what waited for one that can.
        context.queues.dispatch(caller.mesh_id, topic)


async def _wraps(caller: Caller, params: Params, topic: str, key_epoch: int) -> tuple[WrapRow, ...]:
    """Return the wraps of the parameters. `InvalidField` names the first that is wrong."""
    given = params.get("wraps")
    if not isinstance(given, list) or len(given) > MAX_WRAPS:
        raise InvalidField("invalid_params", "wraps", f"wraps must be a list of at most {MAX_WRAPS}.")
    member = await caller.context.store.members.find(caller.mesh_id, caller.member_id)
    if member is None or member.status != "active":
        raise ProtocolError("not_a_member", "The caller is not an active member of this mesh.")
    rows = []
    for place, item in enumerate(given):
        wrap = Wrap.parse(record(item, f"wraps[{place}]"), topic, {key_epoch: ""})
        if wrap.wrapped_by != member.ed25519_pubkey:
            raise InvalidField(
                "invalid_params",
                f"wraps[{place}].wrapped_by",
                "wrapped_by must be the present key of the caller. Wrap the key again.",
            )
        rows.append(
            WrapRow(key_epoch, wrap.recipient, wrap.wrapped_by, wrap.nonce, wrap.ciphertext, wrap.signature)
        )
    return tuple(rows)


async def _check_maker(caller: Caller, statement: EpochStatement) -> None:
    """Check that a member has signed an epoch. After a restore others than its maker register it again."""
    if not verify_epoch(caller.mesh_id, statement, (statement.created_by,)):
        raise ProtocolError("bad_signature", "The epoch is not signed by its maker for this mesh and topic.")
    if await caller.context.store.members.by_any_key(caller.mesh_id, statement.created_by) is None:
        raise ProtocolError(
            "not_a_member", "The maker of the epoch is no member of this mesh. Make an epoch of your own."
        )


def _epochs(params: Params) -> frozenset[int]:
    if params.get("key_epochs") is None:
        return frozenset()
    return frozenset(fields.each(dict(params), "key_epochs", _epoch_number, MAX_EPOCHS_ASKED))


def _epoch_number(value: object, field: str) -> int:
    return key_epoch_of({field: value}, field)


def _cards(members: Sequence[Member]) -> list[orjson.Fragment]:
    """Return the entries of as many members as fit into a reply, of one at least."""
    found: list[orjson.Fragment] = []
    size = 0
    for one in members:
        entry = _card(one)
        size += len(entry)
        if found and size > _MISSING_BYTES:
            break
        found.append(orjson.Fragment(entry))
    return found


def _card(member: Member) -> bytes:
    return orjson.dumps(card(member, is_own=False))


def _epoch(row: EpochRow) -> dict[str, Any]:
    return {
        "key_epoch": row.key_epoch,
        "commitment": row.commitment,
        "previous_commitment": row.previous_commitment,
        "created_by": row.created_by,
        "signature": to_base64(row.signature),
        "created_at": row.created_at,
    }


def _wrap(row: WrapRow) -> dict[str, Any]:
    return {
        "key_epoch": row.key_epoch,
        "recipient": row.recipient,
        "wrapped_by": row.wrapped_by,
        "nonce": to_base64(row.nonce),
        "ciphertext": to_base64(row.ciphertext),
        "signature": to_base64(row.signature),
    }


def _not_found(topic: str) -> ProtocolError:
    return ProtocolError("topic_not_found", f"The mesh has no topic {topic}. Create it first.")


def _refusal(topic: str, refused: EpochRefused, most: int) -> ProtocolError:
    if refused.code == "topic_not_found":
        return _not_found(topic)
    if refused.code == "not_a_member":
        return ProtocolError(refused.code, "The caller is not an active member of this mesh.")
    if refused.code == "too_many_epochs":
        return ProtocolError(
            refused.code, f"A member may make {most} epochs of topics an hour. Try again later."
        )
    return ProtocolError(
        refused.code,
        f"Another member has made the epoch {refused.current} of {topic}. Ask topic_key for it.",
    )


METHODS: dict[str, Method] = {
    "topic_key": topic_key,
    "topic_epoch_create": topic_epoch_create,
    "topic_wrap_add": topic_wrap_add,
    "topic_rekey": topic_rekey,
}
