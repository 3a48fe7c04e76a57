"""Reload: every part prepares before any part commits, so a refused reload changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.reload import Reload
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from tests.support.clock import ManualClock

LONG_KEPT = "[inbox]\nretention_days = 90\n"


class Part:
    """A part with settings of its own; it notes each phase, and refuses when it is told to."""

    def __init__(self, name: str, phases: list[str]) -> None:
        self.name = name
        self.phases = phases
        self.settings = DaemonSettings()
        self.refusal: Exception | None = None

    def prepare(self, settings: DaemonSettings) -> Callable[[], None]:
        self.phases.append(f"{self.name} prepares")
        if self.refusal is not None:
            raise self.refusal

        def commit() -> None:
            self.phases.append(f"{self.name} commits")
            self.settings = settings

        return commit


class Bench:
    """A reload of two parts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.toml"
        self.phases: list[str] = []
        self.one, self.two = Part("one", self.phases), Part("two", self.phases)
        clock = ManualClock()
        self.conditions = Conditions(clock)
        self.config = LiveConfig(DaemonSettings(), 0)
        self.reload = Reload(self.path, self.config, clock, self.conditions, (self.one, self.two))

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.path.chmod(0o600)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_all_prepare_and_then_all_commit(bench: Bench) -> None:
    bench.write(LONG_KEPT)
    bench.reload.run()
    assert bench.phases == ["one prepares", "two prepares", "one commits", "two commits"]
    assert bench.one.settings is bench.two.settings is bench.config.settings
    assert bench.config.settings.inbox_retention_days == 90


@pytest.mark.parametrize(
    "refusal",
    [ExitWith(CONFIGURATION, "too_long", "It is too long."), PermissionError(13, "denied", "token")],
)
def test_a_part_that_refuses_leaves_all_parts_as_they_were(bench: Bench, refusal: Exception) -> None:
    bench.write(LONG_KEPT)
    before = bench.config.settings
    bench.two.refusal = refusal
    bench.reload.run()
    assert bench.phases == ["one prepares", "two prepares"]
    assert bench.config.settings is before
    assert bench.one.settings == before
    assert bench.config.error
    assert bench.conditions.holds("config_refused")


def test_a_wrong_file_reaches_no_part_and_a_mended_one_ends_the_condition(bench: Bench) -> None:
    bench.write("[inbox]\nretention_days = 'many'\n")
    bench.reload.run()
    assert bench.phases == [] and bench.conditions.holds("config_refused")
    bench.write(LONG_KEPT)
    bench.reload.run()
    assert not bench.conditions.holds("config_refused")
    assert (bench.config.error, bench.config.reloads) == (None, 2)
