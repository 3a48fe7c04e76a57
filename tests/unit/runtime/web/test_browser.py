"""Checks against web pages, as decisions about headers."""

from __future__ import annotations

import pytest

from claudemesh.runtime.web.browser import is_foreign_page, names_address, names_loopback

ORIGIN = b"https://board.example"


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({b"sec-fetch-site": b"none"}, False),
        ({b"sec-fetch-site": b"same-origin"}, False),
        ({b"sec-fetch-site": b"same-site"}, True),
        ({b"sec-fetch-site": b"cross-site"}, True),
        ({b"origin": b"null"}, True),
        ({b"origin": b"https://evil.example"}, True),
        ({b"origin": ORIGIN, b"sec-fetch-site": b"cross-site"}, False),
        ({b"referer": ORIGIN + b"/page"}, False),
        ({b"referer": b"https://evil.example/page"}, True),
        ({b"referer": b"http://[broken"}, True),
    ],
)
def test_a_page_of_another_origin_is_foreign(headers: dict[bytes, bytes], foreign: bool) -> None:
    """`Origin` decides where it is given, then `Referer`, then `Sec-Fetch-Site`."""
    assert is_foreign_page(headers, frozenset({ORIGIN})) is foreign


@pytest.mark.parametrize(
    ("host", "loopback", "address"),
    [
        ("localhost", True, True),
        ("localhost:7901", True, True),
        ("127.0.0.1:1", True, True),
        ("[::1]:1", True, True),
        ("", True, False),
        ("10.0.0.1:7900", False, True),
        ("[fe80::1]", False, True),
        ("localhost.evil.example", False, False),
        ("evil.example", False, False),
        ("user@localhost", False, False),
        ("localhost:p", False, False),
    ],
)
def test_a_host_that_dns_could_rebind_is_told_apart(host: str, loopback: bool, address: bool) -> None:
    """The daemon answers under names of the loopback only, a local broker under any address too."""
    assert names_loopback(host.encode()) is loopback
    assert names_address(host) is address
