"""config.toml: errors name the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.daemon.settings import (
    DaemonSettings,
    changed_keys,
    in_force,
    load_settings,
    origins_in_force,
    readable_document,
)
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
    ("text", "sentence"),
    [
        (
            '[daemon]\nlog_level = "loud"',
            '2: [daemon] log_level must be one of debug, info, warning, error, not "loud".',
        ),
        ('[daemon]\n\nloglevel = "info"', "3: There is no key [daemon] loglevel. Did you mean log_level?"),
        ("[outbox]\nhttp_port = 1", "2: There is no key [outbox] http_port. Did you mean [ipc] http_port?"),
        (
            "[metrics]\nx = 1",
            "2: There is no key [metrics] x. The keys of [metrics] are prometheus_enabled, otel_endpoint.",
        ),
        ("[outbx]\na = 1", "1: There is no section [outbx] in config.toml. Did you mean [outbox]?"),
        (
            "[outbox]\nmax_age_hours_cap = true",
            "max_age_hours_cap must be a whole number from 1 to 87840, not true.",
        ),
        (
            "[outbox]\nmax_age_hours_cap = 0",
            "max_age_hours_cap must be a whole number from 1 to 87840, not 0.",
        ),
        (
            "[outbox]\nmax_age_hours_cap = 1.5",
            "max_age_hours_cap must be a whole number from 1 to 87840, not 1.5.",
        ),
        (
            '[outbox]\nmax_age_hours_cap = "9"',
            'max_age_hours_cap must be a whole number from 1 to 87840, not "9".',
        ),
        ("[reconnect]\nmultiplier = nan", "multiplier must be a number from 1 to 10, not nan."),
        ('[ipc]\nallowed_origins = "x"', 'allowed_origins must be a list of strings, not "x".'),
        ("outbox = 3", "1: outbox must be a section, [outbox], not a value."),
    ],
)
def test_a_wrong_value_names_file_line_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ExitWith) as caught:
        load_settings(path)
    assert (caught.value.code, caught.value.error) == (CONFIGURATION, "invalid_config")
    assert caught.value.message.startswith(f"{path}:")
    assert caught.value.message.endswith(sentence)


def test_the_first_fault_tells_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[outbox]\nmax_age_hours_cap = 0\nmax_age = 1\n[x]\n")
    with pytest.raises(ExitWith, match=r"There is no key.* 2 more faults in the settings\.$"):
        load_settings(path)


def test_a_reload_keeps_the_keys_that_need_a_restart() -> None:
    old, wanted = DaemonSettings(), DaemonSettings(http_port=1, log_level="debug")
    assert in_force(old, wanted) == DaemonSettings(log_level="debug")
    assert changed_keys(old, wanted) == ["[daemon] log_level", "[ipc] http_port"]


def test_what_is_not_toml_is_refused(tmp_path: Path) -> None:
    """With the place of the mistake."""
    path = tmp_path / "config.toml"
    path.write_text("[daemon\n")
    with pytest.raises(ExitWith, match="not TOML"):
        load_settings(path)


def test_a_feature_that_was_optional_in_an_older_version_stops_no_start(tmp_path: Path) -> None:
    """A file that was written for it names key_epoch, which every daemon needs now."""
    path = tmp_path / "config.toml"
    path.write_text('[features]\noptional = ["key_epoch", "presence"]\n')
    path.chmod(0o600)
    assert "key_epoch" in load_settings(path).features_optional


def test_the_origin_of_a_setting_in_force_is_its_line_unless_the_file_has_another_value(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[daemon]\nlog_level = "debug"\n[ipc]\nold_token_s = 30\n')
    settings = load_settings(path)
    path.write_text('[daemon]\nlog_level = "debug"\n[ipc]\n\nold_token_s = 40\n')
    origins = origins_in_force(settings, readable_document(path))
    assert origins["daemon"]["log_level"] == f"{path}:2"
    assert origins["ipc"]["old_token_s"] is None
    assert origins["ipc"]["http_port"] == "default"


@pytest.mark.parametrize("content", [None, "[daemon"], ids=["missing", "not-toml"])
def test_without_a_readable_file_the_defaults_in_force_are_defaults(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_text(content)
    origins = origins_in_force(DaemonSettings(), readable_document(path))
    assert {one for keys in origins.values() for one in keys.values()} == {"default"}
