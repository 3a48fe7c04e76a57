from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from claudemesh.protocol import ids
from claudemesh.protocol.errors import InvalidField
from tests.support.envelopes import MESH_ID, ULID_TEXT

VALUES = st.binary(min_size=16, max_size=16)


@given(VALUES)
def test_ulid_is_spelt_as_the_reference_spells_it(raw: bytes) -> None:
    """Crockford base32 of 128 bits, 26 characters, upper case."""
    text = ids.ulid_from_bytes(raw)
    assert text == str(ULID.from_bytes(raw))
    assert ids.ulid_to_bytes(text) == raw
    assert ids.ulid_time_ms(text) == int.from_bytes(raw[:6], "big")
    assert ids.is_ulid(text)


@given(VALUES)
def test_uuid_has_the_same_bits(raw: bytes) -> None:
    """In Postgres the same 128 bits in a uuid column."""
    assert uuid.UUID(ids.uuid_from_ulid(ids.ulid_from_bytes(raw))).bytes == raw


@given(st.lists(st.integers(min_value=-5, max_value=2**48 - 2), min_size=1, max_size=30), st.data())
def test_ulids_ascend_with_any_clock(times: list[int], data: st.DataObject) -> None:
    """Monotonic within a process, also when the clock stands still or steps back."""
    clock = iter(times)
    factory = ids.UlidFactory(
        lambda: next(clock), lambda count: data.draw(st.binary(min_size=count, max_size=count))
    )
    minted = [factory.new() for _ in times]
    assert minted == sorted(set(minted))
    assert all(ids.is_ulid(text) for text in minted)


def test_ulid_carries_the_time_and_the_entropy() -> None:
    """48 bits of milliseconds, 80 random bits."""
    factory = ids.UlidFactory(lambda: 1_700_000_000_123, lambda count: b"\xab" * count)
    assert ids.ulid_to_bytes(factory.new()) == (1_700_000_000_123).to_bytes(6, "big") + b"\xab" * 10


def test_ulids_ascend_when_the_random_bits_of_a_millisecond_are_used_up() -> None:
    """The carry goes into the time: still ascending."""
    factory = ids.UlidFactory(lambda: 5, lambda count: b"\xff" * count)
    first, second = factory.new(), factory.new()
    assert first < second
    assert ids.ulid_time_ms(second) == 6


def test_no_ulid_is_made_of_a_time_that_does_not_fit() -> None:
    """48 bits, and no silent wrap."""
    with pytest.raises(OverflowError):
        ids.UlidFactory(lambda: 2**48, lambda count: b"\0" * count).new()


@pytest.mark.parametrize(
    "value",
    ["", ULID_TEXT.lower(), ULID_TEXT[:-1], ULID_TEXT + "0", "8" + ULID_TEXT[1:], ULID_TEXT + "\n"]
    + [ULID_TEXT[:-1] + letter for letter in "ILOU٣-"]
    + [None, 7, ULID_TEXT.encode()],
)
def test_other_texts_than_ulids_are_refused(value: object) -> None:
    """One canonical spelling."""
    assert not ids.is_ulid(value)
    with pytest.raises(InvalidField) as caught:
        ids.check_ulid(value, "reply_to_id")
    assert (caught.value.code, caught.value.field) == ("invalid_ulid", "reply_to_id")


@pytest.mark.parametrize("function", [ids.ulid_to_bytes, ids.uuid_from_ulid, ids.ulid_time_ms])
def test_conversions_refuse_other_texts_than_ulids(function: Callable[[str], object]) -> None:
    """`InvalidField`, never a wrong value."""
    with pytest.raises(InvalidField):
        function("not a ulid")


def test_bytes_of_another_length_are_no_ulid() -> None:
    """16 bytes."""
    with pytest.raises(InvalidField):
        ids.ulid_from_bytes(b"short")


CHECKS: dict[str, tuple[Callable[[object], str], list[str], list[object]]] = {
    "client_message_id": (
        ids.check_client_message_id,
        ["a", "!~", "x" * 255, '"\\'],
        ["", "x" * 256, "a b", "a\n", "a\x7f", "é", " a", "a\0", None, 5, True, ["a"]],
    ),
    "uuid": (
        lambda value: ids.check_uuid(value, "mesh_id"),
        [MESH_ID],
        ["", MESH_ID.upper(), MESH_ID.replace("-", ""), "{" + MESH_ID + "}", MESH_ID + "\n", None, 5],
    ),
    "key": (
        lambda value: ids.check_key(value, "key"),
        ["0" * 64, "a1" * 32],
        ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "٣" * 64, None, b"0" * 64],
    ),
    "slug": (
        ids.check_slug,
        ["a", "0.x_y-z", "a" * 63],
        ["", "a" * 64, "A", ".a", "-a", "_a", "a b", "a/b", "a\n", "ä", None],
    ),
    "topic": (
        ids.check_topic,
        ["all", "deploy.prod", "a" * 63],
        [
            "",
            "a" * 64,
            "a" * 255,
            "All",
            "#all",
            "queue:a",
            "all\n",
            "caf\u00e9",
            "cafe\u0301",
            "\uff41",
            None,
            1,
        ],
    ),
    "name": (
        ids.check_member_name,
        ["Bob", "ci-7", "a" * 63],
        ["", "a" * 64, "@bob", "-bob", "bo b", "bob\n", "Bоb", None],
    ),
}


@pytest.mark.parametrize("kind", CHECKS)
def test_syntax_is_kept(kind: str) -> None:
    """docs/spec/protocol.md, Identifiers: a valid value is returned unchanged."""
    check, good, _ = CHECKS[kind]
    assert [check(value) for value in good] == good


@pytest.mark.parametrize("kind", CHECKS)
def test_syntax_is_enforced(kind: str) -> None:
    """docs/spec/protocol.md, Identifiers: nothing is trimmed or folded."""
    check, _, bad = CHECKS[kind]
    for value in bad:
        with pytest.raises(InvalidField) as caught:
            check(value)
        assert caught.value.code == f"invalid_{kind}", value
        assert caught.value.message


@given(st.characters())
def test_controls_are_unicode_category_cc(character: str) -> None:
    """C0, DEL and C1, and nothing else."""
    assert ids.has_control(f"a{character}b") == (unicodedata.category(character) == "Cc")
