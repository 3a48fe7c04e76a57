"""Replies of a broker to the calls about topic keys (docs/spec/protocol.md, Keys of topics)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from claudemesh.protocol import fields
from claudemesh.protocol.ids import SLUG
from claudemesh.protocol.replies import Listing, PeerEntry, entries, peer_entry, reader, record
from claudemesh.protocol.topic_keys import EpochStatement, Wrap, key_epoch_of
from claudemesh.protocol.wire import TOPIC_MODES, TopicMode

# Epochs that one call of `topic_key` asks for, and members that its reply lists.
MAX_EPOCHS_ASKED: Final = 64
MAX_MISSING: Final = 500


@dataclass(frozen=True, slots=True)
class TopicKeys(Listing):
    """The reply to `topic_key`.

    `current` is None for a topic without an epoch. `epochs` are those that were asked for and exist. `wraps`
    are for the caller, of the current epoch and of `epochs`. `missing` are subscribers without a wrap of the
    current epoch; `missing_more` tells that there are more. `rekey_wanted`: the next epoch is to be made.
    """

    topic: str
    mode: TopicMode
    current: EpochStatement | None
    epochs: tuple[EpochStatement, ...]
    rekey_wanted: bool
    wraps: tuple[Wrap, ...]
    missing: tuple[PeerEntry, ...]
    missing_more: bool


@reader("topic_key")
def topic_keys(value: Any) -> TopicKeys:
    """Read the reply to `topic_key`. A wrong wrap, epoch or member is left out and listed in `faults`."""
    found = record(value, "ok")
    topic = fields.matching(found, "topic", SLUG)
    current = None
    if found.get("current") is not None:
        current = EpochStatement.parse(record(found["current"], "current"), topic)
    stated, wrong_epochs = entries(
        found, "epochs", lambda item: EpochStatement.parse(item, topic), "topic_key"
    )
    commitments = {one.key_epoch: one.commitment for one in (*stated, *((current,) if current else ()))}
    wraps, wrong_wraps = entries(
        found, "wraps", lambda item: Wrap.parse(item, topic, commitments), "topic_key"
    )
    missing, wrong_members = entries(found, "missing", peer_entry, "topic_key")
    return TopicKeys(
        topic=topic,
        mode=fields.one_of(found, "mode", TOPIC_MODES),
        current=current,
        epochs=stated,
        rekey_wanted=fields.boolean(found, "rekey_wanted"),
        wraps=wraps,
        missing=missing,
        missing_more=fields.boolean(found, "missing_more"),
        faults=(*wrong_epochs, *wrong_wraps, *wrong_members),
    )


@reader("topic_epoch_create")
def epoch_created(value: Any) -> int:
    """Read the reply to `topic_epoch_create`: the number of the epoch."""
    return key_epoch_of(record(value, "ok"))


@reader("topic_wrap_add")
def wraps_added(value: Any) -> int:
    """Read the reply to `topic_wrap_add`: the number of wraps that are new."""
    return fields.integer(record(value, "ok"), "added")


@reader("topic_rekey")
def rekey_noted(value: Any) -> bool:
    """Read the reply to `topic_rekey`: whether the next epoch is wanted now."""
    return fields.boolean(record(value, "ok"), "rekey_wanted")
