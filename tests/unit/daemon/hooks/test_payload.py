"""The event on a hook's standard input: whole or cut, and never with what was to be hidden."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.hooks.payload import PAYLOAD_LIMIT, REDACTED, encode_event


def encoded(event: dict[str, Any], *redact: str, limit: int = PAYLOAD_LIMIT) -> Any:
    raw = encode_event(event, redact, limit)
    assert len(raw) <= limit
    return orjson.loads(raw)


def test_without_redactions_the_event_is_as_it_is() -> None:
    """A body that is JSON keeps its spelling."""
    event = {"event": "message", "body": '{"a" :1}', "meta": {"k": [1]}}
    assert encoded(event) == event


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        ('{"password":"x","user":"u"}', "body.password", {"password": REDACTED, "user": "u"}),
        ('{"a":{"b":[{"c":"x"},{"c":"y"}]}}', "body.a.b.*.c", {"a": {"b": [{"c": REDACTED}] * 2}}),
        ('{"a":["x","y"]}', "body.a.1", {"a": ["x", REDACTED]}),
        ('{"a":1}', "body.b", {"a": 1}),
        (
            '{"n":123456789012345678901234567890,"p":1}',
            "body.p",
            {"n": 123456789012345678901234567890, "p": REDACTED},
        ),
    ],
)
def test_paths_lead_into_a_body_that_is_json(body: str, path: str, expected: Any) -> None:
    """Keys, indices and *; numbers stay as they are."""
    assert json.loads(encoded({"body": body}, path)["body"]) == expected


@pytest.mark.parametrize(
    "body",
    [
        '{"password":"x"',
        '{"a":' * 5000 + '"x"' + "}" * 5000,
        '{"password":"x","password":"x"}',
        ' \n[{"password":"x"}',
        '{"a":"\\ud800","password":"x"}',
        '{"\\udfff":1,"password":"x"}',
    ],
)
def test_what_only_looks_like_json_is_hidden_whole_or_made_plain(body: str) -> None:
    """A hook's own parser may see more in it than ours: nothing of it passes."""
    assert "x" not in encoded({"body": body}, "body.password")["body"]


def test_a_text_that_is_no_json_has_no_paths() -> None:
    """It stays as it is; the whole body can be hidden by its name."""
    assert encoded({"body": "my password is x"}, "body.password")["body"] == "my password is x"
    assert encoded({"body": "my password is x"}, "body")["body"] == REDACTED


def test_of_a_send_the_message_is_the_body() -> None:
    """pre-send reads `message`, under the same paths."""
    assert encoded({"message": '{"p":"x"}'}, "body.p")["message"] == '{"p": "[redacted]"}'


def test_meta_is_redacted_too() -> None:
    """By path, or whole."""
    event = {"body": None, "meta": {"api_key": "x", "k": 1}}
    assert encoded(event, "meta.api_key")["meta"] == {"api_key": REDACTED, "k": 1}
    assert encoded(event, "meta")["meta"] == REDACTED
    assert encoded({"body": None, "meta": None}, "meta.api_key")["meta"] is None


@given(st.text(min_size=200, max_size=3000), st.integers(200, 1000))
def test_what_is_too_long_is_cut_to_a_beginning_and_says_so(body: str, limit: int) -> None:
    """Valid JSON within the bound, for any characters."""
    event = {"event": "message", "body": body, "meta": {"k": "v"}}
    found = encoded(event, limit=limit)
    if len(orjson.dumps(event)) <= limit:
        assert found == event
    else:
        assert found["_truncated"] is True
        assert body.startswith(found["body"])
        assert len(orjson.dumps({**found, "body": body[: len(found["body"]) + 1]})) > limit


def test_a_great_meta_goes_before_the_body() -> None:
    """It could not be cut and still be what it was."""
    found = encoded({"body": "short", "meta": {"k": "v" * 5000}}, limit=1000)
    assert (found["meta"], found["body"], found["_truncated"]) == (None, "short", True)


@given(
    st.recursive(
        st.none() | st.integers() | st.just("SECRET"),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcp"), inner, max_size=3)
        ),
        max_leaves=20,
    )
)
def test_no_value_under_a_hidden_name_passes(value: Any) -> None:
    """However deep the body is, `body.p` hides everything under p."""
    body = {"p": value, "rest": 1}
    assert "SECRET" not in encode_event({"body": json.dumps(body)}, ["body.p"]).decode()
