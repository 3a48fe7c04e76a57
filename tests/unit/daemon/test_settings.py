"""config.toml: errors name the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.settings import DaemonSettings, load_settings, parse_settings
from claudemesh.runtime.exits import CONFIGURATION, ExitWith


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    """The defaults are the specification's."""
    assert load_settings(tmp_path / "config.toml") == DaemonSettings()


def test_settings_are_read(tmp_path: Path) -> None:
    """Sections and keys as documented."""
    path = tmp_path / "config.toml"
    path.write_text('[daemon]\nlog_level = "debug"\n[outbox]\nmax_age_hours_override = 48\n')
    settings = load_settings(path)
    assert (settings.log_level, settings.max_age_hours_override) == ("debug", 48)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"daemon": {"log_level": "loud"}}, "loud"),
        ({"daemon": {"loglevel": "info"}}, "loglevel"),
        ({"outbox": {"max_age_hours_cap": True}}, "max_age_hours_cap"),
        ({"outbox": {"max_age_hours_cap": 0}}, "max_age_hours_cap"),
        ({"outbox": {"max_age_hours_cap": 1.5}}, "max_age_hours_cap"),
        ({"reconnect": {"multiplier": float("nan")}}, "multiplier"),
        ({"ipc": {"allowed_origins": "x"}}, "allowed_origins"),
        ({"outbox": 3}, "outbox"),
    ],
)
def test_a_wrong_value_names_key_value_and_what_is_allowed(data: dict[str, Any], named: str) -> None:
    """Exit 78."""
    with pytest.raises(ExitWith, match="allowed") as caught:
        parse_settings(data, "config.toml")
    assert caught.value.code == CONFIGURATION
    assert named in caught.value.message


def test_what_is_not_toml_is_refused(tmp_path: Path) -> None:
    """With the place of the mistake."""
    path = tmp_path / "config.toml"
    path.write_text("[daemon\n")
    with pytest.raises(ExitWith, match="not TOML"):
        load_settings(path)
