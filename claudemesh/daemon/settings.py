"""config.toml: what a user may set, checked key by key (docs/spec/daemon.md, Configuration).

One table says everything about a key: where it stands, what it takes, what it is for, and whether a
reload is enough. docs/configuration.md is made of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from claudemesh.protocol.features import OPTIONAL, REQUIRED
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import UnsafeFile, read_own
from claudemesh.runtime.oserrors import cannot


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """The settings that are in force; the defaults are the specification's."""

    log_level: str = "info"
    tcp_enabled: bool | None = None
    http_port: int = 0
    http_bind: str = "127.0.0.1"
    allowed_origins: tuple[str, ...] = ()
    public_health_check: bool = False
    max_queue_bytes: int = 1 << 30
    max_age_hours_default: int = 168
    max_age_hours_cap: int = 720
    max_age_hours_override: int | None = None
    inbox_retention_days: int = 30
    initial_backoff_ms: int = 500
    max_backoff_ms: int = 30_000
    backoff_multiplier: float = 2.0
    backoff_jitter_pct: int = 25
    hooks_enabled: bool | None = None
    hooks_concurrency: int = 8
    hooks_default_timeout_s: float = 30
    reserved_bytes: int | None = None
    features_require: tuple[str, ...] = ()
    features_optional: tuple[str, ...] = OPTIONAL
    prometheus_enabled: bool = True

    @property
    def required_features(self) -> tuple[str, ...]:
        """Features without which this daemon does not use a broker: its own needs, and the user's."""
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


class Rule(Protocol):
    """Rule for a value: `check` returns it or raises `ValueError`, `allowed` describes it in words."""

    def check(self, value: object) -> Any: ...
    def allowed(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds."""

    low: float
    high: float
    whole: bool = True

    def check(self, value: object) -> Any:
        """Return the number; a boolean is none."""
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not self.low <= value <= self.high:
            raise ValueError
        return value

    def allowed(self) -> str:
        """Name the bounds."""
        return f"a {'whole ' if self.whole else ''}number from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    choices: tuple[str, ...]

    def check(self, value: object) -> Any:
        """Return the word."""
        if value not in self.choices:
            raise ValueError
        return value

    def allowed(self) -> str:
        """List the words."""
        return "one of " + ", ".join(self.choices)


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of strings."""

    def check(self, value: object) -> Any:
        """Return them as a tuple."""
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError
        return tuple(value)

    def allowed(self) -> str:
        """Say so."""
        return "a list of strings"


@dataclass(frozen=True, slots=True)
class SomeOf:
    """Any of a few words, in a list."""

    choices: tuple[str, ...]

    def check(self, value: object) -> Any:
        """Return them as a tuple."""
        if not isinstance(value, list) or not all(item in self.choices for item in value):
            raise ValueError
        return tuple(value)

    def allowed(self) -> str:
        """List the words."""
        return "a list of any of " + ", ".join(self.choices)


@dataclass(frozen=True, slots=True)
class YesNo:
    """A boolean."""

    def check(self, value: object) -> Any:
        """Return it; 0 and "no" are none."""
        if not isinstance(value, bool):
            raise ValueError
        return value

    def allowed(self) -> str:
        """Name both."""
        return "true or false"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of config.toml. `live`: a reload is enough; otherwise it holds from the next start on."""

    section: str
    name: str
    field: str
    rule: Rule
    text: str
    live: bool = True
    default_text: str = ""


_LONGEST_HOURS = 24 * 3660
_MOST_BYTES = 1 << 50

KEYS: tuple[Key, ...] = (
    Key(
        "daemon",
        "log_level",
        "log_level",
        OneOf(("debug", "info", "warning", "error")),
        "How much the log says.",
    ),
    Key(
        "ipc",
        "tcp_enabled",
        "tcp_enabled",
        YesNo(),
        "Answer on the loopback too, to whoever bears `local_token`.",
        live=False,
        default_text="true on a machine of its own; false in a container, in Kubernetes and in CI",
    ),
    Key(
        "ipc",
        "http_port",
        "http_port",
        Number(0, 65_535),
        "The loopback port; 0 takes a free one. The file `http.port` names it.",
        live=False,
    ),
    Key(
        "ipc",
        "http_bind",
        "http_bind",
        OneOf(("127.0.0.1", "::1")),
        "Which loopback address; no other is ever bound.",
        live=False,
    ),
    Key(
        "ipc",
        "allowed_origins",
        "allowed_origins",
        Texts(),
        "Web pages that may use the API, as `https://host:port`.",
    ),
    Key(
        "ipc",
        "public_health_check",
        "public_health_check",
        YesNo(),
        "Answer `GET /v1/health` on TCP without a token.",
    ),
    Key(
        "outbox",
        "max_queue_bytes",
        "max_queue_bytes",
        Number(1 << 20, _MOST_BYTES),
        "How much may wait to be sent; above it a new send gets 507.",
    ),
    Key(
        "outbox",
        "max_age_hours_default",
        "max_age_hours_default",
        Number(1, _LONGEST_HOURS),
        "How old a send may grow when the broker's dedupe is permanent.",
    ),
    Key(
        "outbox",
        "max_age_hours_cap",
        "max_age_hours_cap",
        Number(1, _LONGEST_HOURS),
        "The most that the key above may give.",
    ),
    Key(
        "outbox",
        "max_age_hours_override",
        "max_age_hours_override",
        Number(1, _LONGEST_HOURS),
        "Instead of what follows from the broker's dedupe window; at most that window less a day.",
        default_text="follows from the broker's window",
    ),
    Key(
        "inbox",
        "retention_days",
        "inbox_retention_days",
        Number(1, 3660),
        "How long received messages are kept, read or unread, in days that this host has lived through.",
    ),
    Key(
        "reconnect",
        "initial_backoff_ms",
        "initial_backoff_ms",
        Number(10, 60_000),
        "The first wait after a failure.",
    ),
    Key(
        "reconnect",
        "max_backoff_ms",
        "max_backoff_ms",
        Number(100, 3_600_000),
        "The longest wait.",
    ),
    Key(
        "reconnect",
        "multiplier",
        "backoff_multiplier",
        Number(1, 10, whole=False),
        "How much longer each wait is than the one before.",
    ),
    Key(
        "reconnect",
        "jitter_pct",
        "backoff_jitter_pct",
        Number(0, 100),
        "How far a wait may stray, so that hosts do not fall into step.",
    ),
    Key(
        "hooks",
        "enabled",
        "hooks_enabled",
        YesNo(),
        "Run the hooks that `hooks/hooks.toml` lists.",
        default_text="true; false in CI",
    ),
    Key(
        "hooks",
        "concurrency",
        "hooks_concurrency",
        Number(1, 64),
        "How many hooks run at a time; `pre-send` has as many places of its own.",
        live=False,
    ),
    Key(
        "hooks",
        "default_timeout_s",
        "hooks_default_timeout_s",
        Number(0.1, 3600, whole=False),
        "How long a hook may take when its entry says nothing.",
    ),
    Key(
        "disk",
        "reserved_bytes",
        "reserved_bytes",
        Number(1 << 20, _MOST_BYTES),
        "How much disk this daemon may use: at 80 % it warns, at 95 % a new send gets 507.",
        default_text="the whole file system",
    ),
    Key(
        "features",
        "require",
        "features_require",
        SomeOf(REQUIRED + OPTIONAL),
        "Features of the broker without which this daemon does not run, beside those that it always needs.",
        live=False,
    ),
    Key(
        "features",
        "optional",
        "features_optional",
        SomeOf(OPTIONAL),
        "Features that are used where the broker has them.",
        live=False,
    ),
    Key(
        "metrics",
        "prometheus_enabled",
        "prometheus_enabled",
        YesNo(),
        "Answer `GET /v1/metrics`.",
    ),
)

_BY_NAME = {(key.section, key.name): key for key in KEYS}


def load_settings(path: Path) -> DaemonSettings:
    """Read config.toml; without one the defaults hold. `ExitWith` 78 names the key and what is allowed."""
    try:
        data = tomllib.loads(read_own(path).decode())
    except FileNotFoundError:
        return DaemonSettings()
    except UnsafeFile as error:
        raise ExitWith(CONFIGURATION, "unsafe_file", str(error)) from error
    except OSError as error:
        raise cannot("read", error, path) from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, a number of 5,000 digits
        raise ExitWith(CONFIGURATION, "invalid_config", f"{path} is not TOML: {error}.") from error
    return parse_settings(data, str(path))


def parse_settings(data: Mapping[str, Any], source: str) -> DaemonSettings:
    """Check parsed TOML against the table of keys."""
    chosen: dict[str, Any] = {}
    for section, values in data.items():
        if not isinstance(values, dict):
            raise _wrong(source, section, values, "a [section]")
        for name, value in values.items():
            key = _BY_NAME.get((section, name))
            if key is None:
                known = ", ".join(f"[{key.section}] {key.name}" for key in KEYS)
                raise _wrong(source, f"[{section}] {name}", value, f"no such key; there are {known}")
            try:
                chosen[key.field] = key.rule.check(value)
            except ValueError:
                raise _wrong(source, f"[{section}] {name}", value, key.rule.allowed()) from None
    return replace(DaemonSettings(), **chosen)


def in_force(old: DaemonSettings, wanted: DaemonSettings) -> DaemonSettings:
    """Return the settings after a reload: a key that needs a restart keeps its old value."""
    return replace(old, **{key.field: getattr(wanted, key.field) for key in KEYS if key.live})


def differing(old: DaemonSettings, new: DaemonSettings) -> list[str]:
    """Return the keys whose values differ."""
    return [
        f"[{key.section}] {key.name}" for key in KEYS if getattr(old, key.field) != getattr(new, key.field)
    ]


def _wrong(source: str, key: str, value: object, allowed: str) -> ExitWith:
    return ExitWith(CONFIGURATION, "invalid_config", f"{source}: {key} = {value!r}: allowed is {allowed}.")
