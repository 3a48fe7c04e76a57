"""JSON of the local API about the daemon itself: settings, health, versions, own member."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from claudemesh.daemon.api.schemas import Moment


class Config(Struct):
    """The last accepted reload, the error of the last refused one, and the keys that need a restart."""

    loaded_at: Moment
    error: str | None
    needs_restart: list[str]
    reloads: int


class ConfigInForce(Config):
    """The outcome of the last reloads, and the settings in force by section and key."""

    settings: dict[str, dict[str, Any]]


class Stopping(Struct):
    """The daemon stops: it accepts no more sends, and every accepted one is on disk."""

    status: Literal["stopping"]


class DegradedBy(Struct):
    """A condition that holds: a stable code, its start, and a sentence with effect, reason and remedy."""

    code: str
    since: Moment
    message: str


class SealedCount(Struct):
    """Messages without a text: those `waiting` for a key, the first since `since`, and `unreadable` ones.

    The key of the latter is here, and their body does not open under it.
    """

    waiting: int
    since: Moment | None
    unreadable: int


class Health(Struct):
    """The state of this daemon; `degraded` lists the conditions that hold, and is empty when all works.

    `unread` is the number of messages that are not acknowledged; it counts no further than 10,000. `sealed`
    is about the messages whose text this host cannot read. `files_waiting` is the number of files and
    long texts of this host that their recipients cannot fetch yet. `console_url` is the address of the
    console, null while the loopback is closed.
    """

    connected: bool
    lag_ms: int | None
    queue_depth: int
    inflight: int
    dead: int
    mesh: str
    name: str
    member_id: str
    member_pubkey: str
    uptime_s: int
    schema_version: int
    daemon_version: str
    broker_version: str | None
    broker_url: str
    last_error: str | None
    degraded: list[DegradedBy]
    config: Config
    pid: int
    with_broker: bool
    clock_offset_ms: int | None
    unread: int
    sealed: SealedCount
    files_waiting: int
    console_url: str | None


class BrokerVersion(Struct):
    """Version of the broker, null before the first handshake, and the parameters of its features by name."""

    version: str | None
    features: dict[str, Any]


class Version(Struct):
    """Versions of this daemon and its broker, the routes that this daemon serves, and its membership."""

    daemon_version: str
    ipc_api: str
    ipc_features: list[str]
    schema_version: int
    broker: BrokerVersion
    mesh: str
    name: str
    member_id: str


class Whoami(Struct):
    """The member that this daemon is, its host, and its link to the broker."""

    name: str
    mesh: str
    mesh_id: str
    member_id: str
    member_pubkey: str
    role: str
    host: str
    broker_url: str
    connected: bool


class CompatibleSdks(Struct):
    """Versions of the SDKs, by language."""

    python: str
    typescript: str
    go: str


class Compat(Struct):
    """Versions of other programs that this daemon works with, and the features that it requires of a broker.

    A range of versions is written as packages write it: `>=0.1.0,<1`.
    """

    daemon: str
    protocol_versions: list[int]
    compatible_brokers: str
    required_broker_features: list[str]
    optional_broker_features: list[str]
    compatible_clis: str
    compatible_sdks: CompatibleSdks


class Heartbeat(Struct):
    """The daemon answers; `now` is its time."""

    status: Literal["ok"]
    now: Moment
