"""Request bodies: limits of size and time while they are read, then exactly the fields of a type."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from claudemesh.protocol.errors import InvalidField
from claudemesh.runtime.web.bodies import ClientGone, parse_struct, printable, read_body, to_struct
from claudemesh.runtime.web.errors import HttpRefusal
from tests.unit.runtime.web.asgi import Exchange, body


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    """A body with one field that is required and one that is not."""

    name: str
    count: int = 0


async def read(exchange: Exchange, limit: int = 10, deadline_s: float = 5.0) -> bytes:
    return await read_body(exchange.receive, limit, deadline_s)


@pytest.mark.parametrize("parts", [[b""], [b"0123456789"], [b"01234", b"56789"], [b"", b"0", b""]])
async def test_a_body_is_read_to_its_end(parts: list[bytes]) -> None:
    """In one part or in several, up to the limit."""
    assert await read(Exchange(*body(*parts))) == b"".join(parts)


@pytest.mark.parametrize("parts", [[b"0123456789x"], [b"01234", b"56789x"], [b"0123456789", b"x"]])
async def test_a_body_over_the_limit_is_refused(parts: list[bytes]) -> None:
    """413, which names the limit and closes the connection."""
    with pytest.raises(HttpRefusal) as caught:
        await read(Exchange(*body(*parts)))
    assert (caught.value.status, caught.value.code) == (413, "payload_too_large")
    assert caught.value.fields["limit"] == 10
    assert (b"connection", b"close") in caught.value.headers


async def test_a_body_is_refused_before_its_end_is_read() -> None:
    """An endless body costs no more memory than the limit."""
    with pytest.raises(HttpRefusal):
        await read(Exchange(*body(b"0123456789x", whole=False)))


async def test_a_body_that_does_not_come_is_refused() -> None:
    """408 at the deadline, and the connection is closed."""
    with pytest.raises(HttpRefusal) as caught:
        await read(Exchange(*body(b"0", whole=False)), deadline_s=0.01)
    assert (caught.value.status, caught.value.code) == (408, "request_timeout")
    assert (b"connection", b"close") in caught.value.headers


async def test_a_client_that_disconnects_is_noticed() -> None:
    """Whether or not a part of the body has come."""
    gone = {"type": "http.disconnect"}
    with pytest.raises(ClientGone):
        await read(Exchange(gone))
    with pytest.raises(ClientGone):
        await read(Exchange(*body(b"0", whole=False), gone))


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        ({"name": "a", "size": 1}, "unknown_field", "size"),
        ({"name": "a", "\x1b[0m": 1}, "unknown_field", "?[0m"),
        ({"count": 1}, "missing_field", "name"),
        ({"name": 1}, "invalid_field", "name"),
        ({"name": "a", "count": True}, "invalid_field", "count"),
    ],
)
def test_a_wrong_field_is_named(value: dict[str, object], code: str, field: str) -> None:
    """Unknown, missing or of another type: each has its code, and the message is a sentence."""
    with pytest.raises(InvalidField) as caught:
        to_struct(value, Thing)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.message.endswith(".")


class Bounded(msgspec.Struct):
    """A body with bounds."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=3, pattern="^[a-z]+$")] = "a"
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] | None = None
    ids: Annotated[list[str], msgspec.Meta(max_length=1)] = []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"name": 1}, "name must be a text, not a whole number."),
        ({"name": ""}, "name must not be empty."),
        ({"name": "abcd"}, "name must have at most 3 characters."),
        ({"name": "A"}, "name must match the pattern ^[a-z]+$."),
        ({"count": "1"}, "count must be a whole number or null, not a text."),
        ({"count": 0}, "count must be at least 1."),
        ({"count": 10}, "count must be at most 9."),
        ({"ids": ["a", "b"]}, "ids must have at most 1 entries."),
        ({"ids": [True]}, "ids[0] must be a text, not true or false."),
    ],
)
def test_a_wrong_field_is_told_in_plain_words(value: dict[str, object], text: str) -> None:
    """No word of the parser reaches a person at a terminal."""
    with pytest.raises(InvalidField) as caught:
        to_struct(value, Bounded)
    assert caught.value.message == text


def test_a_body_that_is_required_may_not_be_empty() -> None:
    """Elsewhere an empty body is an empty object."""
    with pytest.raises(InvalidField):
        parse_struct(b"", Thing, required=False)
    assert parse_struct(b'{"name":"a"}', Thing, required=True) == Thing("a")


def test_a_callers_text_is_cut_and_cleaned() -> None:
    """No control character of a request is shown in a reply."""
    assert printable("a\x00b" + "c" * 100) == "a?b" + "c" * 61
