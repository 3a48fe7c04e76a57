"""`claudemesh run`: a command as an ephemeral member (docs/spec/lifecycle.md, Identity modes)."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from tests.support.audit import broker_rows
from tests.support.cli import Ran
from tests.support.processes import REPOSITORY, Daemon, Mesh, mesh, until
from tests.support.waiting import WAIT_S

MODULE = f'"{sys.executable}" -m claudemesh'
SEND = f"{MODULE} send"


@pytest.fixture(scope="module")
def team() -> Generator[Mesh]:
    """A mesh with alice, running."""
    with mesh("alice") as made:
        yield made


@pytest.fixture
def environment(team: Mesh, short_path: Path) -> dict[str, str]:
    """The environment of a CI job: an invite, and a place of its own for private homes."""
    link = json.loads(
        team.cli(team.daemons["alice"], "invite", "create", "--uses", "100", "--ephemeral-only", "--json")
    )["invite"]
    folder = short_path / "run"
    folder.mkdir(mode=0o700)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
    return {
        **kept,
        "CI": "true",
        "CLAUDEMESH_INVITE": link,
        "CLAUDEMESH_HOME": str(short_path / "home"),
        "XDG_RUNTIME_DIR": str(folder),
        "PYTHONPATH": str(REPOSITORY),
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "claudemesh", "run", *arguments]


def run(environment: Mapping[str, str], *arguments: str) -> Ran:
    done = subprocess.run(
        command(*arguments), cwd=REPOSITORY, env=environment, capture_output=True, timeout=WAIT_S, text=True
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def homes(environment: Mapping[str, str]) -> list[Path]:
    """The private homes that exist."""
    base = Path(environment["XDG_RUNTIME_DIR"]) / f"claudemesh-{os.geteuid()}"
    return [path for path in base.iterdir() if path.is_dir()] if base.exists() else []


def left(team: Mesh, name: str) -> bool:
    """Whether alice sees no member of this name any more."""
    _, page = team.daemons["alice"].request("GET", "/v1/peers")
    return name not in {item["name"] for item in page["items"]}


def bodies(daemon: Daemon) -> list[str]:
    return [item["body"] for item in daemon.inbox()]


def test_the_command_sends_as_a_member_that_leaves(team: Mesh, environment: dict[str, str]) -> None:
    """The send is accepted by the broker before the member is gone, and nothing stays on this host."""
    alice = team.daemons["alice"]
    ran = run(environment, "--name", "ci-1", "--", "sh", "-c", f"{SEND} alice 'from ci-1'; exit 7")
    assert ran.code == 7, ran.err
    until(lambda: "from ci-1" in bodies(alice), "the message arrives")
    until(lambda: left(team, "ci-1"), "the member has left")
    assert homes(environment) == []
    assert not Path(environment["CLAUDEMESH_HOME"]).exists()


def test_files_and_long_texts_of_the_command_are_shared_before_the_member_leaves(
    team: Mesh, environment: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 0 says that recipients can fetch them, though the commands that sent them have not waited."""
    file, text = tmp_path / "build.tar", tmp_path / "build.log"
    file.write_bytes(os.urandom(48 << 20))
    text.write_text("line of a log\n" * 100_000)
    share = f'{MODULE} file send "{file}" alice; {SEND} alice - <"{text}"'
    ran = run(environment, "--name", "ci-files", "--", "sh", "-c", share)
    assert ran.code == 0, ran.err
    alice = team.daemons["alice"]
    until(
        lambda: sum(item["sender_name"] == "ci-files" for item in alice.inbox()) == 2, "both messages arrive"
    )
    [listed] = alice.request("GET", "/v1/file/list")[1]["items"]
    team.cli(alice, "file", "get", listed["file_id"], "--out", str(tmp_path / "fetched"))
    assert (tmp_path / "fetched").read_bytes() == file.read_bytes()


def test_a_file_that_is_not_shared_in_time_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    """75: the command has succeeded, and its file went nowhere."""
    (tmp_path / "build.tar").write_bytes(b"content")
    with mesh("alice") as made:
        link = json.loads(made.cli(made.daemons["alice"], "invite", "create", "--json"))["invite"]
        known = f"until {MODULE} peers --json | grep -q alice; do :; done"
        share = f'{known}; kill -KILL {made.broker.pid}; {MODULE} file send "{tmp_path}/build.tar" alice'
        own = {**environment, "CLAUDEMESH_INVITE": link}
        ran = run(own, "--drain-timeout", "1s", "--", "sh", "-c", share)
    assert ran.code == 75, ran.err
    assert "build.tar (1 in all)" in ran.err


def test_a_long_text_that_was_given_up_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    """Its copy was lost on this host's disk, so its recipient has nothing."""
    (tmp_path / "build.log").write_text("line of a log\n" * 100_000)
    with mesh("alice") as made:
        link = json.loads(made.cli(made.daemons["alice"], "invite", "create", "--json"))["invite"]
        known = f"until {MODULE} peers --json | grep -q alice; do :; done"
        share = (
            f'{SEND} alice - --id text-1 <"{tmp_path}/build.log"; rm "${{CLAUDEMESH_DAEMON_SOCK%/*}}"/spool/*'
        )
        script = f"{known}; kill -STOP {made.broker.pid}; {share}; kill -CONT {made.broker.pid}"
        ran = run({**environment, "CLAUDEMESH_INVITE": link}, "--", "sh", "-c", script)
    assert ran.code == 75, ran.err
    assert "text-1 (1 in all)" in ran.err


def test_a_file_whose_message_was_given_up_is_not_waited_for(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """It is named at once: nothing but an operator would send its message again."""
    (tmp_path / "build.tar").write_bytes(b"content")
    leave = "import sqlite3,sys;raw=sqlite3.connect(sys.argv[1]);raw.execute(sys.argv[2]);raw.commit()"
    with mesh("alice", "bob") as made:
        link = json.loads(made.cli(made.daemons["alice"], "invite", "create", "--json"))["invite"]
        known = f"until {MODULE} peers --json | grep -q bob; do :; done"
        gone = f'"{sys.executable}" -c "{leave}" {made.broker.data}/broker.db "$LEFT"'
        script = f'{known}; {gone}; {MODULE} file send "{tmp_path}/build.tar" bob'
        left = "UPDATE member SET status = 'left' WHERE name = 'bob'"
        own = {**environment, "CLAUDEMESH_INVITE": link, "LEFT": left}
        ran = run(own, "--drain-timeout", "1h", "--", "sh", "-c", script)
    assert ran.code == 75, ran.err
    assert "build.tar (1 in all)" in ran.err


def test_a_message_outlives_its_sender(team: Mesh, environment: dict[str, str]) -> None:
    """The recipient was away while the member lived, and its member list never had it."""
    alice = team.daemons["alice"]
    alice.stop()
    ran = run(environment, "--name", "ci-gone", "--", "sh", "-c", f"{SEND} alice late; {SEND} '#all' post")
    assert ran.code == 0, ran.err
    alice.start()
    alice.ready()
    until(lambda: {"late", "post"} <= set(bodies(alice)), "both messages arrive")
    assert {item["sender_name"] for item in alice.inbox()[-2:]} == {"ci-gone"}


def test_the_command_does_not_get_the_invite(environment: dict[str, str]) -> None:
    """Neither in its environment nor in the arguments of a process."""
    script = "env; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    ran = run(environment, "--", "sh", "-c", script)
    assert ran.code == 0, ran.err
    assert environment["CLAUDEMESH_INVITE"] not in ran.out
    assert "CLAUDEMESH_DAEMON_SOCK=" in ran.out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL),
    ],
)
def test_the_exit_code_is_that_of_the_command(
    environment: dict[str, str], words: tuple[str, ...], code: int
) -> None:
    """As a shell has it."""
    assert run(environment, "--", *words).code == code


def test_a_command_that_is_not_found_takes_no_use_of_the_invite(
    team: Mesh, environment: dict[str, str]
) -> None:
    """The next job has it."""
    made = team.cli(team.daemons["alice"], "invite", "create", "--ephemeral-only", "--json")
    alone = {**environment, "CLAUDEMESH_INVITE": json.loads(made)["invite"]}
    assert run(alone, "--", "no-such-program").code == run(alone, "--", "/no/such/program").code == 127
    assert run(alone, "--", "/etc/passwd").code == 126
    assert run(alone, "--", "true").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_and_the_member_leaves(
    team: Mesh, environment: dict[str, str], number: signal.Signals
) -> None:
    """The command decides its own end, and its sends are waited for."""
    name = f"ci-{number.name}"
    told = f"{SEND} alice 'stopped by {number.name}'"
    script = f'trap "{told}; exit 3" {number.name[3:]}; echo up; sleep 60 & wait'
    with subprocess.Popen(
        command("--name", name, "--", "sh", "-c", script),
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(WAIT_S) == 3
    until(lambda: f"stopped by {number.name}" in bodies(team.daemons["alice"]), "the message arrives")
    assert homes(environment) == []


def test_an_interrupt_from_the_terminal_reaches_the_command_once(environment: dict[str, str]) -> None:
    """The terminal sends it to the whole group, so it is not passed on again."""
    script = (
        "import os,signal,sys,time\n"
        # No print, which a signal cannot enter a second time.
        "signal.signal(signal.SIGINT, lambda *_: os.write(1, b'interrupted\\n'))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(60)\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(REPOSITORY)
        os.execve(sys.executable, command("--", sys.executable, "-c", script), environment)
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        assert b"up" in screen.readline()
        os.write(terminal, b"\x03")
        shown = b""
        while b"interrupted" not in shown:
            shown += screen.readline()
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5
    assert shown.count(b"interrupted") == 1


def test_the_daemon_outlives_a_killed_launcher_only_to_leave(team: Mesh, environment: dict[str, str]) -> None:
    """After SIGKILL the daemon sends what it has, leaves, and removes the private home."""
    script = f"{SEND} alice 'before the kill'; echo up; exec sleep 60"
    with subprocess.Popen(
        command("--name", "ci-killed", "--", "sh", "-c", script),
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "queued" in process.stdout.readline()
        assert process.stdout.readline() == "up\n"
        process.kill()
        until(lambda: "before the kill" in bodies(team.daemons["alice"]), "the message arrives")
        until(lambda: left(team, "ci-killed"), "the member has left")
        until(lambda: homes(environment) == [], "the private home is removed")
        os.killpg(process.pid, signal.SIGKILL)


def test_a_kill_before_the_daemon_starts_leaves_a_member_without_keys_that_the_reaper_ends(
    team: Mesh, environment: dict[str, str]
) -> None:
    """The member has joined and never connects. The next start removes the home with its keys."""
    armed = [sys.executable, "-m", "tests.support.armed", "run", "--name", "ci-never", "--", "echo", "ran"]
    points = {**environment, "CLAUDEMESH_FAILPOINTS": "run.after_join=kill"}
    done = subprocess.run(armed, cwd=REPOSITORY, env=points, capture_output=True, timeout=WAIT_S, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, ""), done.stderr
    [home] = homes(environment)
    assert (home / "daemon" / team.slug / "keypair.json").exists()
    status = "SELECT status, ephemeral FROM member WHERE name = 'ci-never'"
    assert broker_rows(team, status) == [("active", 1)]
    assert run(environment, "--name", "ci-next", "--", "true").code == 0
    assert homes(environment) == []


def test_sends_that_no_broker_accepts_are_named(environment: dict[str, str]) -> None:
    """75 when the command has succeeded; the code of the command when it has not."""
    with mesh("alice") as made:
        link = json.loads(made.cli(made.daemons["alice"], "invite", "create", "--uses", "2", "--json"))[
            "invite"
        ]
        kill = f"{SEND} alice first; kill -KILL {made.broker.pid}; {SEND} alice 'too late' --id lost-1"
        own = {**environment, "CLAUDEMESH_INVITE": link}
        ran = run(own, "--drain-timeout", "1s", "--", "sh", "-c", kill)
    assert ran.code == 75, ran.err
    assert "lost-1" in ran.err
    assert "--drain-timeout" in ran.err
    assert homes(environment) == []


def test_without_an_invite_it_says_how_to_get_one(environment: dict[str, str]) -> None:
    """And the command does not run."""
    del environment["CLAUDEMESH_INVITE"]
    ran = run(environment, "--", "echo", "ran")
    assert (ran.code, ran.out) == (64, "")
    assert "CLAUDEMESH_INVITE" in ran.err


def test_sends_of_a_daemon_that_was_killed_are_named_as_lost(environment: dict[str, str]) -> None:
    """The command goes on to its end, and its success is not reported as that of its sends."""
    kill = (
        "import os,socket,struct;s=socket.socket(socket.AF_UNIX);"
        "s.connect(os.environ['CLAUDEMESH_DAEMON_SOCK']);"
        "os.kill(struct.unpack('3i',s.getsockopt(socket.SOL_SOCKET,socket.SO_PEERCRED,12))[0],9)"
    )
    ran = run(environment, "--", "sh", "-c", f'"{sys.executable}" -c "{kill}"; echo went on')
    assert (ran.code, ran.out) == (75, "went on\n")
    assert "lost" in ran.err
    assert homes(environment) == []


def test_up_in_ci_with_an_invite_is_ephemeral(team: Mesh, environment: dict[str, str]) -> None:
    """The answer names the private home. `down` ends the member, and the home goes."""
    up = [
        sys.executable,
        "-m",
        "claudemesh",
        "daemon",
        "up",
        "-d",
        "--name",
        "ci-up",
        "--ttl",
        "1h",
        "--json",
    ]
    done = subprocess.run(
        up, cwd=REPOSITORY, env=environment, capture_output=True, timeout=WAIT_S, check=True
    )
    home = json.loads(done.stdout)["home"]
    assert homes(environment) == [Path(home)]
    until(lambda: not left(team, "ci-up"), "alice sees the member")
    inside = {**environment, "CLAUDEMESH_HOME": home}
    restart = [sys.executable, "-m", "claudemesh", "daemon", "restart", "--json"]
    refused = subprocess.run(restart, cwd=REPOSITORY, env=inside, capture_output=True, timeout=WAIT_S)
    assert (refused.returncode, json.loads(refused.stdout)["error"]) == (78, "ephemeral_member")
    log = next(Path(home).glob("daemon/*/daemon.log")).read_text()
    assert "persistent_keypair_in_ci_environment" not in log
    down = [sys.executable, "-m", "claudemesh", "daemon", "down"]
    subprocess.run(down, cwd=REPOSITORY, env=inside, capture_output=True, timeout=WAIT_S, check=True)
    until(lambda: left(team, "ci-up"), "the member has left")
    until(lambda: homes(environment) == [], "the private home is removed")


def test_a_persistent_member_in_ci_keeps_its_identity_and_is_warned_of(
    team: Mesh, environment: dict[str, str], short_path: Path
) -> None:
    """`join` has made it on purpose."""
    link = json.loads(team.cli(team.daemons["alice"], "invite", "create", "--json"))["invite"]
    del environment["CLAUDEMESH_INVITE"]
    for words in (["join", link, "--name", "kept"], ["daemon", "up", "-d"], ["daemon", "down"]):
        command = [sys.executable, "-m", "claudemesh", *words]
        subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, timeout=WAIT_S, check=True
        )
    root = short_path / "home/daemon" / team.slug
    assert "persistent_keypair_in_ci_environment" in (root / "daemon.log").read_text()
    assert (root / "keypair.json").exists()
    assert not left(team, "kept")
