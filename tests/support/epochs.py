"""Epochs and wraps as the broker's store has them: it verifies none of what is inside."""

from __future__ import annotations

import random
from typing import Any

from claudemesh.broker.store.topic_keys import EpochMade, EpochRefused, EpochRow, NewEpoch, WrapRow
from claudemesh.broker.store.types import Member
from tests.support.stores import NOW, World

_random = random.Random(5)


def epoch_row(number: int, maker: Member, commitment: str = "") -> EpochRow:
    """An epoch of this number."""
    made = commitment or _random.randbytes(32).hex()
    return EpochRow(number, made, "", maker.ed25519_pubkey, bytes(64), NOW)


def wrap_row(number: int, to: Member, by: Member) -> WrapRow:
    """A wrap for the present key of a member."""
    return WrapRow(
        number, to.ed25519_pubkey, by.ed25519_pubkey, _random.randbytes(24), bytes(48), _random.randbytes(64)
    )


async def make_epoch(
    w: World, topic: str, expected: int, maker: Member, *wrapped: Member, **changes: Any
) -> EpochMade | EpochRefused:
    """Make the epoch after `expected`, with wraps for its maker and some members."""
    number = changes.pop("number", expected + 1)
    fields: dict[str, Any] = {
        "mesh_id": w.mesh.id,
        "topic": topic,
        "expected": expected,
        "member_id": maker.id,
        "epoch": epoch_row(number, maker),
        "wraps": tuple(wrap_row(number, to, maker) for to in (maker, *wrapped)),
        "lived_ms": 0,
        "most_made": 100,
    }
    return await w.store.topic_keys.create(NewEpoch(**{**fields, **changes}))
