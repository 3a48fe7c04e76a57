from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.attachments import MAX_ATTACHMENTS, Attachment, parse_attachments
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.sealing import SealedContext, decode_content, encode_content
from tests.support.values import replace

FILE = Attachment(
    file_id="01HZ0000000000000000000000",
    name="build.log",
    size=3,
    sha256="ab" * 32,
    blob_id="b_0",
    blob_sha256="cd" * 32,
    key=bytes(32),
    chunk_bytes=1 << 20,
)
CONTEXT = SealedContext("m", "a", "b", "c", "dm")
IDS = st.text(alphabet="0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=25, max_size=25).map(lambda t: f"0{t}")
HEX = st.text(alphabet="0123456789abcdef", min_size=64, max_size=64)
NAMES = st.text(min_size=1, max_size=60).filter(lambda t: len(t.encode(errors="replace")) <= 255)
FILES = st.builds(
    Attachment,
    file_id=IDS,
    name=NAMES.filter(lambda t: t.isprintable()),
    size=st.integers(0, 1 << 50),
    sha256=HEX,
    blob_id=st.text(alphabet="abcXYZ019_-", min_size=1, max_size=64),
    blob_sha256=HEX,
    key=st.binary(min_size=32, max_size=32),
    chunk_bytes=st.integers(1 << 10, 1 << 20),
    media_type=st.sampled_from([None, "text/plain", "application/x-tar"]),
)


@given(st.lists(FILES, max_size=MAX_ATTACHMENTS, unique_by=lambda one: one.file_id))
def test_sealed_attachments_are_read_unchanged(files: list[Attachment]) -> None:
    """Key, names and sizes are inside the sealed content."""
    raw = encode_content("here", b"", CONTEXT, files)
    assert decode_content(raw).attachments == tuple(files)


def test_a_body_without_attachments_is_as_before() -> None:
    """Older receivers read the same bytes, and newer ones read the bodies of older senders."""
    assert b"attachments" not in encode_content("here", b"", CONTEXT)
    assert decode_content(encode_content("here", b"", CONTEXT)).attachments == ()


@pytest.mark.parametrize(
    "change",
    [
        {"file_id": "../../etc"},
        {"name": ""},
        {"name": "n" * 256},
        {"name": "ü" * 128},
        {"name": 7},
        {"size": -1},
        {"size": True},
        {"size": 1 << 51},
        {"size": "3"},
        {"sha256": "AB" * 32},
        {"blob_sha256": ""},
        {"blob_id": "../x"},
        {"blob_id": ""},
        {"key": ""},
        {"key": "A" * 43},
        {"chunk_bytes": 0},
        {"chunk_bytes": (1 << 20) + 1},
        {"media_type": "text"},
        {"media_type": "text/plain\r\nx: y"},
        {"is_text": 1},
    ],
)
def test_a_wrong_attachment_makes_the_body_invalid(change: dict[str, Any]) -> None:
    """Sizes, ids and keys are checked before anything is allocated or fetched."""
    with pytest.raises(ProtocolError, match="invalid_content"):
        parse_attachments([{**FILE.to_dict(), **change}])


@pytest.mark.parametrize("missing", sorted(FILE.to_dict()))
def test_an_attachment_without_a_field_makes_the_body_invalid(missing: str) -> None:
    """No field has a default that a sender could leave open."""
    with pytest.raises(ProtocolError, match="invalid_content"):
        parse_attachments([{name: value for name, value in FILE.to_dict().items() if name != missing}])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_other_value_is_refused_with_a_code(value: Any) -> None:
    """No exception but `ProtocolError` leaves the parser."""
    try:
        assert parse_attachments(value) == ()
    except ProtocolError as error:
        assert error.code == "invalid_content"


def test_the_number_of_attachments_and_their_ids_are_limited() -> None:
    """A list is bounded, a file is named once, and a message has one text."""
    many = [replace(FILE, file_id=f"01HZ00000000000000000000{n:02d}").to_dict() for n in range(17)]
    texts = [{**one, "is_text": True} for one in many[:2]]
    assert len(parse_attachments(many[:16])) == MAX_ATTACHMENTS
    for wrong in (many, [many[0], many[0]], texts):
        with pytest.raises(ProtocolError, match="invalid_content"):
            parse_attachments(orjson.loads(orjson.dumps(wrong)))
