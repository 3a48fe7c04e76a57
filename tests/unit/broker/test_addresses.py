"""The addresses that a broker knows for its own, decided from its settings and the socket alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.broker.addresses import Addresses, addresses_of, arrival_of
from claudemesh.broker.settings import BrokerSettings
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.urls import canonical_audience

PUBLIC = ("wss://mesh.example.org", "ws://10.0.0.1:7900")


def made(listen: str = "127.0.0.1:7900", public_url: tuple[str, ...] = ()) -> Addresses:
    """The addresses of a broker on a machine that is called `host.lan`."""
    settings = BrokerSettings(listen=listen, public_url=public_url, data_dir=Path("unused"))
    return addresses_of(settings, "Host.lan")


@pytest.mark.parametrize(
    ("audience", "arrived", "accepted"),
    [
        # On the loopback, by each of its names, at the port of the socket.
        ("127.0.0.1:7900", ("127.0.0.1", 7900), True),
        ("localhost:7900", ("127.0.0.1", 7900), True),
        ("LOCALHOST:7900", ("::1", 7900), True),
        ("[::1]:7900", ("::1", 7900), True),
        ("127.0.1.1:7900", ("127.0.1.1", 7900), True),
        ("127.0.0.1:7901", ("127.0.0.1", 7900), False),
        ("localhost:7900", ("10.0.0.5", 7900), False),
        ("127.0.0.1:7900", ("10.0.0.5", 7900), False),
        # Elsewhere, by the address at which the connection has arrived, and by the machine's name.
        ("10.0.0.5:7900", ("10.0.0.5", 7900), True),
        ("10.0.0.5:7900", ("::ffff:10.0.0.5", 7900), True),
        ("[fe80::1]:7900", ("fe80::1%eth0", 7900), True),
        ("[FE80:0::1]:7900", ("fe80::1", 7900), True),
        ("10.0.0.6:7900", ("10.0.0.5", 7900), False),
        ("host.lan:7900", ("10.0.0.5", 7900), True),
        ("host:7900", ("10.0.0.5", 7900), True),
        ("relay.lan:7900", ("10.0.0.5", 7900), False),
        ("host.lan:7901", ("10.0.0.5", 7900), False),
        # A request that came by no TCP socket has no address.
        ("127.0.0.1:7900", None, False),
        ("", ("127.0.0.1", 7900), False),
        ("7900", ("127.0.0.1", 7900), False),
    ],
)
def test_an_address_is_its_own_by_the_socket_and_never_by_the_claim(
    audience: str, arrived: tuple[str, int] | None, accepted: bool
) -> None:
    """Without a public URL."""
    assert made("0.0.0.0:7900").accepts(audience, arrived) is accepted


@pytest.mark.parametrize("audience", ["mesh.example.org:443", "Mesh.Example.org:443", "10.0.0.1:7900"])
def test_every_public_url_is_an_address_of_its_own(audience: str) -> None:
    """Wherever the connection arrives: a proxy stands in front."""
    assert made(public_url=PUBLIC).accepts(audience, ("127.0.0.1", 7900))
    assert not made().accepts(audience, ("127.0.0.1", 7900))


def test_a_public_url_takes_nothing_away() -> None:
    """Members that dial the address it listens at go on doing so."""
    assert made(public_url=PUBLIC).accepts("127.0.0.1:7900", ("127.0.0.1", 7900))


def test_the_name_it_was_told_to_listen_at_is_its_own() -> None:
    """A name is resolved when it is bound, and dialled as it is."""
    assert made("Broker.lan:7900").accepts("broker.lan:7900", ("10.0.0.5", 7900))


def test_a_refusal_names_the_public_addresses_or_the_one_that_was_reached() -> None:
    """A stranger learns of no other."""
    with pytest.raises(ProtocolError) as caught:
        made(public_url=PUBLIC).check("relay:1", ("127.0.0.1", 7900))
    assert (caught.value.code, caught.value.status) == ("wrong_address", 421)
    assert caught.value.fields == {"dialled": "relay:1", "addresses": list(PUBLIC)}
    with pytest.raises(ProtocolError, match=r"relay:1 was dialled.* itself as ws://10\.0\.0\.5:7900"):
        made("0.0.0.0:7900").check("relay:1", ("10.0.0.5", 7900))
    assert made().shown(None) == ()


def test_spellings_of_one_address_are_one() -> None:
    """As far as a number or case makes the difference."""
    assert canonical_audience("[0:0::1]:80") == "[::1]:80"
    assert canonical_audience("[::ffff:127.0.0.1]:80") == "127.0.0.1:80"
    assert canonical_audience("Mesh.Example:443") == "mesh.example:443"


@pytest.mark.parametrize(
    ("server", "arrived"),
    [(("127.0.0.1", 7900), ("127.0.0.1", 7900)), (("/run/sock", None), None), (None, None)],
)
def test_the_arrival_is_what_the_socket_tells(
    server: tuple[str, int | None] | None, arrived: tuple[str, int] | None
) -> None:
    """The server's address in the scope of a request."""
    assert arrival_of({"server": server, "headers": [(b"host", b"elsewhere:1")]}) == arrived
