"""The settings in force, and the outcome of the last reload of config.toml."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from claudemesh.daemon.settings import DaemonSettings, values_by_section
from claudemesh.runtime.clock import iso_ms


class LiveConfig(Struct):
    """Mutable state that `Reload` writes and others read.

    `settings` are the settings in force: a key that needs a restart keeps the value of the start, and is
    listed in `needs_restart`. `error` is the cause of the last refused reload, None when it was accepted.
    `loaded_ms` is the Unix time of the last accepted one. `reloads` counts all of them.
    """

    settings: DaemonSettings
    loaded_ms: int
    error: str | None = None
    needs_restart: list[str] = field(default_factory=list)
    reloads: int = 0

    def report(self) -> dict[str, Any]:
        """Return the JSON object of `config` in /v1/health and of the reply to /v1/reload."""
        return {
            "loaded_at": iso_ms(self.loaded_ms),
            "error": self.error,
            "needs_restart": self.needs_restart,
            "reloads": self.reloads,
        }

    def values(self) -> dict[str, dict[str, Any]]:
        """Return the settings in force by section and key, for /v1/config."""
        return values_by_section(self.settings)
