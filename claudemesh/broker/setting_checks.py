"""Checks of single settings of a broker. Each raises `ValueError` for a value with which no broker starts.

The same checks serve a start and `claudemesh broker config check`. They look at nothing but the value: no
server is asked, and no library is loaded for one that is not used.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from claudemesh.runtime.digits import whole_number
from claudemesh.runtime.settings.rules import listed
from claudemesh.runtime.urls import check_host, split_host_port

MAX_PORT = 65_535
MIN_TOKEN_CHARACTERS = 16
_POSTGRES = ("postgresql", "postgres")
_REDIS = ("redis", "rediss", "unix")
_MAX_REDIS_DATABASE = 2**31 - 1
# Parameters of a `rediss://` URL besides the database.
_REDIS_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
# Parameters of a database URL that have a few words as values.
_WORDS = {
    "sslmode": ("disable", "prefer", "allow", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
}


def split_listen(listen: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 host stands in brackets. `ValueError` when it is not that."""
    host, port = split_host_port(listen)
    number = whole_number(port, MAX_PORT)
    if not host or number is None:
        raise ValueError("An address is host:port.")
    check_host(host)
    return host, number


def check_networks(text: str) -> None:
    """Check addresses and networks with commas between them."""
    for part in listed(text):
        try:
            ipaddress.ip_network(part, strict=False)
        except ValueError as error:
            raise ValueError("An entry is neither an address nor a network.") from error


def check_token(token: str) -> None:
    """Check an admin token: it is sent in a header, and guesses of it have to be hopeless."""
    if len(token) < MIN_TOKEN_CHARACTERS:
        raise ValueError("The token has too few characters.")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("The token has a blank, a control character or one that is not ASCII.")


def check_database_url(url: str) -> None:
    """Check the URL of a Postgres database. It may name several servers, and none for the local one."""
    parts = _parts(url, _POSTGRES)
    hosts = _servers(parts.netloc.rpartition("@")[2].split(","))
    given = _parameters(parts.query)
    if "host" in given:
        hosts = _servers(given["host"].split(","))
    if "port" in given:
        ports = given["port"].split(",")
        if len(ports) not in (1, hosts):
            raise ValueError("There are not as many ports as servers.")
        _check_ports(ports)
    for name, words in _WORDS.items():
        if given.get(name, words[0]) not in words:
            raise ValueError(f"{name} is one of {', '.join(words)}.")


def check_redis_url(url: str) -> None:
    """Check the URL of a Redis server: `redis://host:6379/0`, `rediss://host` or `unix:///path`."""
    parts = _parts(url, _REDIS)
    given = _parameters(parts.query)
    if not given.keys() <= {"db", *(_REDIS_TLS if parts.scheme == "rediss" else ())}:
        raise ValueError("The client of Redis knows no such parameter.")
    if "db" in given and whole_number(given["db"], _MAX_REDIS_DATABASE) is None:
        raise ValueError("db is the number of a database.")
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("A socket has a path.")
        return
    if not parts.hostname:
        raise ValueError("A server has a host.")
    check_host(parts.hostname)
    if parts.port == 0:
        raise ValueError("0 is no port.")
    database = parts.path.strip("/")
    if database and whole_number(database, _MAX_REDIS_DATABASE) is None:
        raise ValueError("The path is the number of a database.")


def _parts(url: str, schemes: tuple[str, ...]) -> SplitResult:
    if not url.isprintable():
        raise ValueError("The URL has a control character.")
    # Schemes are compared as they are written, as the libraries do.
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(f"The URL does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}.")
    try:
        parts = urlsplit(url)
        if "," not in parts.netloc:
            # Raises for a port that is no number.
            _ = parts.port
    except ValueError as error:
        # The text of the library repeats a part of the URL.
        raise ValueError("The host or the port in the URL is malformed.") from error
    return parts


def _parameters(query: str) -> dict[str, str]:
    """Return the parameters of a URL, the last one of each name."""
    try:
        return dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError as error:
        raise ValueError("The parameters after the ? are name=value with & between them.") from error


def _servers(hosts: list[str]) -> int:
    """Check `host` or `host:port` each, and return how many there are."""
    for text in map(unquote, hosts):
        if not text or text.startswith("/"):
            continue
        ends = ("", "") if text.endswith("]") or ":" not in text else split_host_port(text)
        host = ends[0] or text.removeprefix("[").removesuffix("]")
        check_host(host)
        if ends[1]:
            _check_ports([ends[1]])
    return len(hosts)


def _check_ports(ports: Iterable[str]) -> None:
    for port in ports:
        if not whole_number(port, MAX_PORT):
            raise ValueError("A port is a number from 1 to 65535.")
