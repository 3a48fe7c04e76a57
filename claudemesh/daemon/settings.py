"""config.toml: what a user may set, checked key by key (daemon.md, Configuration)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import UnsafeFile, read_own


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """The settings that are in force; the defaults are the specification's."""

    log_level: str = "info"
    allowed_origins: tuple[str, ...] = ()
    max_age_hours_default: int = 168
    max_age_hours_cap: int = 720
    max_age_hours_override: int | None = None
    inbox_retention_days: int = 30
    initial_backoff_ms: int = 500
    max_backoff_ms: int = 30_000
    backoff_multiplier: float = 2.0
    backoff_jitter_pct: int = 25


@dataclass(frozen=True, slots=True)
class _Number:
    low: float
    high: float
    whole: bool = True

    def check(self, value: object) -> Any:
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not self.low <= value <= self.high:
            raise ValueError
        return value

    def allowed(self) -> str:
        return f"a {'whole ' if self.whole else ''}number from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class _OneOf:
    choices: tuple[str, ...]

    def check(self, value: object) -> Any:
        if value not in self.choices:
            raise ValueError
        return value

    def allowed(self) -> str:
        return "one of " + ", ".join(self.choices)


@dataclass(frozen=True, slots=True)
class _Texts:
    def check(self, value: object) -> Any:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError
        return tuple(value)

    def allowed(self) -> str:
        return "a list of strings"


_YEAR_HOURS = 24 * 3660

_KEYS: Mapping[tuple[str, str], tuple[str, _Number | _OneOf | _Texts]] = {
    ("daemon", "log_level"): ("log_level", _OneOf(("debug", "info", "warning", "error"))),
    ("ipc", "allowed_origins"): ("allowed_origins", _Texts()),
    ("outbox", "max_age_hours_default"): ("max_age_hours_default", _Number(1, _YEAR_HOURS)),
    ("outbox", "max_age_hours_cap"): ("max_age_hours_cap", _Number(1, _YEAR_HOURS)),
    ("outbox", "max_age_hours_override"): ("max_age_hours_override", _Number(1, _YEAR_HOURS)),
    ("inbox", "retention_days"): ("inbox_retention_days", _Number(1, 3660)),
    ("reconnect", "initial_backoff_ms"): ("initial_backoff_ms", _Number(10, 60_000)),
    ("reconnect", "max_backoff_ms"): ("max_backoff_ms", _Number(100, 3_600_000)),
    ("reconnect", "multiplier"): ("backoff_multiplier", _Number(1, 10, whole=False)),
    ("reconnect", "jitter_pct"): ("backoff_jitter_pct", _Number(0, 100)),
}


def load_settings(path: Path) -> DaemonSettings:
    """Read config.toml; without one the defaults hold. `ExitWith` 78 names the key and what is allowed."""
    try:
        data = tomllib.loads(read_own(path).decode())
    except FileNotFoundError:
        return DaemonSettings()
    except UnsafeFile as error:
        raise ExitWith(CONFIGURATION, "unsafe_file", str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExitWith(CONFIGURATION, "invalid_config", f"{path} is not TOML: {error}.") from error
    return parse_settings(data, str(path))


def parse_settings(data: Mapping[str, Any], source: str) -> DaemonSettings:
    """Check parsed TOML against the table of keys."""
    chosen: dict[str, Any] = {}
    for section, values in data.items():
        if not isinstance(values, dict):
            raise _wrong(source, section, values, "a [section]")
        for key, value in values.items():
            if (section, key) not in _KEYS:
                known = ", ".join(f"[{known_section}] {known_key}" for known_section, known_key in _KEYS)
                raise _wrong(source, f"[{section}] {key}", value, f"no such key; there are {known}")
            field, rule = _KEYS[section, key]
            try:
                chosen[field] = rule.check(value)
            except ValueError:
                raise _wrong(source, f"[{section}] {key}", value, rule.allowed()) from None
    return replace(DaemonSettings(), **chosen)


def _wrong(source: str, key: str, value: object, allowed: str) -> ExitWith:
    return ExitWith(CONFIGURATION, "invalid_config", f"{source}: {key} = {value!r}: allowed is {allowed}.")
