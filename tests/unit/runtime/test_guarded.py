"""A proxy tells for whom it asks, and a client does not choose what is told."""

from __future__ import annotations

import pytest
from websockets.frames import Close, Frame
from websockets.streams import StreamReader

from claudemesh.runtime.guarded import client_of, close_frame

PROXIES = {"10.0.0.5", "10.0.0.6"}


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7, 10.0.0.6", "192.0.2.7"),
        (" 192.0.2.7 ,10.0.0.6,10.0.0.5", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("10.0.0.5", None),
        ("192.0.2.7" + ", 10.0.0.5" * 16, None),
        ("192.0.2.7, " * 5000 + "198.51.100.1", "198.51.100.1"),
    ],
)
def test_the_last_address_that_is_no_proxy_counts(forwarded: str, client: str | None) -> None:
    assert client_of(forwarded, PROXIES.__contains__) == client


def test_a_header_of_proxies_alone_costs_little() -> None:
    """64 KiB of them are not looked at one by one."""
    asked = []

    def trusts(host: str) -> bool:
        asked.append(host)
        return True

    assert client_of("10.0.0.5," * 7000, trusts) is None
    assert len(asked) <= 16


def test_a_close_frame_is_one_for_the_library() -> None:
    reader = StreamReader()
    reader.feed_data(close_frame(1008, "too many frames"))
    parser = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parser)
    assert Close.parse(done.value.value.data) == Close(1008, "too many frames")
