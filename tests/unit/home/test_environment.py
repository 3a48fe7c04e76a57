"""Detection of the environment (docs/spec/lifecycle.md, Identity modes)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from claudemesh.home.environment import VARIABLES, detect_environment


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, "machine"),
        ({"CI": "true"}, "ci"),
        ({"CI": "false"}, "machine"),
        ({"GITHUB_ACTIONS": "true", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "ci"),
        ({"JENKINS_URL": "http://ci"}, "ci"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"RUNPOD_POD_ID": "x"}, "runpod"),
    ],
)
def test_places_by_their_environment(environ: dict[str, str], place: str, tmp_path: Path) -> None:
    """The most particular one that fits."""
    assert detect_environment(environ, tmp_path) == place


def test_no_variable_of_a_ci_server_reaches_the_tests() -> None:
    """The tests run with the defaults of a machine also where they run in CI."""
    assert not os.environ.keys() & set(VARIABLES)


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv"])
def test_a_container_by_its_mark(mark: str, tmp_path: Path) -> None:
    """Docker's and podman's."""
    path = tmp_path / mark
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert detect_environment({}, tmp_path) == "container"


@pytest.mark.parametrize(
    ("groups", "place"), [("12:pids:/kubepods/burstable/x\n", "container"), ("0::/init.scope\n", "machine")]
)
def test_a_container_by_its_cgroup(groups: str, place: str, tmp_path: Path) -> None:
    """Of the first process."""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text(groups)
    assert detect_environment({}, tmp_path) == place
