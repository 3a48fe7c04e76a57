"""Query parameters are parsed strictly, and the error names the one that is wrong. Example: the inbox's."""

from __future__ import annotations

import pytest

from claudemesh.daemon.api.inbox import ROUTES
from claudemesh.daemon.api.send import ROUTES as SEND
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.web.query import parse_query

INBOX = ROUTES[0].query
WAIT = SEND[0].query


def refusal(raw: bytes, parameters: tuple[object, ...] = INBOX) -> tuple[str, object]:
    with pytest.raises(ProtocolError) as caught:
        parse_query(raw, parameters)  # type: ignore[arg-type]
    assert caught.value.message.endswith(".")
    return caught.value.code, caught.value.fields.get("field")


def test_what_is_not_given_has_its_default() -> None:
    """An empty query is a page of 100, unfiltered."""
    values = parse_query(b"", INBOX)
    assert values == {
        "since": None,
        "after": None,
        "topic": None,
        "from": None,
        "session": None,
        "unread": False,
        "unseen": False,
        "mentioned": False,
        "sealed": False,
        "order": "asc",
        "limit": 100,
    }


def test_each_parameter_is_read() -> None:
    """Names may have their sigils, times become milliseconds."""
    raw = b"since=2026-01-02T03:04:05.678Z&after=12&topic=%23all&from=@Bob&unread=true&mentioned=true"
    raw += b"&order=desc&limit=500&session=api&sealed=true&unseen=true"
    assert parse_query(raw, INBOX) == {
        "since": 1767323045678,
        "after": "12",
        "topic": "all",
        "from": "Bob",
        "session": "api",
        "unread": True,
        "unseen": True,
        "mentioned": True,
        "sealed": True,
        "order": "desc",
        "limit": 500,
    }


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"limit=0", "limit"),
        (b"limit=501", "limit"),
        (b"limit=", "limit"),
        (b"limit", "limit"),
        (b"limit=+5", "limit"),
        (b"limit=-5", "limit"),
        (b"limit=5.0", "limit"),
        (b"limit=1_0", "limit"),
        (b"limit=%205", "limit"),
        (b"limit=1e2", "limit"),
        (b"limit=%D9%A5", "limit"),
        (b"limit=" + b"9" * 5000, "limit"),
        (b"limit=5&limit=5", "limit"),
        (b"after=x", "after"),
        (b"after=9223372036854775808", "after"),
        (b"after=-1", "after"),
        (b"since=yesterday", "since"),
        (b"since=1767323045678", "since"),
        (b"since=2026-13-01", "since"),
        (b"since=2026-01-02T03:04:05+02:00", "since"),
        (b"order=newest", "order"),
        (b"topic=UPPER", "topic"),
        (b"topic=", "topic"),
        (b"topic=a%00b", "topic"),
        (b"topic=a%0A", "topic"),
        (b"from=a%1Bb", "from"),
        (b"from=@", "from"),
        (b"from=" + b"a" * 64 + b"a", "from"),
        (b"unread=yes", "unread"),
        (b"unread=True", "unread"),
    ],
)
def test_a_malformed_parameter_is_named(raw: bytes, field: str) -> None:
    """400 with the field and what it takes; nothing is guessed or trimmed."""
    assert refusal(raw) == ("invalid_parameter", field)


def test_an_unknown_parameter_is_named() -> None:
    """A typing mistake must not read everything."""
    assert refusal(b"unraed=1") == ("unknown_parameter", "unraed")
    assert refusal(b"x=1", ()) == ("unknown_parameter", "x")


@pytest.mark.parametrize("raw", [b"limit=%FF", b"\xff=1", b"&".join(b"limit=1" for _ in range(17))])
def test_a_query_that_is_none_is_refused(raw: bytes) -> None:
    """Not UTF-8, or too many parameters."""
    assert refusal(raw)[0] == "invalid_query"


@pytest.mark.parametrize("value", [b"0", b"1", b"30000"])
def test_wait_ms_reaches_thirty_seconds(value: bytes) -> None:
    """0 to 30000."""
    assert parse_query(b"wait_ms=" + value, WAIT) == {"wait_ms": int(value)}


@pytest.mark.parametrize("value", [b"30001", b"-1", b"1.5", b"true", b"", b"NaN", b"0x10"])
def test_wait_ms_is_a_strict_whole_number(value: bytes) -> None:
    """Anything else is 400."""
    assert refusal(b"wait_ms=" + value, WAIT) == ("invalid_parameter", "wait_ms")
