"""Settings of a daemon: config.toml (docs/spec/daemon.md, Configuration).

Each field of `DaemonSettings` is a key of the file, with its rule, its default and its sentence for
docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from claudemesh.home.fleet import share_in
from claudemesh.protocol.features import KEY_EPOCH, OPTIONAL, REQUIRED
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.settings.document import Document, read_own_document
from claudemesh.runtime.settings.keys import differing, setting, table_of
from claudemesh.runtime.settings.merge import Merged, file_layer, merge
from claudemesh.runtime.settings.rules import (
    ListOf,
    Number,
    OneOf,
    Text,
    WordsByName,
    YesNo,
    holding,
    some_of,
)
from claudemesh.runtime.tracing.endpoint import check_endpoint

INVALID = "invalid_config"
# Messages of a member may wake a session, are seen at its next turn, or are in the inbox of the host alone.
Trust: TypeAlias = Literal["wake", "inbox", "mute"]
_LONGEST_HOURS = 24 * 3660
_MOST_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """The settings of a daemon."""

    log_level: str = setting(
        OneOf(("debug", "info", "warning", "error")),
        "Lowest level of events that are logged.",
        section="daemon",
        default="info",
        reload=True,
    )
    tcp_enabled: bool | None = setting(
        YesNo(),
        "Also serve the API on loopback TCP. Each request needs the bearer token in `local_token`.",
        section="ipc",
        default=None,
        default_text="true on a machine of its own; false in a container, in Kubernetes and in CI",
    )
    http_port: int = setting(
        Number(0, 65_535),
        "TCP port of the API. 0 takes the port of the last start, or a free one. The file `http.port` holds "
        "the port in use.",
        section="ipc",
        default=0,
    )
    http_bind: str = setting(
        OneOf(("127.0.0.1", "::1")),
        "Loopback address of the API.",
        section="ipc",
        default="127.0.0.1",
    )
    old_token_s: int = setting(
        Number(0, 3_600),
        "Seconds for which the token before a rotation still works.",
        section="ipc",
        default=60,
        reload=True,
    )
    allowed_origins: tuple[str, ...] = setting(
        ListOf(),
        "Origins of web pages that may use the API, such as `https://host:port`.",
        section="ipc",
        default=(),
        reload=True,
    )
    public_health_check: bool = setting(
        YesNo(),
        "Serve `GET /v1/health` on TCP without a token.",
        section="ipc",
        default=False,
        reload=True,
    )
    max_queue_bytes: int = setting(
        Number(1 << 20, _MOST_BYTES),
        "Upper bound of unsent messages in the outbox, in bytes. Above it a new send gets 507.",
        section="outbox",
        default=1 << 30,
        reload=True,
    )
    max_age_hours_default: int = setting(
        Number(1, _LONGEST_HOURS),
        "Age in hours at which a send fails, when the broker keeps dedupe rows for ever.",
        section="outbox",
        default=168,
        reload=True,
    )
    max_age_hours_cap: int = setting(
        Number(1, _LONGEST_HOURS),
        "Upper bound of `max_age_hours_default`.",
        section="outbox",
        default=720,
        reload=True,
    )
    max_age_hours_override: int | None = setting(
        Number(1, _LONGEST_HOURS),
        "Age in hours at which a send fails, instead of the one that follows from the broker's "
        "dedupe window. At most that window less a day.",
        section="outbox",
        default=None,
        default_text="follows from the broker's window",
        reload=True,
    )
    spool_bytes: int = setting(
        Number(1 << 20, _MOST_BYTES),
        "Upper bound of the encrypted copies of files that are on their way, in bytes. Above it a new file "
        "gets 507.",
        section="files",
        default=2 << 30,
        reload=True,
    )
    inbox_retention_days: int = setting(
        Number(1, 3_660),
        "Days for which received messages are kept, read or unread. Only time that this host has "
        "lived through counts.",
        section="inbox",
        name="retention_days",
        default=30,
        reload=True,
    )
    deliver_host_messages: str = setting(
        OneOf(("one", "all", "none")),
        "Sessions that a message for the host is listed for: one of them, all, or none.",
        section="sessions",
        default="one",
        reload=True,
    )
    publish_sessions: bool = setting(
        YesNo(),
        "Tell other members the names, clients, states and reach of this host's sessions.",
        section="sessions",
        name="publish",
        default=True,
        reload=True,
    )
    session_trust: Mapping[str, Trust] = setting(
        WordsByName(get_args(Trust)),
        "Trust in members by name: their messages may wake a session (`wake`), are seen at its next turn "
        "(`inbox`), or are seen in the inbox of the host alone (`mute`).",
        section="sessions",
        name="trust",
        factory=dict,
        default_text="`wake` for members, `inbox` for ephemeral ones",
        reload=True,
    )
    initial_backoff_ms: int = setting(
        Number(10, 60_000),
        "First delay after a failure.",
        section="reconnect",
        default=500,
        reload=True,
    )
    max_backoff_ms: int = setting(
        Number(100, 3_600_000),
        "Upper bound of the delay.",
        section="reconnect",
        default=30_000,
        reload=True,
    )
    backoff_multiplier: float = setting(
        Number(1, 10, whole=False),
        "Factor by which the delay grows after each failure.",
        section="reconnect",
        name="multiplier",
        default=2.0,
        reload=True,
    )
    backoff_jitter_pct: int = setting(
        Number(0, 100),
        "Random deviation of each delay in percent, so that hosts do not retry in step.",
        section="reconnect",
        name="jitter_pct",
        default=25,
        reload=True,
    )
    hooks_enabled: bool | None = setting(
        YesNo(),
        "Run the hooks of `hooks/hooks.toml`.",
        section="hooks",
        name="enabled",
        default=None,
        default_text="true; false in CI",
        reload=True,
    )
    hooks_concurrency: int = setting(
        Number(1, 64),
        "Number of hooks that run at a time. As many `pre-send` hooks run besides.",
        section="hooks",
        name="concurrency",
        default=8,
    )
    hooks_default_timeout_s: float = setting(
        Number(0.1, 3_600, whole=False),
        "Time limit of a hook in seconds, when its entry has no `timeout_s`.",
        section="hooks",
        name="default_timeout_s",
        default=30,
        reload=True,
    )
    reserved_bytes: int | None = setting(
        Number(1 << 20, _MOST_BYTES),
        "Disk budget of this daemon in bytes. At 80 % it warns, at 95 % a new send gets 507.",
        section="disk",
        default=None,
        default_text="the whole file system",
        reload=True,
    )
    clone_policy: str = setting(
        OneOf(("refuse", "warn", "allow")),
        "Start on another host than the one to which the files belong: refuse it, warn, or allow it.",
        section="clone",
        name="policy",
        default="refuse",
    )
    clone_id_override: str | None = setting(
        Text("a text of 1 to 256 characters", holding(lambda text: 0 < len(text) <= 256)),
        "Id of this host, instead of its machine id and MAC address.",
        section="clone",
        name="id_override",
        default=None,
        default_text="machine id and MAC address",
    )
    key_grace_period_days: int = setting(
        Number(0, 30),
        "Days for which a rotated-out key still opens messages. Only time that this host has lived "
        "through counts. At most 8 keys are kept.",
        section="crypto",
        default=7,
        reload=True,
    )
    features_require: tuple[str, ...] = setting(
        some_of(REQUIRED + OPTIONAL),
        "Features that the broker must have, besides those that a daemon always needs.",
        section="features",
        name="require",
        default=(),
    )
    features_optional: tuple[str, ...] = setting(
        # key_epoch was optional before it was required.
        some_of((*OPTIONAL, KEY_EPOCH)),
        "Features that are used when the broker has them.",
        section="features",
        name="optional",
        default=OPTIONAL,
    )
    prometheus_enabled: bool = setting(
        YesNo(),
        "Serve `GET /v1/metrics`.",
        section="metrics",
        default=True,
        reload=True,
    )
    otel_endpoint: str | None = setting(
        Text("a URL such as http://127.0.0.1:4318", check_endpoint),
        "Collector of traces (OTLP/HTTP in JSON). Spans are made of sends with a sampled `traceparent`.",
        section="metrics",
        default=None,
        default_text="none",
    )

    @property
    def required_features(self) -> tuple[str, ...]:
        """The features that a broker must have: those that every daemon needs, and the configured ones."""
        return (*REQUIRED, *(name for name in self.features_require if name not in REQUIRED))

    @property
    def backoff(self) -> Backoff:
        """Return the backoff for reconnecting and for retrying rows."""
        return Backoff(
            self.initial_backoff_ms / 1000,
            self.max_backoff_ms / 1000,
            self.backoff_multiplier,
            self.backoff_jitter_pct / 100,
        )


TABLE = table_of("config.toml", DaemonSettings)


def load_settings(path: Path) -> DaemonSettings:
    """Read config.toml; without it the defaults apply. Raise `ExitWith` 78, which names the key and the
    allowed values."""
    return DaemonSettings(**merge_settings(read_own_document(path, INVALID)).require(INVALID))


def load_settings_in_fleet(home: Path, path: Path) -> DaemonSettings:
    """Read config.toml, with the disk budget at most the share that fleet.toml gives to each daemon."""
    settings, share = load_settings(path), share_in(home)
    if share.disk_bytes is None:
        return settings
    return replace(
        settings, reserved_bytes=min(settings.reserved_bytes or share.disk_bytes, share.disk_bytes)
    )


def merge_settings(document: Document | None) -> Merged:
    """Return the settings of a config.toml with the origin of each, and all faults."""
    layer, faults = file_layer(TABLE, document)
    return merge(TABLE, layer, faults=faults)


def readable_document(path: Path) -> Document | None:
    """Return config.toml, None for a file that is missing or cannot be read as TOML."""
    try:
        return read_own_document(path, INVALID)
    except ExitWith:
        return None


def origins_in_force(settings: DaemonSettings, document: Document | None) -> dict[str, dict[str, str | None]]:
    """Return by section and key where each value in force comes from: a line of config.toml, or `default`.

    None: the file, as it is now, gives another value. A reload or a restart applies that one.
    """
    given = merge_settings(document).given
    found: dict[str, dict[str, str | None]] = {section: {} for section in TABLE.sections}
    for key in TABLE.keys:
        of_file = given[key.field]
        is_in_force = of_file.value == getattr(settings, key.field)
        found[key.section][key.name] = str(of_file.origin) if is_in_force else None
    return found


def in_force(old: DaemonSettings, wanted: DaemonSettings) -> DaemonSettings:
    """Return the settings after a reload: a key that needs a restart keeps its old value."""
    return replace(old, **{key.field: getattr(wanted, key.field) for key in TABLE.keys if key.reload})


def changed_keys(old: DaemonSettings, new: DaemonSettings) -> list[str]:
    """Return the keys whose values differ, such as `[ipc] http_port`."""
    return [key.label for key in differing(TABLE, old, new)]


def values_by_section(settings: DaemonSettings) -> dict[str, dict[str, Any]]:
    """Return the values by section and key, as the file has them."""
    found: dict[str, dict[str, Any]] = {section: {} for section in TABLE.sections}
    for key in TABLE.keys:
        found[key.section][key.name] = getattr(settings, key.field)
    return found
