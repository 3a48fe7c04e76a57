"""Installation of services: texts, refusals, and a kill at each step. tests/artefact starts them."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from claudemesh.cli.service.launchd import broker_plist, daemon_plist
from claudemesh.cli.service.units import BROKER_UNIT, DAEMON_TEMPLATE, Placement, broker_unit, daemon_unit
from claudemesh.runtime.exits import ExitWith
from tests.support.processes import REPOSITORY, Daemon, mesh
from tests.support.waiting import WAIT_S

PROGRAM = ("/usr/local/bin/claudemesh.pyz",)
DAEMON_PLACE = Placement(PROGRAM, Path("/var/lib/claudemesh-daemon"), "claudemesh")
BROKER_PLACE = Placement(PROGRAM, Path("/var/lib/claudemesh"), "claudemesh")
UNITS = {
    DAEMON_TEMPLATE: daemon_unit(DAEMON_PLACE),
    BROKER_UNIT: broker_unit(BROKER_PLACE),
    "root's daemon": daemon_unit(Placement(PROGRAM, Path("/root/.claudemesh"), "root")),
    "broker at a low port": broker_unit(Placement(PROGRAM, Path("/var/lib/cm"), "claudemesh", low_port=True)),
}
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: Debian package systemd"
)
needs_systemctl = pytest.mark.skipif(
    shutil.which("systemctl") is None, reason="systemctl is not installed: Debian package systemd"
)


@pytest.fixture(scope="module")
def alice() -> Generator[Daemon]:
    """A member whose daemon does not run."""
    with mesh("alice", start=False) as made:
        yield made.daemons["alice"]


class Cli:
    """Commands in a home, with a user's folder for units."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._home = home
        self.units = folder / "systemd/user"
        self._folder = folder

    def run(
        self, *arguments: str, failpoints: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        kept = ("PATH", "LANG", "SYSTEMD_LOG_LEVEL")
        environment = {name: os.environ[name] for name in kept if name in os.environ} | {
            "CLAUDEMESH_HOME": str(self._home),
            "CLAUDEMESH_FAILPOINTS": failpoints,
            "PYTHONPATH": str(REPOSITORY),
            "XDG_CONFIG_HOME": str(self._folder),
            "XDG_RUNTIME_DIR": str(self._folder),
            **variables,
        }
        program = [sys.executable, "-m", "tests.support.armed"]
        return subprocess.run(
            [*program, *arguments],
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )

    def enabled(self) -> list[str]:
        return sorted(link.name for link in self.units.glob("*.wants/*"))


@pytest.fixture
def cli(alice: Daemon, tmp_path: Path) -> Cli:
    return Cli(alice.home, tmp_path)


def verify(folder: Path, name: str, text: str) -> subprocess.CompletedProcess[str]:
    path = folder / name
    # The program of the unit is not on this host.
    path.write_text(text.replace(PROGRAM[0], sys.executable))
    return subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=WAIT_S
    )


@needs_analyze
@pytest.mark.parametrize("case", UNITS)
def test_systemd_accepts_the_units_of_the_system_and_rates_them_at_most_3(case: str, tmp_path: Path) -> None:
    name = DAEMON_TEMPLATE if "@" in case or "daemon" in case else BROKER_UNIT
    done = verify(tmp_path, name, UNITS[case].replace("User=claudemesh", "User=daemon"))
    assert (done.returncode, done.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=30", str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert rated.returncode == 0, rated.stdout
    assert re.search(r"exposure level for \S+: [0-2]\.\d|3\.0", rated.stdout)


@needs_analyze
def test_systemd_accepts_a_path_with_spaces_and_signs(tmp_path: Path) -> None:
    """And takes it literally: neither `%` nor `$` is replaced."""
    odd = Path("/srv/a b%n$HOME'c\"d")
    text = broker_unit(Placement((f"{tmp_path}/py thon$X", "-m"), odd, "daemon"))
    (tmp_path / "py thon$X").symlink_to(sys.executable)
    path = tmp_path / BROKER_UNIT
    path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=WAIT_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(ExitWith, match=r"No unit can name /srv/a\\nb"):
        broker_unit(Placement(PROGRAM, Path("/srv/a\nb"), "daemon"))


def test_the_units_of_the_pages_are_those_that_are_installed() -> None:
    for name in (DAEMON_TEMPLATE, BROKER_UNIT):
        assert (REPOSITORY / "docs/deploy" / name).read_text() == UNITS[name]


def test_a_unit_has_the_promised_lines() -> None:
    """docs/spec/lifecycle.md, Services."""
    for text in (UNITS[DAEMON_TEMPLATE], daemon_unit(Placement(PROGRAM, Path("/home/a/.claudemesh"), None))):
        lines = text.splitlines()
        for line in (
            "Type=notify",
            "Restart=on-failure",
            "RestartSec=5s",
            "StartLimitBurst=5",
            "StartLimitIntervalSec=5min",
            "RestartPreventExitStatus=77 78",
            "NoNewPrivileges=yes",
            "PrivateTmp=yes",
            "ProtectSystem=strict",
            "ProtectHome=read-only",
        ):
            assert line in lines
        names = {line.partition("=")[0] for line in lines}
        assert {"MemoryMax", "TasksMax", "LimitNOFILE", "WatchdogSec", "ExecReload"} <= names
        assert sum(line.startswith("ReadWritePaths=") for line in lines) == 1


def test_a_property_list_of_launchd_starts_the_same_program() -> None:
    """It is read by plistlib; launchd itself is on macOS alone."""
    daemon = plistlib.loads(daemon_plist(Placement(PROGRAM, Path("/Users/a/.claudemesh"), None), "team"))
    assert daemon["ProgramArguments"] == [*PROGRAM, "daemon", "up", "--mesh", "team"]
    assert daemon["EnvironmentVariables"]["CLAUDEMESH_HOME"] == "/Users/a/.claudemesh"
    assert daemon["KeepAlive"] == {"SuccessfulExit": False}
    assert "UserName" not in daemon
    broker = plistlib.loads(broker_plist(BROKER_PLACE))
    assert broker["UserName"] == "claudemesh"
    assert broker["ProgramArguments"][-2:] == ["--data-dir", "/var/lib/claudemesh"]


# The keys of launchd.plist(5) that are used, and the types of their values.
_KEYS = {
    "Label": str,
    "ProgramArguments": list,
    "EnvironmentVariables": dict,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ProcessType": str,
    "Umask": int,
    "ExitTimeOut": int,
    "HardResourceLimits": dict,
    "UserName": str,
}


@pytest.mark.parametrize("raw", [daemon_plist(DAEMON_PLACE, "team"), broker_plist(BROKER_PLACE)])
def test_a_property_list_has_documented_keys_and_changes_no_limit_of_the_machine(raw: bytes) -> None:
    """A limit of files or processes in the list of a system service sets the sysctl of the same name."""
    found = plistlib.loads(raw)
    assert {key: type(value) for key, value in found.items()} == _KEYS
    assert all(
        isinstance(one, str) for one in (*found["ProgramArguments"], *found["EnvironmentVariables"].values())
    )
    assert "SoftResourceLimits" not in found
    assert found["HardResourceLimits"] == {"Core": 0}
    assert found["Umask"] == 0o077


def test_a_service_of_launchd_has_as_long_to_end_as_one_of_systemd() -> None:
    found = plistlib.loads(daemon_plist(DAEMON_PLACE, "team"))
    assert f"TimeoutStopSec={found['ExitTimeOut']}s" in UNITS[DAEMON_TEMPLATE]


def test_print_shows_the_unit_and_writes_nothing_also_in_ci(cli: Cli, alice: Daemon) -> None:
    done = cli.run("daemon", "install-service", "--print", "--user", CI="true")
    assert done.returncode == 0
    [command] = [line for line in done.stdout.splitlines() if line.startswith("ExecStart=")]
    assert shlex.split(command.partition("=")[2])[-4:] == ["daemon", "up", "--mesh", "%i"]
    assert f"ReadWritePaths={alice.home}" in done.stdout
    assert "This is the unit of this user, for the file " in done.stderr
    assert not cli.units.exists()


def test_print_tells_about_a_data_directory_that_the_running_broker_does_not_use(cli: Cli) -> None:
    """That of a unit of the system is another one, so a broker that runs already would stay behind."""
    done = cli.run("broker", "install-service", "--print", "--system", CI="true")
    assert (done.returncode, "/etc/systemd/system/claudemesh-broker.service" in done.stderr) == (0, True)
    assert "Its data directory is /var/lib/claudemesh." in done.stderr
    assert "Its data directory" not in cli.run("broker", "install-service", "--print", "--user").stderr


@pytest.mark.parametrize("group", ["daemon", "broker"])
def test_ci_is_refused_unless_it_is_allowed(cli: Cli, group: str) -> None:
    done = cli.run(group, "install-service", "--user", "--json", CI="true")
    assert done.returncode == 78
    assert json.loads(done.stdout)["error"] == "persistent_in_ci"
    assert "--allow-ci-persistent" in json.loads(done.stdout)["message"]
    assert not cli.units.exists()


@needs_systemctl
def test_install_enables_and_uninstall_leaves_nothing(cli: Cli) -> None:
    """Both can be repeated. The manager of this user does not run here, so nothing is started."""
    for _ in range(2):
        done = cli.run("daemon", "install-service", "--user", "--json", "--allow-ci-persistent")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert (answer["status"], answer["unit"]) == ("installed", "claudemesh@demo.service")
        assert answer["file"] == str(cli.units / DAEMON_TEMPLATE)
        assert cli.enabled() == ["claudemesh@demo.service"]
    done = cli.run("daemon", "install-service", "--user", "--now", "--json", "--allow-ci-persistent")
    assert (done.returncode, json.loads(done.stdout)["error"]) == (69, "service_manager_not_running")
    for status in ("removed", "not installed"):
        done = cli.run("daemon", "uninstall-service", "--user", "--json")
        assert (done.returncode, json.loads(done.stdout)["status"]) == (0, status)
    assert [path for path in cli.units.rglob("*") if not path.is_dir()] == []


@needs_systemctl
def test_another_home_does_not_take_the_template_over(cli: Cli, tmp_path: Path) -> None:
    cli.units.mkdir(parents=True)
    other = daemon_unit(Placement(PROGRAM, Path("/home/other"), None))
    (cli.units / DAEMON_TEMPLATE).write_text(other)
    done = cli.run("daemon", "install-service", "--user", "--json", "--allow-ci-persistent")
    assert (done.returncode, json.loads(done.stdout)["error"]) == (73, "service_exists")
    assert "/home/other" in json.loads(done.stdout)["message"]
    assert (cli.units / DAEMON_TEMPLATE).read_text() == other


@needs_systemctl
@pytest.mark.parametrize(
    "point",
    [
        "file.after_write",
        "file.after_sync",
        "file.after_rename",
        "service.after_unit",
        "service.after_enable",
    ],
)
def test_a_kill_while_installing_leaves_the_old_or_the_new_unit(cli: Cli, point: str) -> None:
    cli.units.mkdir(parents=True)
    path = cli.units / BROKER_UNIT
    options = ("broker", "install-service", "--user", "--allow-ci-persistent")
    assert cli.run(*options).returncode == 0
    new = path.read_text()
    old = new.replace("WatchdogSec=60s", "WatchdogSec=61s")
    path.write_text(old)
    assert cli.run(*options, failpoints=f"{point}=kill").returncode == -signal.SIGKILL
    assert path.read_text() in (old, new)
    assert cli.run(*options).returncode == 0
    assert path.read_text() == new
    assert cli.enabled() == [BROKER_UNIT]


@needs_systemctl
@pytest.mark.parametrize("point", ["service.after_disable", "service.after_remove"])
def test_a_kill_while_removing_is_finished_by_the_next_removal(cli: Cli, point: str) -> None:
    assert cli.run("daemon", "install-service", "--user", "--allow-ci-persistent").returncode == 0
    removal = ("daemon", "uninstall-service", "--user")
    assert cli.run(*removal, failpoints=f"{point}=kill").returncode == -signal.SIGKILL
    assert cli.enabled() == []
    assert cli.run(*removal).returncode == 0
    assert not (cli.units / DAEMON_TEMPLATE).exists()


def test_a_service_of_the_system_needs_its_data_dir_and_a_program_that_its_user_can_read(
    cli: Cli, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        done = cli.run("broker", "install-service", "--system", "--json", "--allow-ci-persistent")
        assert (done.returncode, json.loads(done.stdout)["error"]) == (77, "not_root")
        return
    missing = ("--data-dir", str(tmp_path / "missing"))
    done = cli.run("broker", "install-service", "--system", "--json", "--allow-ci-persistent", *missing)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (78, "no_data_dir")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 65_534, 65_534)
    there = ("--data-dir", str(foreign), "--service-user", "no-such-user")
    done = cli.run("broker", "install-service", "--system", "--json", "--allow-ci-persistent", *there)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (78, "no_such_user")
