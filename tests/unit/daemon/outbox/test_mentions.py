"""Mentions in texts of any length."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.outbox.mentions import names_in

_TOKENS = st.sampled_from(["@", "bob", "Bob", ".", "-", "_", " ", "x@", "/", "+", "1", "é", "\n"])


@given(st.lists(_TOKENS, max_size=40).map("".join))
def test_every_mention_of_a_text_is_found(text: str) -> None:
    """As a search from its beginning to its end finds them."""
    found = re.findall(r"(?<![\w.@/+-])@([A-Za-z0-9][A-Za-z0-9._-]*)", text)
    expected = {name.lower(): (name, name.rstrip("._-")) for name in reversed(found)}
    assert {name[0].lower(): set(name) for name in names_in(text)} == {
        name: set(spellings) for name, spellings in expected.items()
    }


def test_a_text_of_nothing_but_marks_names_no_member() -> None:
    """Its search ends, and so does that of a text with more names than any envelope holds."""
    assert list(names_in("@" * (1 << 20))) == []
    assert len(list(names_in(" ".join(f"@m{number}" for number in range(5000))))) == 1024
