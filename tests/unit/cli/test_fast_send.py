"""The fast path takes what it handles whole, and leaves everything else alone."""

from __future__ import annotations

import json

import pytest

from claudemesh.cli import fast_send
from claudemesh.protocol.ids import is_ulid

HANDLED = [
    ["send", "bob", "hi"],
    ["send", "bob", "hi", "--json"],
    ["send", "--json", "#all", "two words"],
    ["send", "bob", "hi", "--mesh", "demo", "--id", "x", "--priority", "now", "--wait", "100"],
]
LEFT_ALONE = [
    [],
    ["send"],
    ["send", "bob"],
    ["send", "bob", "-"],
    ["send", "bob", "hi", "there"],
    ["send", "", "hi"],
    ["send", "bob", ""],
    ["send", "bob", "hi", "--meta", "{}"],
    ["send", "bob", "hi", "--help"],
    ["send", "bob", "hi", "--wait", "soon"],
    ["send", "bob", "hi", "--wait", "30001"],
    ["send", "bob", "hi", "--wait", "9" * 5000],
    ["send", "bob", "hi", "--wait", "٣"],
    ["send", "bob", "hi", "--priority", "urgent"],
    ["send", "bob", "hi", "--id"],
    ["send", "bob", "hi", "--id", "--json"],
    ["send", "bob", "hi", "--id", "a", "--id", "b"],
    ["send", "bob", "--", "hi"],
    ["inbox"],
    ["sendx", "bob", "hi"],
]


@pytest.mark.parametrize("argv", HANDLED)
def test_a_plain_send_is_understood(argv: list[str]) -> None:
    """TO, TEXT and the common options, in any order."""
    assert fast_send._parse(argv) is not None


@pytest.mark.parametrize("argv", LEFT_ALONE)
def test_everything_else_is_left_to_the_full_command_line(argv: list[str]) -> None:
    """None, before anything was sent."""
    assert fast_send._parse(argv) is None


@pytest.mark.parametrize(
    "text", ['"', "\\", '\\"', "\n\t\x00\x1f", "ü – 🛰 \u2028\u2029", "\x7f\x9b", "", '{"a": 1}']
)
def test_hand_made_json_reads_back_as_the_text(text: str) -> None:
    """For any text."""
    assert json.loads(fast_send._quote(text)) == text


def test_minted_ids_are_ulids() -> None:
    """As the daemon would mint them."""
    ids = {fast_send._ulid() for _ in range(100)}
    assert len(ids) == 100
    assert all(map(is_ulid, ids))
