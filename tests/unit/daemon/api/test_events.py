"""Encoding of events on the stream."""

from __future__ import annotations

from types import MappingProxyType

from claudemesh.daemon.api.events import encode_event
from claudemesh.daemon.bus import BusEvent


def test_a_message_has_the_inbox_seq_as_its_id() -> None:
    """So that Last-Event-ID resumes there."""
    raw = encode_event(BusEvent("message", {"body": "hi"}, "7"))
    assert raw == b'id: 7\nevent: message\ndata: {"body":"hi"}\n\n'


def test_another_event_has_no_id() -> None:
    """It is not replayed, so it must not move the reader's place."""
    raw = encode_event(BusEvent("peer_join", MappingProxyType({"name": "bob"})))
    assert raw == b'event: peer_join\ndata: {"name":"bob"}\n\n'


def test_no_text_can_break_out_of_its_line() -> None:
    """Line breaks and controls in a body stay inside the JSON."""
    raw = encode_event(BusEvent("message", {"body": "a\n\nevent: x\r\nid: 9\x1b[0m\x00"}, "7"))
    assert raw.count(b"\n") == 4
    assert b"\r" not in raw
    assert b"\x1b" not in raw
