from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claudemesh.protocol.base64 import from_base64, to_base64


@given(st.binary(max_size=100))
def test_bytes_come_back(raw: bytes) -> None:
    """Standard alphabet, padded."""
    assert to_base64(raw) == base64.b64encode(raw).decode()
    assert from_base64(to_base64(raw)) == raw


@given(st.text("AQgw+/=_- \n9", max_size=12))
@example("AB==")
@example("AAB=")
@example("A===")
@example("AA==AA==")
@example("AAAA====")
def test_only_the_canonical_spelling_is_read(text: str) -> None:
    """A text is read if and only if writing its bytes gives that text."""
    raw = from_base64(text)
    try:
        expected = base64.b64decode(text, validate=True)
    except ValueError:
        expected = None
    if expected is not None and base64.b64encode(expected).decode() != text:
        expected = None
    assert raw == expected


@pytest.mark.parametrize("value", [None, 5, b"QUFB", ["QUFB"], "Ä" * 4, "\ud800AAA"])
def test_values_other_than_ascii_text_are_refused(value: object) -> None:
    """No exception for any value."""
    assert from_base64(value) is None


@given(
    st.binary(min_size=190, max_size=400),
    st.integers(0, 250),
    st.sampled_from(["", "=", "====", "-", " ", "\n", "é", "B"]),
)
def test_a_long_text_is_read_by_the_same_rule(raw: bytes, at: int, piece: str) -> None:
    """Long texts have a decoder of their own."""
    text = to_base64(raw)
    assert from_base64(text) == raw
    for changed in (text[:at] + piece + text[at + 1 :], text + piece, text[:-1] + piece):
        found = from_base64(changed)
        assert found is None or to_base64(found) == changed
