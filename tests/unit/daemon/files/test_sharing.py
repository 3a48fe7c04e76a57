"""Requests of shares: what a long text keeps of its send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.api.schemas_files import FileShareBody
from claudemesh.daemon.files.sharing import (
    BEGINNING_BYTES,
    beginning,
    fields_of,
    media_type_of,
    parse_share,
    share_of_text,
)
from claudemesh.daemon.outbox.request import SEND_FIELDS, SendRequest, parse_send

EVERYTHING = {
    "to": "bob/build-7",
    "message": "text",
    "priority": "now",
    "meta": {"a": [1, None]},
    "reply_to_id": "01HZ0000000000000000000000",
    "mentions": ["carol", "ab" * 32],
    "client_message_id": "mine",
    "from_session": "tests",
    "receipt": "shown",
    "hops": 2,
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


def test_a_long_text_keeps_every_field_of_its_send() -> None:
    """A field that is added to a send fails here until a long text carries it."""
    assert set(EVERYTHING) == SEND_FIELDS
    request = parse_send(EVERYTHING)
    unset = SendRequest(request.target, "")
    for name in SendRequest.__struct_fields__:
        # These are the daemon's own.
        if name not in ("attachments", "receipts", "named"):
            assert getattr(request, name) != getattr(unset, name) or name == "target"
    assert share_of_text(b"text", fields_of(request)).send == request
    for to in ("#news", "queue:builds", "cd" * 32):
        other = parse_send({**EVERYTHING, "to": to})
        assert share_of_text(b"text", fields_of(other)).send == other


def test_a_text_from_a_file_takes_the_fields_of_a_send() -> None:
    """The route has each of them."""
    assert set(FileShareBody.__struct_fields__) >= SEND_FIELDS
    assert share_of_text(b"text", EVERYTHING).send == parse_send(EVERYTHING)


@given(st.text(max_size=9000))
def test_the_beginning_of_a_text_is_valid_and_short(text: str) -> None:
    """No character is cut in two."""
    raw = text.encode()
    found = beginning(raw)
    assert text.startswith(found)
    assert BEGINNING_BYTES - 3 <= len(found.encode()) <= BEGINNING_BYTES or found == text


def test_the_fingerprint_covers_what_the_caller_asks_for() -> None:
    """The order of fields does not count, and the source is not read for it."""
    body = {"path": "/a", "to": "bob", "message": "m", "client_message_id": "x"}
    same = parse_share(dict(reversed(body.items())))
    assert parse_share(body).fingerprint == same.fingerprint
    for change in ({"path": "/b"}, {"to": "carol"}, {"message": "n"}, {"persistent": True}):
        assert parse_share({**body, **change}).fingerprint != same.fingerprint
    for change in ({"hops": 1}, {"traceparent": EVERYTHING["traceparent"]}):
        assert parse_share({**body, **change}).fingerprint == same.fingerprint
    texts = {share_of_text(raw, {"to": "bob"}).fingerprint for raw in (b"a" * 9000, b"a" * 8999 + b"b")}
    assert len(texts) == 2


def test_the_media_type_follows_from_the_name() -> None:
    """An archive of a known type in a compression of its own has none."""
    assert [media_type_of(name) for name in ("a.txt", "a.tar.gz", "a", "a.unheard")] == [
        "text/plain",
        None,
        None,
        None,
    ]
