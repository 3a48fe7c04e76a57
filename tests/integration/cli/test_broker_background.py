"""A broker in the background: `broker up -d`, `status`, `logs` and `down`, with real processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from claudemesh.cli.broker import background
from claudemesh.protocol.invites import parse_link
from tests.support.cli import Ran, begin, run
from tests.support.living import paths_in
from tests.support.processes import REPOSITORY, Mesh, free_port, mesh, until

OK, UNAVAILABLE, TEMPORARY, CONFIGURATION = 0, 69, 75, 78
SERVICE_USER = 65534
# The interpreter may lie in a folder of root's.
READS = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
USER = ["--reuid", str(SERVICE_USER), "--regid", str(SERVICE_USER), "--clear-groups"]
AS_SERVICE = ["setpriv", *USER, *READS]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as another user")


class Place:
    """A home whose broker listens at a port of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / "broker"
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"

    def run(self, *arguments: str, **environment: str) -> Ran:
        """Run a command here."""
        listen = {"CLAUDEMESH_BROKER_LISTEN": f"127.0.0.1:{self.port}"}
        return run(self.home, *arguments, **(listen | environment))


@pytest.fixture
def place() -> Generator[Place]:
    """An empty home; its broker is stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="cm-"))
    made = Place(folder / "home")
    try:
        yield made
    finally:
        made.run("down")
        made.run("broker", "down")
        shutil.rmtree(folder, ignore_errors=True)


def test_commands_that_follow_a_broker_in_the_background_find_it_serving(place: Place) -> None:
    """`broker up -d` returns when it serves, and `mesh create` takes its address, with any port."""
    started = place.run("broker", "up", "-d", "--json")
    assert (started.code, started.json["status"], started.json["url"]) == (OK, "running", place.url)
    created = place.run("mesh", "create", "team", "--name", "alice", "--json")
    assert (created.code, created.json["broker_url"]) == (OK, place.url)


def test_a_broker_in_the_background_is_shown_and_stopped(place: Place) -> None:
    """Each command says so when there is none, and stopping what does not run is a success."""
    assert (place.run("broker", "status").code, place.run("broker", "logs").code) == (
        UNAVAILABLE,
        CONFIGURATION,
    )
    assert place.run("broker", "down", "--json").json["status"] == "not running"
    pid = place.run("broker", "up", "-d", "--json").json["pid"]
    shown = place.run("broker", "status", "--json").json
    assert (shown["pid"], shown["ready"], shown["degraded"]) == (pid, True, [])
    assert f"address   {place.url}\n" in place.run("broker", "status").out
    assert "broker_started" in place.run("broker", "logs").out
    assert place.run("broker", "down").out == f"stopped the broker at {place.url}\n"
    assert json.loads(place.run("broker", "logs", "-n", "1", "--json").out)["event"] == "broker_stopped"
    assert place.run("broker", "status").code == UNAVAILABLE


def test_a_broker_that_runs_already_is_left_as_it_is(place: Place) -> None:
    """Also when several commands start it at the same moment."""
    program = [sys.executable, "-m", "claudemesh", "broker", "up", "-d", "--json"]
    environment = {
        **os.environ,
        "CLAUDEMESH_HOME": str(place.home),
        "CLAUDEMESH_BROKER_LISTEN": f"127.0.0.1:{place.port}",
    }
    three = [
        subprocess.Popen(program, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE) for _ in range(3)
    ]
    answers = [json.loads(process.communicate()[0]) for process in three]
    assert [process.returncode for process in three] == [OK, OK, OK]
    assert sorted(answer["status"] for answer in answers) == ["already running"] * 2 + ["running"]
    assert len({answer["pid"] for answer in answers}) == 1
    again = place.run("broker", "up", "-d")
    assert (again.code, again.out) == (OK, f"a broker runs already at {place.url}\n")


def test_a_broker_that_ends_while_it_starts_says_why(place: Place) -> None:
    """The sentence and the exit code are those of the process in the background."""
    with mesh() as other:
        failed = place.run(
            "broker", "up", "-d", "--json", CLAUDEMESH_BROKER_LISTEN=f"127.0.0.1:{other.broker.port}"
        )
    foreground = place.run("broker", "up", CLAUDEMESH_BROKER_LISTEN="192.0.2.1:1")
    background = place.run("broker", "up", "-d", CLAUDEMESH_BROKER_LISTEN="192.0.2.1:1")
    assert failed.code not in (OK, TEMPORARY)
    assert str(other.broker.port) in failed.json["message"]
    assert background.code == foreground.code != OK
    assert background.err.splitlines()[0] == foreground.err.splitlines()[-1]


def test_the_broker_inside_a_daemon_is_stopped_with_the_daemon_only(place: Place) -> None:
    """`broker down` names the daemon, and both go on."""
    moved = f"127.0.0.1:{place.port}"
    assert place.run("broker", "up", "-d").code == OK
    assert place.run("mesh", "create", "team", "--name", "alice").code == OK
    assert place.run("broker", "down").code == OK
    assert place.run("daemon", "up", "-d", "--with-broker").code == OK
    refused = place.run("broker", "down", "--json")
    assert (refused.code, refused.json["error"]) == (CONFIGURATION, "embedded_broker")
    assert refused.json["next"] == "claudemesh daemon down --mesh team"
    assert place.run("broker", "status", "--json").json["url"] == f"ws://{moved}"
    assert place.run("status").code == OK


def test_a_number_in_a_file_ends_no_process(place: Place) -> None:
    """A process that does not hold the lock of the data directory open is not the broker."""
    place.run("broker", "up", "-d")
    path = place.data / "broker.json"
    told = json.loads(path.read_bytes())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:
        path.write_text(json.dumps({**told, "pid": stranger.pid}))
        refused = place.run("broker", "down", "--json")
        assert (refused.code, refused.json["error"]) == (CONFIGURATION, "broker_elsewhere")
        assert stranger.poll() is None
    path.write_text(json.dumps(told))
    assert place.run("broker", "down").code == OK


def test_up_succeeds_when_the_daemon_is_up_and_the_line_of_a_service_does_not(place: Place) -> None:
    """A person wants it to run; a service manager wants to be the one that runs it."""
    assert place.run("broker", "up", "-d").code == OK
    assert place.run("mesh", "create", "team", "--name", "alice").code == OK
    assert place.run("up", "-d").code == OK
    for arguments in (["up"], ["up", "-d"], ["daemon", "up", "-d"]):
        again = place.run(*arguments)
        assert (again.code, again.out) == (OK, "the daemon of mesh team runs already\n"), arguments
    assert place.run("daemon", "up").code == 73


def test_up_beside_a_running_daemon_does_what_its_options_ask_for_or_says_that_it_does_not(
    place: Place,
) -> None:
    """--name renames the member. A broker cannot begin in a daemon that runs without one."""
    assert place.run("broker", "up", "-d").code == OK
    assert place.run("mesh", "create", "team", "--name", "alice").code == OK
    assert place.run("up", "-d").code == OK
    for arguments in (["up"], ["up", "-d"], ["daemon", "up", "-d"]):
        refused = place.run(*arguments, "--with-broker", "--name", "carol", "--json")
        assert (refused.code, refused.json["error"]) == (73, "runs_without_broker"), arguments
        assert refused.json["next"] == "claudemesh daemon down"
    assert place.run("whoami", "--json").json["name"] == "alice"
    renamed = place.run("up", "-d", "--name", "bob")
    assert (renamed.code, renamed.out) == (
        OK,
        "the daemon of mesh team runs already; this member is named bob now\n",
    )
    assert place.run("whoami", "--json").json["name"] == "bob"


def test_an_invite_that_only_this_machine_can_use_is_warned_about_when_it_is_made(place: Place) -> None:
    """And on another machine, where that address leads to nothing, the join says why."""
    assert place.run("broker", "up", "-d").code == OK
    assert place.run("mesh", "create", "team", "--name", "alice").code == OK
    made = place.run("invite", "create")
    assert made.code == OK
    assert made.out.startswith("claudemesh://join/")
    assert f"Only this machine can join by this invite: it holds {place.url}" in made.err
    assert place.url in place.run("invite", "create", "--json").json["warning"]
    assert place.run("broker", "down").code == OK
    joined = run(place.home.parent / "elsewhere", "join", made.out.strip(), "--name", "bob", "--json")
    assert (joined.code, joined.json["error"]) == (UNAVAILABLE, "broker_unreachable")
    assert "leads to this machine itself" in joined.json["message"]
    assert "broker up" not in joined.json["message"]


def test_a_broker_at_a_wildcard_names_the_address_to_dial(place: Place) -> None:
    """`0.0.0.0` can be dialled from nowhere."""
    anywhere = {"CLAUDEMESH_BROKER_LISTEN": f"0.0.0.0:{place.port}"}
    started = place.run("broker", "up", "-d", **anywhere)
    shown = re.search(r"started the broker at (\S+) ", started.out)
    assert shown is not None
    assert shown[1].endswith(f":{place.port}")
    assert "0.0.0.0" not in started.out
    made = place.run("mesh", "create", "team", "--name", "alice", "--broker", shown[1], "--insecure")
    assert made.code == OK, made.err
    assert "Only this machine" not in place.run("invite", "create").err
    assert place.run("broker", "status", "--json").json["dialled_urls"] == [shown[1]]


def test_a_mesh_is_made_before_the_public_address_leads_to_the_broker(place: Place) -> None:
    """The error has the command that dials the broker directly; invites hold the public address then."""
    public = "wss://mesh.invalid"
    assert place.run("broker", "up", "-d", "--public-url", public).code == OK
    refused = place.run("mesh", "create", "team", "--name", "alice", "--json")
    assert (refused.code, refused.json["error"]) == (UNAVAILABLE, "broker_unreachable")
    assert refused.json["next"] == f"claudemesh mesh create team --name alice --broker {place.url}"
    assert place.run(*refused.json["next"].split()[1:]).code == OK
    assert parse_link(place.run("invite", "create", "-q").out.strip()).broker_url == public


def test_a_broker_in_the_foreground_names_the_address_to_dial(place: Place) -> None:
    """The public one, if there is any."""
    for options, expected in (
        (
            ["--public-url", "wss://mesh.example.org"],
            "broker at wss://mesh.example.org (listens at ws://0.0.0.0:",
        ),
        (["--listen", f"127.0.0.1:{place.port}"], f"broker at {place.url}, data in "),
    ):
        arguments = ["broker", "up", "--listen", "0.0.0.0:0", *options]
        with begin(place.home, *arguments) as process:
            assert process.stderr is not None
            assert any(expected in line.decode() for line in process.stderr)
            process.terminate()
            assert process.wait() == OK


def test_a_password_is_passed_to_the_background_by_a_variable() -> None:
    """Other users of the machine can read a command line."""
    flags = {
        "listen": "0.0.0.0:7900",
        "database_url": "postgresql://mesh:secret@db/mesh",
        "public_url": ("wss://one.example.org", "wss://two.example.org"),
        "allow_unsafe_postgres": True,
        "console": False,
        "redis_url": None,
    }
    assert background._arguments(flags) == [
        *("--listen", "0.0.0.0:7900"),
        "--allow-unsafe-postgres",
        *("--public-url", "wss://one.example.org", "--public-url", "wss://two.example.org"),
        "--no-console",
    ]
    assert background._secrets(flags) == {"CLAUDEMESH_BROKER_DATABASE_URL": flags["database_url"]}


@pytest.fixture
def service() -> Generator[tuple[Path, Mesh]]:
    """The data directory of a broker that runs as a user of its own."""
    with mesh(start=False) as made:
        made.broker.stop()
        made.broker.data.chmod(0o700)
        made.root.chmod(0o755)
        for path in (made.broker.data, *made.broker.data.iterdir()):
            os.chown(path, SERVICE_USER, SERVICE_USER)
        with subprocess.Popen(
            [*AS_SERVICE, sys.executable, "-m", "claudemesh", *made.broker.arguments],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": "/nonexistent"},
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                until(made.broker.is_ready, "the service is ready")
                yield made.broker.data, made
            finally:
                process.terminate()


@as_root
def test_root_administers_a_broker_that_runs_as_a_user_of_its_own(service: tuple[Path, Mesh]) -> None:
    """Its files stay its own, and its token goes to no other user's process."""
    data, made = service
    there = ["--data-dir", str(data)]
    assert run(made.root / "x", "broker", "mesh", "list", *there).code == OK
    assert run(made.root / "x", "broker", "status", *there, "--json").json["ready"] is True
    token = {"CLAUDEMESH_BROKER_DATA_DIR": str(data)}
    created = run(made.root / "x", "mesh", "create", "team", "--name", "alice", **token)
    assert (created.code, created.err.count("chown")) == (OK, 0)
    assert {path.stat().st_uid for path in paths_in(data)} == {SERVICE_USER}
    assert run(made.root / "x", "broker", "down", *there).code == OK


@as_root
def test_another_user_is_told_whose_the_broker_is(service: tuple[Path, Mesh]) -> None:
    """Not to take its files away."""
    data, _ = service
    # Imported as root: the interpreter may lie in a folder of root's.
    program = f"""
import os, pathlib
from claudemesh.client.errors import WrongHome
from claudemesh.client.own_broker import find_broker, is_used, read_admin_token
os.setgroups([]); os.setgid(12345); os.setuid(12345)
for ask in (find_broker, is_used, read_admin_token):
    try:
        print(ask(pathlib.Path({str(data)!r})))
    except WrongHome as error:
        print(error.exit_code, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    told = done.stdout.splitlines()
    assert len(told) == 3
    assert all(f"{CONFIGURATION} This user cannot read {data}" in line for line in told)
    assert "chown" not in done.stdout
