"""Hosts: loopback, address, name, and IPv6 in brackets."""

from __future__ import annotations

import pytest

from claudemesh.runtime.urls import bracketed, is_address, is_loopback


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
