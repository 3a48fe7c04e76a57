"""Sessions of a member as other members see them (docs/spec/protocol.md, Calls)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson

from claudemesh.protocol import fields
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import SLUG

Reach: TypeAlias = Literal["push", "turn", "pull"]
Activity: TypeAlias = Literal["idle", "working", "away"]

REACHES: Final[tuple[Reach, ...]] = ("push", "turn", "pull")
ACTIVITIES: Final[tuple[Activity, ...]] = ("idle", "working", "away")
# The most sessions that a member tells of.
MAX_CARDS: Final = 32
_FIELDS: Final = frozenset({"name", "client", "state", "reach"})


@dataclass(frozen=True, slots=True)
class SessionCard:
    """A session: its name, its client, what it does, and how it can be reached."""

    name: str
    client: str
    state: Activity
    reach: Reach


def parse_cards(value: Mapping[str, Any], name: str) -> tuple[SessionCard, ...]:
    """Return the cards in a field of an object. One with unknown words is left out. `InvalidField`."""
    found = fields.each(dict(value), name, _card_or_none, MAX_CARDS)
    return tuple(one for one in found if one is not None)


def check_cards(value: object, name: str) -> tuple[SessionCard, ...]:
    """Return the cards that a member gives of its sessions. `InvalidField`: one of them is wrong."""
    return fields.each({name: value}, name, _card, MAX_CARDS)


def cards_text(cards: Iterable[SessionCard]) -> str:
    """Return cards as JSON."""
    return orjson.dumps([asdict(one) for one in cards]).decode()


def _card(value: object, field: str) -> SessionCard:
    if not isinstance(value, dict) or not set(value) <= _FIELDS:
        fields.refuse(field, "hold objects of name, client, state and reach")
    return SessionCard(
        name=fields.matching(value, "name", SLUG),
        client=fields.text(value, "client"),
        state=fields.one_of(value, "state", ACTIVITIES),
        reach=fields.one_of(value, "reach", REACHES),
    )


def _card_or_none(value: object, field: str) -> SessionCard | None:
    try:
        return _card(value, field)
    except InvalidField:
        return None
