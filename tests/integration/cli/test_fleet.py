"""The daemons of several meshes of a host: `--all`, and the limits of fleet.toml."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from claudemesh.home.fleet import LEAST_DISK, LEAST_MEMORY, FleetSettings, Share, share_of
from tests.support.cli import run
from tests.support.processes import _SocketConnection, mesh

_MESHES = ("one", "three", "two")


@pytest.mark.parametrize(
    ("fleet", "meshes", "share"),
    [
        (FleetSettings(), 3, Share(100, None, None)),
        (FleetSettings(max_daemons=2), 3, Share(2, None, None)),
        (FleetSettings(total_memory_budget=4 << 30), 4, Share(16, 1 << 30, None)),
        (FleetSettings(total_memory_budget=2 * LEAST_MEMORY + 1), 5, Share(2, LEAST_MEMORY, None)),
        (FleetSettings(total_disk_budget=LEAST_DISK), 5, Share(1, None, LEAST_DISK)),
        (FleetSettings(max_daemons=2, total_disk_budget=1 << 30), 5, Share(2, None, 1 << 29)),
        (FleetSettings(total_disk_budget=1 << 30), 0, Share(16, None, 1 << 30)),
    ],
)
def test_budgets_are_divided_among_the_daemons_that_they_allow(
    fleet: FleetSettings, meshes: int, share: Share
) -> None:
    assert share_of(fleet, meshes) == share


@pytest.fixture(scope="module")
def host() -> Generator[Path]:
    """A host that is in three meshes of one broker, whose daemons do not run."""
    with mesh(start=False) as made:
        home = made.broker.home.parent / "host"
        for slug in _MESHES:
            options = (
                "--broker",
                made.broker.url,
                "--admin-token-file",
                str(made.broker.data / "admin_token"),
            )
            assert run(home, "mesh", "create", slug, "--name", "alice", *options).code == 0
        yield home
        run(home, "daemon", "down", "--all")


@pytest.fixture(autouse=True)
def stopped(host: Path) -> Generator[None]:
    yield
    (host / "fleet.toml").unlink(missing_ok=True)
    for slug in _MESHES:
        (host / "daemon" / slug / "config.toml").unlink(missing_ok=True)
    assert run(host, "daemon", "down", "--all").code == 0


def all_of(host: Path, command: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Run a command for all meshes; return the row of each."""
    done = run(host, "daemon", command, "--all", "--json")
    assert done.code == code, done.out + done.err
    return {row["mesh"]: row for row in json.loads(done.out)["items"]}


def states(rows: dict[str, dict[str, Any]]) -> list[str]:
    return [rows[slug]["state"] for slug in _MESHES]


def test_all_daemons_are_started_shown_restarted_and_stopped(host: Path) -> None:
    assert states(all_of(host, "status", 69)) == ["down"] * 3
    assert states(all_of(host, "up")) == ["started"] * 3
    assert states(all_of(host, "up")) == ["already running"] * 3
    assert states(all_of(host, "status")) == ["up"] * 3
    before = [item["pid"] for item in run(host, "daemon", "ps", "--json").json["items"]]
    assert run(host, "daemon", "down", "--mesh", "two").code == 0
    assert states(all_of(host, "restart")) == ["restarted", "restarted", "not running"]
    after = [item["pid"] for item in run(host, "daemon", "ps", "--json").json["items"]]
    assert set(before) & set(after) == set()
    assert states(all_of(host, "down")) == ["stopped", "stopped", "not running"]


def test_a_mesh_that_cannot_start_does_not_keep_the_others_from_starting(host: Path) -> None:
    """The exit code and the table tell which one."""
    (host / "daemon/three/config.toml").write_text("wrong = 1\n")
    rows = all_of(host, "up", 78)
    assert states(rows) == ["started", "failed", "started"]
    assert rows["three"]["error"] == "invalid_config"
    assert "three/config.toml:1" in rows["three"]["detail"]
    shown = run(host, "daemon", "up", "--all")
    assert shown.code == 78
    assert [line.split("\t")[:2] for line in shown.out.splitlines()[1:]] == [
        ["one", "already running"],
        ["three", "failed"],
        ["two", "already running"],
    ]
    assert states(all_of(host, "status", 69)) == ["up", "down", "up"]


def test_no_more_daemons_are_started_than_the_fleet_allows(host: Path) -> None:
    (host / "fleet.toml").write_text("max_daemons = 2\n")
    rows = all_of(host, "up", 75)
    assert states(rows) == ["started", "started", "not started"]
    assert rows["two"]["error"] == "fleet_full"
    assert "fleet.toml allows 2 daemons" in rows["two"]["detail"]


def test_a_restart_with_wrong_settings_stops_no_daemon(host: Path) -> None:
    """Those of config.toml, and those of fleet.toml, which are of all daemons."""
    all_of(host, "up")
    (host / "daemon/three/config.toml").write_text("wrong = 1\n")
    rows = all_of(host, "restart", 78)
    assert states(rows) == ["restarted", "failed", "restarted"]
    assert rows["three"]["detail"].endswith("The daemon was not stopped.")
    (host / "fleet.toml").write_text("max_daemons = 0\n")
    assert run(host, "daemon", "restart", "--mesh", "one").code == 78
    (host / "fleet.toml").unlink()
    assert states(all_of(host, "status")) == ["up"] * 3


def test_a_mesh_that_cannot_start_takes_no_place_of_the_fleet(host: Path) -> None:
    (host / "fleet.toml").write_text("max_daemons = 1\n")
    (host / "daemon/one/config.toml").write_text("wrong = 1\n")
    assert states(all_of(host, "up", 75)) == ["failed", "started", "not started"]


def test_each_daemon_has_its_share_of_the_disk(host: Path) -> None:
    """A smaller budget of its own stays. A new fleet.toml is in force after a reload."""
    (host / "fleet.toml").write_text(f"total_disk_budget = {3 * LEAST_DISK}\n")
    (host / "daemon/two/config.toml").write_text("[disk]\nreserved_bytes = 2000000\n")
    all_of(host, "up")

    def budget(slug: str) -> Any:
        connection = _SocketConnection(host / "daemon" / slug / "sock")
        with closing(connection):
            connection.request("GET", "/v1/config")
            return json.loads(connection.getresponse().read())["settings"]["disk"]["reserved_bytes"]

    assert [budget(slug) for slug in _MESHES] == [LEAST_DISK, LEAST_DISK, 2_000_000]
    (host / "fleet.toml").write_text(f"total_disk_budget = {6 * LEAST_DISK}\n")
    assert run(host, "daemon", "reload", "--mesh", "one").code == 0
    assert budget("one") == 2 * LEAST_DISK
    (host / "fleet.toml").write_text("max_daemon = 2\n")
    assert run(host, "daemon", "reload", "--mesh", "one").code != 0
    assert run(host, "config", "check").code == 78


def test_other_options_beside_all_are_refused(host: Path) -> None:
    for options in (
        ["up", "--all", "--name", "x"],
        ["up", "--all", "--mesh", "one"],
        ["down", "--all", "--mesh", "one"],
    ):
        assert run(host, "daemon", *options).code == 64
