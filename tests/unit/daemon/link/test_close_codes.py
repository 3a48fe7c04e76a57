"""Closes of the broker: their reasons as people read them."""

from __future__ import annotations

import pytest

from claudemesh.daemon.link.close_codes import in_words
from claudemesh.protocol.errors import NOT_A_MEMBER, CloseCode, close_reason


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (
            4001,
            close_reason(CloseCode.UNAUTHENTICATED, kind=NOT_A_MEMBER, detail="No member has this key."),
            "the broker closed the link: No member has this key (not_a_member)",
        ),
        (4006, close_reason(CloseCode.DRAINING), "the broker closed the link: broker_draining"),
        (1012, "", "the broker closed the link: close code 1012"),
        (1011, "\x1b[2Jgone", "the broker closed the link: \\x1b[2Jgone"),
        (0, "cannot reach ws://old.lan", "cannot reach ws://old.lan"),
    ],
)
def test_the_end_of_a_link_is_told_in_words(code: int, reason: str, words: str) -> None:
    """Without the JSON of the close reason, and never empty."""
    assert in_words(code, reason) == words
