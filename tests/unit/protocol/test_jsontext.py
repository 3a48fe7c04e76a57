from __future__ import annotations

from types import MappingProxyType

import orjson
import pytest

from claudemesh.protocol.jsontext import JsonText, plain


def test_a_text_is_written_as_it_is() -> None:
    """The text of the value, at any depth."""
    value = {"items": [{"meta": JsonText('{"a":1.0e2}')}, MappingProxyType({"b": JsonText("[]")})]}
    assert orjson.dumps(value, default=plain) == b'{"items":[{"meta":{"a":1.0e2}},{"b":[]}]}'
    assert JsonText('{"a":1.0e2}').value() == {"a": 100.0}


def test_without_the_default_nothing_is_written() -> None:
    """A missing `default` is an error, not an object of another shape."""
    with pytest.raises(orjson.JSONEncodeError):
        orjson.dumps(JsonText("1"))
    with pytest.raises(TypeError):
        plain(object())
