"""Reload of config.toml in a running daemon: what may refuse comes first, then all of it is taken over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from claudemesh.daemon.hooks.manifest import Manifest
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.settings import DaemonSettings, differing, in_force, load_settings
from claudemesh.daemon.startup import load_hooks
from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.logs import get_logger, set_level
from claudemesh.runtime.oserrors import cannot

log = get_logger("daemon")


class Reload:
    """Keeps the settings in force in step with config.toml.

    `config.settings` are the settings in force: a key that needs a restart keeps the value of the start. Each
    of `may_refuse` takes settings over or raises `ExitWith`; `take_over` gets what all have accepted.
    """

    def __init__(
        self,
        paths: DaemonPaths,
        config: LiveConfig,
        clock: Clock,
        conditions: Conditions,
        may_refuse: Sequence[Callable[[DaemonSettings], None]],
        take_over: Callable[[DaemonSettings, Manifest], None],
    ) -> None:
        self._paths = paths
        self._config = config
        self._clock = clock
        self._conditions = conditions
        self._may_refuse = may_refuse
        self._take_over = take_over

    def run(self) -> None:
        """Read config.toml and hooks.toml; a wrong value changes nothing, and health names it."""
        config, old = self._config, self._config.settings
        config.reloads += 1
        accepted = []
        try:
            wanted = load_settings(self._paths.config)
            settings = in_force(old, wanted)
            manifest = load_hooks(self._paths.hooks_manifest, settings)
            for use in self._may_refuse:
                use(settings)
                accepted.append(use)
        except (ExitWith, OSError) as problem:
            error = problem if isinstance(problem, ExitWith) else cannot("reload", problem)
            for use in accepted:
                use(old)
            config.error = error.message
            log.error("reload_refused", error=error.error, detail=error.message)
            self._conditions.begin(
                "config_refused",
                f"config.toml was not taken over, the settings before it hold: {error.message}",
            )
            return
        self._conditions.end("config_refused")
        config.settings = settings
        self._take_over(settings, manifest)
        set_level(settings.log_level)
        config.loaded_ms = self._clock.wall_ms()
        config.error = None
        config.needs_restart = differing(settings, wanted)
        log.info("reloaded", changed=differing(old, settings), needs_restart=config.needs_restart)
