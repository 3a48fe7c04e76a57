"""Settings of a broker: flag > environment > `broker.toml` > default (docs/spec/broker.md, Operation).

Each field of `BrokerSettings` that is made by `setting` is a key: of the file, of the environment, and with
a `flag` an option of `claudemesh broker up`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claudemesh.broker.setting_checks import (
    MIN_TOKEN_CHARACTERS,
    check_database_url,
    check_networks,
    check_redis_url,
    check_token,
    split_listen,
)
from claudemesh.broker.store.deadlines import DEADLINES, DatabaseDeadlines
from claudemesh.broker.tls import server_tls
from claudemesh.protocol.features import MAX_PARAMETER
from claudemesh.protocol.wire import (
    DEFAULT_BLOB_BYTES,
    DEFAULT_INLINE_BYTES,
    HANDSHAKE_FRAME_BYTES,
    MAX_INLINE_BYTES,
    MIN_PAYLOAD_BYTES,
)
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.homes import expanded, user_home
from claudemesh.runtime.settings.document import Document, read_document
from claudemesh.runtime.settings.keys import Flag, setting, table_of
from claudemesh.runtime.settings.merge import (
    Fault,
    Given,
    Layer,
    Merged,
    Source,
    environment_layer,
    file_layer,
    flag_layer,
    merge,
    plain,
)
from claudemesh.runtime.settings.rules import ListOf, Number, OneOf, Text, YesNo, holding, listed
from claudemesh.runtime.tracing.endpoint import check_endpoint
from claudemesh.runtime.urls import check_broker_url

INVALID = "invalid_configuration"
ENV_PREFIX = "CLAUDEMESH_BROKER_"
DEFAULT_LISTEN = "127.0.0.1:7900"
# The places of the address, for the error of a start that cannot listen.
LISTEN_SETTINGS = "--listen of `broker up`, CLAUDEMESH_BROKER_LISTEN, or listen in broker.toml"


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of a broker. Seconds end in `_s`; what happens at a bound stands beside it."""

    handshake_s: float = 5.0  # then the connection is closed with 4000
    sign_in_s: float = 10.0  # likewise, below the handshake: the connection is cut without a close frame
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
    stall_s: float = 30.0  # a socket without progress for this time is closed with 4005
    acks_s: float = 5.0  # a stop waits so long for acknowledgements of what was delivered
    close_grace_s: float = 5.0  # after this time a close frame that cannot be sent is given up
    head_s: float = 10.0  # an HTTP head that takes longer ends its connection
    body_s: float = 30.0  # likewise a body
    unread_s: float = 30.0  # a stranger that does not read its answer for this time is closed
    body_bytes: int = 65_536  # of an HTTP request; 413
    status_ids: int = 256  # client_message_ids in one send_status call
    transfers: int = 64  # requests that carry bytes of blobs; one more is answered 503
    member_transfers: int = 8  # likewise, of one member
    blob_uploads: int = 32  # unfinished uploads of a member; 429
    blobs: int = 10_000  # of a member; 429
    blob_floor: int = 65_536  # bytes of a blob that a client sends in body_s; less ends its connection
    list_items: int = 256  # entries in one page of a list; the rest follows on the next ones
    list_bytes: int = 65_536  # of the entries in one page; one at least
    history_items: int = 500  # messages in one page of the history
    history_bytes: int = 1 << 20  # of their envelopes; one message at least
    told_bytes: int = 32 << 20  # of one change of a list on its way to all connections; the next waits
    lease_s: float = 60.0  # presence; renewed three times as often
    presence_s: float = 0.001  # for each connected member, between two presence events; 0.05 to 5 s in all
    sweep_s: float = 2.0  # several brokers: how long a missed wake-up, revocation or death stays unnoticed
    answering_s: float = 5.0  # an unreachable database that answers pings counts as reachable after this time
    database: DatabaseDeadlines = DEADLINES  # of Postgres
    redis_s: float = 0.5  # Redis is away when it does not answer in this time; every send is allowed then
    key_answer_s: float = (
        5.0  # a topic key that no holder has passed on in this time is asked for from others
    )
    key_epochs_an_hour: int = 120  # of topics, made by one member; one more is too_many_epochs
    profile_s: float = 1.0  # between two changes of a member's profile; those in between share the next one
    key_rotations_a_day: int = 24  # of one member's keys; one more is too_many_rotations
    retry_s: float = 1.0  # between attempts to read from a store that does not answer


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Return `$CLAUDEMESH_HOME/broker`, by default `~/.claudemesh/broker`."""
    home = environment.get("CLAUDEMESH_HOME")
    return (Path(home) if home else user_home() / ".claudemesh") / "broker"


class DirectoryPath(Text):
    """The path of a directory; `~` is the user's home, and a relative path becomes absolute."""

    def check(self, value: object) -> Path:
        """Return the absolute path."""
        return expanded(Path(super().check(str(value) if isinstance(value, Path) else value))).absolute()


class Urls(ListOf):
    """URLs of the broker, without the blanks around them."""

    def check(self, value: object) -> Any:
        """Return the URLs as a tuple."""
        stripped = [item.strip() if isinstance(item, str) else item for item in _items(value)]
        return super().check([item for item in stripped if item != ""])


def _items(value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return list(value)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The settings of a broker.

    Without a `database_url` the broker is embedded: SQLite in the data dir.
    """

    listen: str = setting(
        Text("host:port, for example 127.0.0.1:7900", split_listen),
        "Address to listen at. Port 0 takes a free port.",
        default=DEFAULT_LISTEN,
        flag=Flag("HOST:PORT"),
    )
    data_dir: Path = setting(  # noqa: RUF009 - it returns a field
        DirectoryPath("the path of a directory", holding(bool)),
        "Data directory: lock, id, admin token and `broker.toml`; also the data, without `database_url`.",
        factory=lambda: default_data_dir(os.environ),
        default_text="`~/.claudemesh/broker`",
        flag=Flag("DIR"),
    )
    database_url: str | None = setting(
        Text("a URL such as postgresql://user@host:5432/database", check_database_url),
        "Postgres database (14 or newer) for the data, instead of SQLite in the data directory.",
        default=None,
        default_text="none",
        secret=True,  # it may hold a password
        flag=Flag("URL"),
    )
    allow_unsafe_postgres: bool = setting(
        YesNo(),
        "Start although the Postgres server may lose acknowledged messages.",
        default=False,
        flag=Flag(),
    )
    redis_url: str | None = setting(
        Text("a URL such as redis://host:6379/0, rediss://host or unix:///path", check_redis_url),
        "Redis or Valkey for rate limits that several brokers share. While it is away no send is limited.",
        default=None,
        default_text="none",
        secret=True,  # likewise
        flag=Flag("URL"),
    )
    public_url: tuple[str, ...] = setting(
        Urls(
            "a URL that begins with wss:// or ws://, such as wss://mesh.example.org, or a list of them",
            check_broker_url,
        ),
        "Address at which daemons dial this broker, besides those it listens at.",
        default=(),
        flag=Flag("URL", repeated=True),
    )
    admin_token: str | None = setting(
        Text(
            f"a text of at least {MIN_TOKEN_CHARACTERS} ASCII characters without blanks",
            check_token,
        ),
        "Token of the admin API.",
        default=None,
        default_text="made at the first start",
        secret=True,
    )
    console: bool = setting(
        YesNo(),
        "Page for operators at `/console`, behind the admin token. `--no-console` turns it off.",
        default=True,
        flag=Flag(),
    )
    trusted_proxies: str = setting(
        Text("addresses or networks such as 10.0.0.5,10.1.0.0/16", check_networks),
        "Proxies (addresses or networks) whose `X-Forwarded-For` is used.",
        default="",
        flag=Flag("LIST"),
    )
    tls_cert: str | None = setting(
        Text("the path of a file"),
        "Certificate chain (PEM). Serves `wss://` and `https://`. Needs `tls_key`.",
        default=None,
        default_text="none",
        flag=Flag("FILE"),
    )
    tls_key: str | None = setting(
        Text("the path of a file"),
        "Private key of the certificate (PEM). Needs `tls_cert`.",
        default=None,
        default_text="none",
        flag=Flag("FILE"),
    )
    inline_bytes: int = setting(
        Number(MIN_PAYLOAD_BYTES, MAX_INLINE_BYTES),
        "Largest sealed body of a message, in bytes.",
        default=DEFAULT_INLINE_BYTES,
    )
    blob_bytes: int = setting(
        Number(MIN_PAYLOAD_BYTES, MAX_PARAMETER), "Largest file, in bytes.", default=DEFAULT_BLOB_BYTES
    )
    blob_quota_bytes: int = setting(
        Number(MIN_PAYLOAD_BYTES, 2**60),
        "Bytes of files that each mesh may store, unfinished uploads included. A member may use a fifth.",
        default=10 << 30,
    )
    topic_key_max_age_days: int = setting(
        Number(1, 36_500),
        "Age in days, by the lived clock, after which the next key of a topic is asked for.",
        default=90,
    )
    log_level: str = setting(
        OneOf(("debug", "info", "warning", "error"), any_case=True),
        "Lowest level of events that are logged.",
        default="info",
        flag=Flag("LEVEL"),
    )
    otel_endpoint: str | None = setting(
        Text("a URL such as http://127.0.0.1:4318", check_endpoint),
        "Collector of traces (OTLP/HTTP in JSON). Spans have counts, and neither content nor names.",
        default=None,
        default_text="none",
    )
    limits: Limits = field(default_factory=Limits)

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port of `listen`."""
        return split_listen(self.listen)

    @property
    def proxies(self) -> tuple[str, ...]:
        """Return the proxies whose X-Forwarded-For names the client."""
        return tuple(listed(self.trusted_proxies))


TABLE = table_of("broker.toml", BrokerSettings, variables=ENV_PREFIX, words_in_file=True)


def load_settings(
    flags: Mapping[str, object], environment: Mapping[str, str], toml_path: Path | None = None
) -> BrokerSettings:
    """Merge flag > environment > `broker.toml` > default. `ExitWith` 78 names what is wrong and where.

    `flags` holds only what was given (None and () count as not given). Without `toml_path`,
    `broker.toml` in the data dir is read if it is there.
    """
    return BrokerSettings(**read_settings(flags, environment, toml_path).require(INVALID))


def read_settings(
    flags: Mapping[str, object], environment: Mapping[str, str], toml_path: Path | None = None
) -> Merged:
    """Return the settings with the origin of each, and all faults. `ExitWith` 78 for an unreadable file."""
    given = (flag_layer(TABLE, flags), environment_layer(TABLE, environment))
    # The file may be a link, and may belong to another user: it may be mounted into a container.
    document = read_document(toml_path or settings_file(flags, environment), INVALID)
    if document is None and toml_path is not None:
        raise ExitWith(CONFIGURATION, INVALID, f"{toml_path} does not exist.")
    merged = merge_settings(given, document, environment)
    return Merged(merged.given, (*merged.faults, *_certificate_faults(merged)))


def readable(settings: BrokerSettings) -> dict[str, Any]:
    """Return the settings that hold no secret, by their keys, in JSON form."""
    return {key.label: plain(getattr(settings, key.field)) for key in TABLE.keys if not key.secret}


def settings_file(flags: Mapping[str, object], environment: Mapping[str, str]) -> Path:
    """Return the path of `broker.toml`: in the data directory of the flags or the environment."""
    data_dir = flags.get("data_dir") or environment.get(f"{ENV_PREFIX}DATA_DIR")
    return expanded(Path(str(data_dir or default_data_dir(environment)))) / TABLE.file


def merge_settings(
    given: tuple[Layer, ...], document: Document | None, environment: Mapping[str, str]
) -> Merged:
    """Merge layers of flags and environment with a file, and check what concerns several keys."""
    layer, faults = file_layer(TABLE, document)
    merged = merge(TABLE, *given, layer, faults=faults)
    values = dict(merged.given)
    if values["data_dir"].origin.source is Source.DEFAULT:
        data_dir = expanded(default_data_dir(environment)).absolute()
        values["data_dir"] = Given(data_dir, values["data_dir"].origin)
    return Merged(values, (*merged.faults, *_tls_faults(values)))


def _tls_faults(values: Layer) -> list[Fault]:
    """Return the fault of a certificate without its key, or a key without its certificate."""
    pair = ("tls_cert", "tls_key")
    given = [name for name in pair if values[name].value is not None]
    if len(given) != 1:
        return []
    name, origin = given[0], values[given[0]].origin
    missing = next(other for other in pair if other != name)
    key = TABLE.by_field[missing]
    remedy = f"give {missing} too ({key.option}, {TABLE.variable(key)})"
    return [Fault(origin, name, f"{name} is given without {missing}: {remedy}.")]


def _certificate_faults(merged: Merged) -> list[Fault]:
    """Return the fault of a certificate that cannot be used on this machine."""
    cert, key = merged.given["tls_cert"], merged.given["tls_key"]
    if cert.value is None or key.value is None:
        return []
    try:
        server_tls(cert.value, key.value)
    except ValueError as error:
        return [Fault(cert.origin, "tls_cert", str(error))]
    return []
