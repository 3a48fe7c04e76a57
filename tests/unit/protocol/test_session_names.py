"""Names of sessions in the sealed content."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import SLUG
from claudemesh.protocol.sealing import (
    MAX_HOPS,
    NO_SESSIONS,
    SealedContext,
    SessionNames,
    decode_content,
    encode_content,
)

CONTEXT = SealedContext("m", "a", "b", "c", "dm")
NAMES = st.none() | st.from_regex(SLUG, fullmatch=True)


@given(NAMES, NAMES)
def test_sealed_names_of_sessions_are_read_unchanged(sender: str | None, recipient: str | None) -> None:
    """Each may be missing."""
    names = SessionNames(sender, recipient)
    assert decode_content(encode_content("x", b"", CONTEXT, sessions=names)).sessions == names


def test_a_body_without_sessions_is_as_before() -> None:
    """Older receivers read the same bytes, and newer ones read the bodies of older senders."""
    raw = encode_content("x", b"", CONTEXT)
    assert b"session" not in raw
    assert decode_content(raw).sessions == NO_SESSIONS


@pytest.mark.parametrize("field", ["from_session", "to_session"])
@pytest.mark.parametrize("value", ["", "Api", "a b", "../x", "a\n", "x" * 64, 7, ["api"], {}])
def test_a_value_that_is_no_name_of_a_session_makes_the_content_invalid(field: str, value: Any) -> None:
    """No text of a sender reaches a reader as the name of a session."""
    content = {**orjson.loads(encode_content("x", b"", CONTEXT)), field: value}
    with pytest.raises(ProtocolError) as caught:
        decode_content(orjson.dumps(content))
    assert caught.value.code == "invalid_content"


@pytest.mark.parametrize(
    ("sealed", "hops"), [(0, 0), (3, 3), (10**12, MAX_HOPS), (-1, 0), (True, 0), ("4", 0), (None, 0)]
)
def test_a_number_of_automatic_answers_is_bounded_and_one_without_sense_is_none(
    sealed: Any, hops: int
) -> None:
    """The message is still the message of its sender."""
    content = {**orjson.loads(encode_content("x", b"", CONTEXT)), "hops": sealed}
    assert decode_content(orjson.dumps(content)).sessions.hops == hops
