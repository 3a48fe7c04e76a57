"""Web pages are refused by the head of a request."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.broker.http.pages import PageGuard
from claudemesh.broker.settings import BrokerSettings
from claudemesh.protocol.errors import ProtocolError


def verdict(
    *headers: tuple[bytes, bytes],
    listen: str = "127.0.0.1:7900",
    public: str = "",
    path: str = "/v1/admin/meshes",
    console: bool = True,
) -> str:
    settings = BrokerSettings(
        data_dir=Path("/nowhere"), listen=listen, public_url=(public,) if public else (), console=console
    )
    try:
        PageGuard(settings).check(headers, path)
    except ProtocolError as error:
        return error.code
    return "pass"


@pytest.mark.parametrize(
    "header",
    [(b"origin", b"null"), (b"origin", b"http://localhost"), (b"sec-fetch-site", b"cross-site")],
)
def test_a_page_is_refused_wherever_the_broker_listens(header: tuple[bytes, bytes]) -> None:
    """By `Origin`, which no client of ours sends, and by `Sec-Fetch-Site`."""
    host = (b"host", b"localhost")
    assert verdict(host, header) == "origin_not_allowed"
    assert verdict(host, header, listen="0.0.0.0:7900") == "origin_not_allowed"


@pytest.mark.parametrize("site", [b"none", b"same-origin"])
def test_an_address_that_a_user_types_is_answered(site: bytes) -> None:
    """Not every request of a browser is a page's."""
    assert verdict((b"host", b"localhost"), (b"sec-fetch-site", site)) == "pass"


def test_a_local_broker_answers_under_addresses_only() -> None:
    """A name of DNS may have been made to resolve to the loopback. Two hosts are no host."""
    evil, own = (b"host", b"evil.example"), (b"host", b"127.0.0.1:7900")
    assert verdict(own) == "pass"
    assert [verdict(evil), verdict(own, own), verdict()] == ["host_not_allowed"] * 3
    assert verdict(evil, listen="0.0.0.0:7900") == "pass"
    assert verdict(evil, public="wss://evil.example") == "pass"


CONSOLE = ["/console", "/console/app.js", "/v1/console/session"]


@pytest.mark.parametrize("path", CONSOLE)
def test_the_console_is_served_to_pages_of_the_brokers_own_origin(path: str) -> None:
    """A proxy in front of the broker may have taken TLS off the connection."""
    host = (b"host", b"mesh.example.org")
    own = ((b"origin", b"https://mesh.example.org"), (b"sec-fetch-site", b"same-origin"))
    assert verdict(host, *own, public="wss://mesh.example.org", path=path) == "pass"
    assert (
        verdict(host, *own, public="wss://mesh.example.org", path=path, console=False) == "origin_not_allowed"
    )


@pytest.mark.parametrize("path", CONSOLE)
@pytest.mark.parametrize(
    "header",
    [
        (b"origin", b"http://127.0.0.1:7901"),
        (b"origin", b"null"),
        (b"origin", b"https://127.0.0.1:7900.evil.example"),
        (b"sec-fetch-site", b"same-site"),
        (b"sec-fetch-site", b"cross-site"),
    ],
)
def test_the_console_is_refused_to_any_other_page(path: str, header: tuple[bytes, bytes]) -> None:
    """Also to one of another port of the same host, and to a frame."""
    assert verdict((b"host", b"127.0.0.1:7900"), header, path=path) == "origin_not_allowed"


def test_the_brokers_own_origin_opens_no_other_path() -> None:
    own = ((b"host", b"127.0.0.1:7900"), (b"origin", b"http://127.0.0.1:7900"))
    assert [verdict(*own, path=path) for path in ("/v1/admin/meshes", "/v1/join", "/metrics")] == [
        "origin_not_allowed"
    ] * 3
