"""Broker settings: flag > environment > `broker.toml` > default (docs/spec/broker.md, Operation)."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from claudemesh.protocol.features import MAX_PARAMETER
from claudemesh.protocol.wire import (
    DEFAULT_BLOB_BYTES,
    DEFAULT_INLINE_BYTES,
    HANDSHAKE_FRAME_BYTES,
    MIN_PAYLOAD_BYTES,
)
from claudemesh.runtime.digits import whole_number
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.urls import audience_of, split_host_port

ENV_PREFIX = "CLAUDEMESH_BROKER_"
DEFAULT_LISTEN = "127.0.0.1:7900"
_MAX_PORT = 65_535
_DATABASE_SCHEMES = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of a broker. Seconds end in `_s`; what happens at a bound stands beside it."""

    handshake_s: float = 5.0  # then the connection is closed with 4000
    hello_bytes: int = HANDSHAKE_FRAME_BYTES  # a longer frame before hello_ack closes with 1009
    connections: int = 10_000  # authenticated ones; one more is answered 503 before the upgrade
    strangers: int = 512  # connections that are not authenticated, HTTP too; one more ends the oldest
    strangers_per_address: int = 128  # likewise; an IPv6 network of 64 bits is one address
    connections_per_member: int = 16  # under allow_concurrent; one more is closed with 4004
    pending_sends: int = 1024  # per connection; then the broker stops reading from it
    pending_bytes: int = 8 << 20  # likewise, in characters of their frames
    pending_acks: int = 4096  # delivery ids per connection; then the broker stops reading from it
    window: int = 256  # unacknowledged deliveries per connection; the rest waits in the store
    outgoing_frames: int = 8192  # per connection; one more closes it with 4005
    outgoing_bytes: int = 16 << 20  # likewise
    stall_s: float = 30.0  # a socket that takes nothing for so long is closed with 4005
    close_grace_s: float = 5.0  # a close frame that cannot leave for so long is not waited for
    body_bytes: int = 65_536  # of an HTTP request; 413
    status_ids: int = 256  # client_message_ids in one send_status call
    list_items: int = 256  # entries in one page of a list; the rest follows on the next ones
    list_bytes: int = 65_536  # of the entries in one page; one at least
    told_bytes: int = 32 << 20  # of one change of a list on its way to all connections; the next waits
    lease_s: float = 60.0  # presence; renewed three times as often
    sweep_s: float = 2.0  # several brokers: how long a missed wake-up, revocation or death stays unnoticed
    retry_s: float = 1.0  # between attempts to read from a store that does not answer


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """A broker's settings. `listen` is `host:port`, port 0 takes a free one.

    Without a `database_url` the broker is embedded: SQLite in the data dir.
    """

    listen: str = DEFAULT_LISTEN
    data_dir: Path = field(default_factory=lambda: default_data_dir(os.environ))
    database_url: str | None = field(default=None, repr=False)  # it may hold a password
    allow_unsafe_postgres: bool = False
    redis_url: str | None = field(default=None, repr=False)  # likewise
    public_url: tuple[str, ...] = ()
    admin_token: str | None = field(default=None, repr=False)
    tls_cert: str | None = None
    tls_key: str | None = None
    inline_bytes: int = DEFAULT_INLINE_BYTES
    blob_bytes: int = DEFAULT_BLOB_BYTES
    trusted_proxies: str = ""  # addresses and networks, with commas between them
    log_level: str = "info"
    limits: Limits = field(default_factory=Limits)

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port of `listen`."""
        return split_listen(self.listen)

    @property
    def proxies(self) -> tuple[str, ...]:
        """Return the proxies that tell in X-Forwarded-For for whom they ask."""
        return tuple(filter(None, (part.strip() for part in self.trusted_proxies.split(","))))


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Return `$CLAUDEMESH_HOME/broker`, by default `~/.claudemesh/broker`."""
    home = environment.get("CLAUDEMESH_HOME")
    return (Path(home) if home else Path.home() / ".claudemesh") / "broker"


def load_settings(
    flags: Mapping[str, object], environment: Mapping[str, str], toml_path: Path | None = None
) -> BrokerSettings:
    """Merge flag > environment > `broker.toml` > default. `ExitWith` 78 names what is wrong and where.

    `flags` holds only what was given (None and () count as not given). Without `toml_path`,
    `broker.toml` in the data dir is read if it is there.
    """
    known = {item.name for item in fields(BrokerSettings)} - {"limits"}
    from_env = {
        name: environment[ENV_PREFIX + name.upper()]
        for name in known
        if ENV_PREFIX + name.upper() in environment
    }
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    data_dir = given.get("data_dir") or from_env.get("data_dir") or default_data_dir(environment)
    source = toml_path or Path(str(data_dir)) / "broker.toml"
    merged = (
        {"data_dir": data_dir} | _read_toml(source, known, required=toml_path is not None) | from_env | given
    )
    return _checked(merged)


def split_listen(listen: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 host stands in brackets. `ExitWith` 78 when it is not that."""
    host, port = split_host_port(listen)
    number = whole_number(port, _MAX_PORT)
    if not host or number is None:
        raise _refused("listen", "must be host:port, for example 127.0.0.1:7900")
    return host, number


def _read_toml(path: Path, known: set[str], *, required: bool) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise ExitWith(CONFIGURATION, "invalid_configuration", f"{path} does not exist.") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ExitWith(CONFIGURATION, "invalid_configuration", f"Cannot read {path}: {error}.") from error
    try:
        found = tomllib.loads(text)
    except ValueError as error:  # a number of 5,000 digits is one that the library does not name
        raise ExitWith(CONFIGURATION, "invalid_configuration", f"{path} is not TOML: {error}.") from error
    unknown = sorted(set(found) - known)
    if unknown:
        raise ExitWith(
            CONFIGURATION,
            "invalid_configuration",
            f"{path} has the unknown setting {unknown[0]!r}. Remove it.",
        )
    return found


def _checked(merged: Mapping[str, object]) -> BrokerSettings:
    values: dict[str, object] = {}
    for name, value in merged.items():
        if name in ("inline_bytes", "blob_bytes"):
            values[name] = _whole_number(name, value)
        elif name == "allow_unsafe_postgres":
            values[name] = _switch(name, value)
        elif name == "public_url":
            values[name] = _urls(value)
        elif name == "data_dir":
            values[name] = Path(str(value)).expanduser().absolute()
        elif isinstance(value, str):
            values[name] = value
        else:
            raise _refused(name, "must be a string")
    settings = BrokerSettings(**values)  # type: ignore[arg-type]
    split_listen(settings.listen)
    for url in settings.public_url:
        _check_url(url)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise _refused("tls_cert", "is given without --tls-key, or --tls-key without it: give both")
    if settings.database_url is not None and not settings.database_url.startswith(_DATABASE_SCHEMES):
        # Not quoted: there may be a password in it.
        raise _refused("database_url", "must be like postgresql://user@host:5432/database")
    for proxy in settings.proxies:
        if not _is_network(proxy):
            raise _refused("trusted_proxies", "must be addresses or networks such as 10.0.0.5,10.1.0.0/16")
    if settings.log_level.lower() not in ("debug", "info", "warning", "error"):
        raise _refused("log_level", "must be debug, info, warning or error")
    return settings


def _whole_number(name: str, value: object) -> int:
    if isinstance(value, str):
        value = whole_number(value, MAX_PARAMETER)
    if type(value) is not int or not MIN_PAYLOAD_BYTES <= value <= MAX_PARAMETER:
        raise _refused(name, f"must be a whole number of bytes, at least {MIN_PAYLOAD_BYTES}")
    return value


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _urls(value: object) -> tuple[str, ...]:
    """Return URLs from a flag that is repeated, a list, or a text with commas between them."""
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(url, str) for url in found):
        raise _refused("public_url", "must be a URL such as wss://mesh.example.org, or a list of them")
    return tuple(url.strip() for url in found if url.strip())


def _check_url(url: str) -> None:
    try:
        audience_of(url)
    except ValueError:
        raise _refused("public_url", "must be a URL such as wss://mesh.example.org") from None


def _switch(name: str, value: object) -> bool:
    if isinstance(value, str):
        value = {"true": True, "1": True, "false": False, "0": False}.get(value.lower())
    if not isinstance(value, bool):
        raise _refused(name, "must be true or false")
    return value


def _refused(name: str, what: str) -> ExitWith:
    flag = "--" + name.replace("_", "-")
    return ExitWith(CONFIGURATION, "invalid_configuration", f"{flag} ({ENV_PREFIX}{name.upper()}) {what}.")
