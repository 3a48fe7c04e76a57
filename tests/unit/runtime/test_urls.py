"""Hosts: loopback, address, name, and IPv6 in brackets."""

from __future__ import annotations

import pytest

from claudemesh.runtime.urls import (
    audience_of,
    bracketed,
    canonical_audience,
    check_broker_url,
    host_port,
    is_address,
    is_loopback,
    split_host_port,
)


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1"])
def test_the_loopback_is_this_machine(host: str) -> None:
    """By its name or by any of its addresses."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "10.0.0.1", "::", "localhost.example", "127.1", "[::1]"])
def test_no_other_host_is(host: str) -> None:
    """Names are not resolved, and abbreviated addresses are names."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "address", "shown"),
    [("10.0.0.1", True, "10.0.0.1"), ("fe80::1", True, "[fe80::1]"), ("mesh.example", False, "mesh.example")],
)
def test_an_ipv6_address_has_brackets_in_a_url(host: str, address: bool, shown: str) -> None:
    """A name and an IPv4 address have none."""
    assert is_address(host) is address
    assert bracketed(host) == shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://Mesh.Example.org", "mesh.example.org:443"),
        ("ws://mesh.lan", "mesh.lan:80"),
        ("https://mesh.lan/", "mesh.lan:443"),
        ("ws://[::1]:7900", "[::1]:7900"),
        ("wss://10.0.0.1:8443/path", "10.0.0.1:8443"),
    ],
)
def test_audience_of_a_url(url: str, expected: str) -> None:
    """The host in lower case, and the port of the scheme where the URL has none."""
    assert audience_of(url) == expected


@pytest.mark.parametrize("url", ["", "mesh.lan", "ftp://mesh.lan", "ws://", "ws://:7900", "ws://host:x"])
def test_a_url_without_scheme_or_host_has_no_audience(url: str) -> None:
    """`ValueError`, also for a port that is not a number."""
    with pytest.raises(ValueError):
        audience_of(url)


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("Mesh.Example.org:443", "mesh.example.org:443"),
        ("[::FFFF:10.0.0.5]:7900", "10.0.0.5:7900"),
        ("[fe80:0::1%eth0]:7900", "[fe80::1]:7900"),
        ("[0:0::1]:80", "[::1]:80"),
        ("127.0.0.1:7900", "127.0.0.1:7900"),
        ("7900", ":7900"),
    ],
)
def test_spellings_of_one_audience_have_one_canonical_form(spelling: str, canonical: str) -> None:
    """The canonical form is its own canonical form."""
    assert canonical_audience(spelling) == canonical
    assert canonical_audience(canonical) == canonical


@pytest.mark.parametrize("host", ["mesh.lan", "127.0.0.1", "::1"])
def test_splitting_is_the_inverse_of_joining(host: str) -> None:
    """For names and both families of addresses."""
    assert split_host_port(host_port(host, 7900)) == (host, "7900")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_address_of_a_web_page_is_refused_with_the_right_scheme(scheme: str) -> None:
    """Members dial wss:// or ws://."""
    with pytest.raises(ValueError, match=f"{scheme}://.* Use wss://"):
        check_broker_url(f"{scheme}://mesh.example.org")
