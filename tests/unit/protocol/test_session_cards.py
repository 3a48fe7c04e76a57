"""Sessions of a member as others see them: bounded, and without unknown words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.session_cards import MAX_CARDS, SessionCard, cards_text, check_cards, parse_cards

API = {"name": "api", "client": "Claude Code", "state": "idle", "reach": "push"}


def test_cards_are_read_as_they_were_written() -> None:
    """The broker keeps the text and passes it on."""
    cards = check_cards([API], "sessions")
    assert cards == (SessionCard("api", "Claude Code", "idle", "push"),)
    assert parse_cards({"sessions": orjson.loads(cards_text(cards))}, "sessions") == cards


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        {**API, "name": "A B"},
        {**API, "client": "a\x1b[0m"},
        {**API, "state": "asleep"},
        {**API, "reach": ""},
        {**API, "cwd": "/src/api"},
    ],
)
def test_a_wrong_card_is_refused_by_the_broker_and_left_out_by_a_daemon(wrong: Any) -> None:
    """A member tells no path, and a card of a later release takes no member out of the list."""
    with pytest.raises(InvalidField):
        check_cards([API, wrong], "sessions")
    assert parse_cards({"sessions": [wrong, API]}, "sessions") == check_cards([API], "sessions")


def test_cards_are_bounded() -> None:
    """They are a part of every member's copy of the list."""
    with pytest.raises(InvalidField):
        check_cards([API] * (MAX_CARDS + 1), "sessions")
