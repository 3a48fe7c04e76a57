"""Bodies: strict JSON, an object, exactly the fields; every error names the field and says what to do."""

from __future__ import annotations

import msgspec
import orjson
import pytest

from claudemesh.daemon.api.schemas import (
    AckBody,
    EmptyBody,
    PostBody,
    ProfileBody,
    SendBody,
    TopicCreateBody,
)
from claudemesh.daemon.api.schemas_outbox import RequeueBody
from claudemesh.daemon.outbox.request import POST_FIELDS, SEND_FIELDS
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.web.bodies import parse_object, parse_struct

ULID = "01J0000000000000000000000Z"


def refusal(value: object, kind: type[msgspec.Struct] = AckBody) -> tuple[str, object]:
    with pytest.raises(ProtocolError) as caught:
        parse_struct(value if isinstance(value, bytes) else orjson.dumps(value), kind, required=True)
    assert caught.value.status == 400
    assert caught.value.message.endswith(".")
    return caught.value.code, caught.value.fields.get("field")


def test_a_body_is_read_by_its_type() -> None:
    """`as` is a word of the API though it is a keyword here."""
    body = parse_struct(orjson.dumps({"ids": [ULID], "as": "shown"}), AckBody, required=True)
    assert (body.ids, body.as_) == ([ULID], "shown")


def test_a_body_that_is_not_required_may_be_empty() -> None:
    """No body and {} are the same there."""
    assert parse_struct(b"", EmptyBody, required=False) == parse_struct(b"{}", EmptyBody, required=False)
    assert refusal(b"")[0] == "invalid_json"


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        ({"ids": [ULID], "as": "shown", "by": 1}, "unknown_field", "by"),
        ({"ids": [ULID]}, "missing_field", "as"),
        ({"as": "shown"}, "missing_field", "ids"),
        ({"ids": ULID, "as": "shown"}, "invalid_field", "ids"),
        ({"ids": [1], "as": "shown"}, "invalid_field", "ids[0]"),
        ({"ids": [True], "as": "shown"}, "invalid_field", "ids[0]"),
        ({"ids": [ULID + "\n"], "as": "shown"}, "invalid_field", "ids[0]"),
        ({"ids": [ULID.lower()], "as": "shown"}, "invalid_field", "ids[0]"),
        ({"ids": [ULID] * 501, "as": "shown"}, "invalid_field", "ids"),
        ({"ids": [], "as": "read"}, "invalid_field", "as"),
        ({"ids": [], "as": None}, "invalid_field", "as"),
        ({"ids": None, "as": "shown"}, "invalid_field", "ids"),
    ],
)
def test_a_wrong_field_is_named(value: object, code: str, field: str) -> None:
    """Wrong type, missing, unknown, too many: each its code and its field."""
    assert refusal(value) == (code, field)


@pytest.mark.parametrize(
    ("kind", "value", "field"),
    [
        (TopicCreateBody, {"topic": 5}, "topic"),
        (TopicCreateBody, {"topic": "all", "mode": "broadcast"}, "mode"),
        (TopicCreateBody, {"topic": "a" * 65}, "topic"),
        (ProfileBody, {"visible": 1}, "visible"),
        (ProfileBody, {"visible": "true"}, "visible"),
        (ProfileBody, {"summary": "a" * 513}, "summary"),
        (ProfileBody, {"status": ["a"]}, "status"),
        (RequeueBody, {"patch": []}, "patch"),
        (RequeueBody, {"new_client_message_id": "a b"}, "new_client_message_id"),
        (RequeueBody, {"new_client_message_id": "a" * 256}, "new_client_message_id"),
    ],
)
def test_each_body_checks_its_fields(kind: type[msgspec.Struct], value: object, field: str) -> None:
    """No bool where a number is due, no number where a text is."""
    assert refusal(value, kind) == ("invalid_field", field)


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"text"', b"1", b"true"])
def test_a_body_is_an_object(raw: bytes) -> None:
    """Valid JSON of another kind is 400."""
    with pytest.raises(ProtocolError) as caught:
        parse_object(raw)
    assert caught.value.code == "invalid_body"


def test_the_described_send_has_the_fields_that_are_read() -> None:
    """openapi.json and the parser of sends speak of the same fields."""
    assert set(SendBody.__struct_fields__) == SEND_FIELDS
    assert set(PostBody.__struct_fields__) == POST_FIELDS
