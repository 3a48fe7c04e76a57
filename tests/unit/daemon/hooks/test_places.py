"""Environments in which hooks run by default: all but CI (docs/spec/lifecycle.md, Identity modes)."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.daemon.settings import DaemonSettings
from claudemesh.daemon.startup import load_hooks
from claudemesh.home.paths import DaemonPaths


@pytest.mark.parametrize(
    ("ci", "enabled", "runs"),
    [
        ("true", None, False),
        ("true", True, True),
        ("true", False, False),
        ("", None, True),
        ("", True, True),
        ("", False, False),
    ],
)
def test_hooks_are_off_in_ci_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, enabled: bool | None, runs: bool
) -> None:
    """`[hooks] enabled` decides; without it the place does."""
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "JENKINS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CI", ci)
    paths = DaemonPaths(tmp_path, "demo")
    paths.hooks.mkdir(parents=True, mode=0o700)
    paths.hooks_manifest.write_text("[on-dm]\n")
    settings = DaemonSettings(hooks_enabled=enabled)
    assert bool(load_hooks(paths.hooks_manifest, settings).hooks) is runs
