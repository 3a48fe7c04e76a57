"""A send's body: every field checked, one sentence for each mistake (docs/spec/daemon.md, POST /v1/send)."""

from __future__ import annotations

from typing import Any

import pytest

from claudemesh.daemon.outbox.request import MAX_MENTIONS, Target, parse_post, parse_send
from claudemesh.protocol.errors import InvalidField, ProtocolError

KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
VALID: dict[str, Any] = {"to": "bob", "message": "hello"}


@pytest.mark.parametrize(
    ("to", "target"),
    [
        ("bob", Target("dm", name="bob")),
        ("@bob", Target("dm", name="bob")),
        (KEY, Target("dm", ref=KEY)),
        ("bob/api", Target("dm", name="bob", session="api")),
        (f"{KEY}/api-2", Target("dm", ref=KEY, session="api-2")),
        ("#alerts", Target("topic", ref="alerts")),
        ("queue:builds", Target("queue", ref="builds")),
    ],
)
def test_to_takes_a_name_a_key_a_topic_or_a_queue(to: str, target: Target) -> None:
    """`@name` or `name`, a 64-hex key, `#topic`, `queue:name`."""
    assert parse_send({**VALID, "to": to}).target == target


@pytest.mark.parametrize(
    "to", ["bob/", "/api", "bob/Api", "bob/a/b", "bob/-x", f"bob/{'a' * 64}", "#all/api"]
)
def test_a_session_has_the_syntax_of_a_topic_and_belongs_to_a_member(to: str) -> None:
    """A topic and a queue have none."""
    with pytest.raises(InvalidField) as caught:
        parse_send({**VALID, "to": to})
    assert caught.value.field == "to"


def test_the_refusal_of_a_session_does_not_read_as_one_of_the_member() -> None:
    """The member may have an upper-case name."""
    with pytest.raises(InvalidField) as caught:
        parse_send({**VALID, "to": "Bob/Api"})
    assert (caught.value.code, caught.value.field) == ("invalid_session", "to")
    assert caught.value.message.startswith("The name of a session in to must be 1 to 63 of a-z")


def test_the_header_wins_over_the_bodys_id() -> None:
    """The id comes from the Idempotency-Key header, else the body."""
    body = {**VALID, "client_message_id": "from-body"}
    assert parse_send(body).client_message_id == "from-body"
    assert parse_send(body, "from-header").client_message_id == "from-header"


def test_an_empty_meta_is_no_meta() -> None:
    """Absent, null and {} are one request."""
    assert parse_send({**VALID, "meta": {}}) == parse_send({**VALID, "meta": None}) == parse_send(VALID)


@pytest.mark.parametrize("field", ["to", "message"])
def test_a_missing_field_is_named(field: str) -> None:
    """400 missing_field."""
    body = {key: value for key, value in VALID.items() if key != field}
    with pytest.raises(InvalidField) as caught:
        parse_send(body)
    assert (caught.value.code, caught.value.field) == ("missing_field", field)


BAD_FIELDS: list[tuple[str, Any]] = [
    ("to", None),
    ("to", 1),
    ("to", ""),
    ("to", "@"),
    ("to", "bob smith"),
    ("to", "bob\n"),
    ("to", "#"),
    ("to", "#Upper"),
    ("to", "queue:"),
    ("to", "x" * 64),
    ("to", KEY.upper()),
    ("to", ["bob"]),
    ("message", None),
    ("message", 1),
    ("message", True),
    ("message", {"text": "x"}),
    ("priority", "urgent"),
    ("priority", 1),
    ("priority", True),
    ("priority", []),
    ("meta", "x"),
    ("meta", [1]),
    ("meta", 0),
    ("meta", False),
    ("meta", {"n": 2**53}),
    ("meta", {"n": -(2**53)}),
    ("reply_to_id", "x"),
    ("reply_to_id", 1),
    ("reply_to_id", ""),
    ("reply_to_id", "01hqxw5z3y8c6t0v9r4n2m7k1p"),
    ("mentions", "bob"),
    ("mentions", {"bob": 1}),
    ("mentions", [1]),
    ("mentions", [None]),
    ("mentions", ["not a name"]),
    ("mentions", ["bob"] * (MAX_MENTIONS + 1)),
    ("client_message_id", ""),
    ("client_message_id", 1),
    ("client_message_id", "with space"),
    ("client_message_id", "ü"),
    ("client_message_id", "x" * 256),
    ("client_message_id", "tab\t"),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_a_wrong_value_is_refused_with_its_field(field: str, value: Any) -> None:
    """Wrong type, syntax, length: a stable code, the field's name, one sentence."""
    with pytest.raises(ProtocolError) as caught:
        parse_send({**VALID, field: value})
    assert caught.value.status == 400
    assert caught.value.message.endswith(".")


def test_an_unknown_field_is_named_with_the_ones_that_exist() -> None:
    """400 unknown_field."""
    with pytest.raises(InvalidField, match="priority") as caught:
        parse_send({**VALID, "prio": "now"})
    assert (caught.value.code, caught.value.field) == ("unknown_field", "prio")


def test_a_post_goes_to_its_topic() -> None:
    """`/v1/topic/post` takes the topic's name, with or without `#`."""
    assert parse_post({"topic": "#news", "message": "x"}) == parse_post({"topic": "news", "message": "x"})
    with pytest.raises(InvalidField):
        parse_post({"to": "bob", "topic": "news", "message": "x"})


def test_a_message_may_hold_anything_that_is_text() -> None:
    """Control characters belong to the body; nothing is normalised or trimmed."""
    text = "\x00\x1b[31m\u2028 e\u0301 \U0001f6f0\ufe0f\n"
    assert parse_send({**VALID, "message": text}).message == text
    assert parse_send({**VALID, "message": ""}).message == ""
