"""Reload of config.toml in a running daemon, in two phases: every part prepares, then every part commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.settings import DaemonSettings, changed_keys, in_force, load_settings
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.logs import get_logger, set_level
from claudemesh.runtime.oserrors import cannot

log = get_logger("daemon")


class Participant(Protocol):
    """A part of the daemon with settings that a reload may change."""

    def prepare(self, settings: DaemonSettings) -> Callable[[], None]:
        """Check the settings, read the files that belong to them, and return the commit, which cannot fail.

        Raise `ExitWith` or `OSError` to refuse the reload. The part is unchanged then.
        """
        ...


class Reload:
    """Applies config.toml to the settings in force.

    `config.settings` are the settings in force: a key that needs a restart keeps the value of the start.
    """

    def __init__(
        self,
        path: Path,
        config: LiveConfig,
        clock: Clock,
        conditions: Conditions,
        participants: Sequence[Participant],
        load: Callable[[Path], DaemonSettings] = load_settings,
    ) -> None:
        self._path = path
        self._config = config
        self._clock = clock
        self._conditions = conditions
        self._participants = participants
        self._load = load

    def run(self) -> None:
        """Read and apply config.toml. A wrong value changes nothing, and health names it."""
        config, old = self._config, self._config.settings
        config.reloads += 1
        try:
            wanted = self._load(self._path)
            settings = in_force(old, wanted)
            commits = [participant.prepare(settings) for participant in self._participants]
        except (ExitWith, OSError) as problem:
            self._refuse(problem if isinstance(problem, ExitWith) else cannot("reload", problem))
            return
        self._conditions.end("config_refused")
        config.settings = settings
        for commit in commits:
            commit()
        set_level(settings.log_level)
        config.loaded_ms = self._clock.wall_ms()
        config.error = None
        config.needs_restart = changed_keys(settings, wanted)
        log.info("reloaded", changed=changed_keys(old, settings), needs_restart=config.needs_restart)

    def _refuse(self, error: ExitWith) -> None:
        self._config.error = error.message
        log.error("reload_refused", error=error.error, detail=error.message)
        self._conditions.begin(
            "config_refused",
            f"config.toml was not taken over, the settings before it hold: {error.message}",
        )
