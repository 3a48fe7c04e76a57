"""Another user of the machine reads no key, runs no code of theirs here, and gets no message handed over."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from claudemesh import sdk
from claudemesh.runtime.files import FileLock
from claudemesh.sdk import UnsafeSocket
from tests.support.cli import run
from tests.support.processes import REPOSITORY, Daemon, mesh
from tests.support.waiting import WAIT_S

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.mark.parametrize("which", ["daemon", "broker"])
def test_a_process_that_is_aborted_leaves_no_core(which: str) -> None:
    """The private keys and the messages in its memory stay off the disk, for any core limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.fail("this machine forbids cores: the test would prove nothing")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        with mesh("alice", forked=False) as made:
            process = made.daemons["alice"] if which == "daemon" else made.broker
            assert process._popen is not None
            os.kill(process.pid, signal.SIGABRT)
            _, status = os.waitpid(process.pid, 0)
            process._popen.returncode = os.waitstatus_to_exitcode(status)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)


def claudemesh(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")},
        "CLAUDEMESH_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        [sys.executable, "-m", "claudemesh", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def give_away(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def places(daemon: Daemon) -> dict[str, Path]:
    return {
        "home": daemon.home,
        "daemon": daemon.home / "daemon",
        "mesh": daemon.root,
        "sock": daemon.sock,
    }


@as_root
@pytest.mark.parametrize("place", ["home", "daemon", "mesh", "sock"])
@pytest.mark.parametrize(
    "command", [["send", "alice", "secret"], ["send", "alice", "secret", "--json"], ["inbox"]]
)
def test_a_home_of_another_user_is_sent_nothing(place: str, command: list[str]) -> None:
    """Neither the fast path nor the full command line hands a text to a daemon that may be another user's."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        foreign = places(alice)[place]
        give_away(foreign)
        done = claudemesh(alice.home, *command)
        assert done.returncode == 78
        assert f"{foreign} belongs to another user" in done.stdout + done.stderr
        os.chown(foreign, 0, 0)
        assert alice.outbox() == {}


@as_root
@pytest.mark.parametrize("place", ["home", "daemon", "mesh", "sock"])
@pytest.mark.parametrize("program", ["Daemon", "AsyncDaemon"])
def test_the_sdk_hands_no_text_to_a_home_of_another_user(
    place: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        monkeypatch.setenv("CLAUDEMESH_HOME", str(alice.home))
        monkeypatch.delenv("CLAUDEMESH_DAEMON_SOCK", raising=False)
        foreign = places(alice)[place]
        give_away(foreign)
        with pytest.raises(UnsafeSocket, match=f"{foreign} belongs to another user"):
            sdk_send(program)
        os.chown(foreign, 0, 0)
        assert alice.outbox() == {}
        sdk_send(program)
        assert len(alice.outbox()) == 1


def sdk_send(program: str) -> None:
    if program == "Daemon":
        sdk.Daemon().send("alice", "secret")
    else:
        asyncio.run(sdk.AsyncDaemon().send("alice", "secret"))


# Binds as root and listens as `nobody`: the file is root's, and the process behind it is not.
_FOREIGN_LISTENER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
listener.listen()
print("listening", flush=True)
while True:
    link, _ = listener.accept()
    link.settimeout(30)
    print(link.recv(65536), flush=True)
    link.close()
"""


@as_root
@pytest.mark.parametrize("owner", ["another user", "this user"])
def test_the_sdk_hands_no_token_to_a_port_of_another_user(owner: str, tmp_path: Path) -> None:
    """The kernel lists who listens on a port."""
    program = (
        _FOREIGN_BROKER if owner == "another user" else _FOREIGN_BROKER.replace("os.set", "id or os.set")
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as listener:
        try:
            assert listener.stdout is not None
            reason = sdk._distrust_port(int(listener.stdout.readline()), "http.port")
        finally:
            listener.kill()
    assert (reason is not None) is (owner == "another user")


@as_root
def test_a_process_of_another_user_behind_ones_own_socket_gets_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The socket's owner says who made it; the kernel says whose process answers."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        monkeypatch.setenv("CLAUDEMESH_HOME", str(alice.home))
        command = [sys.executable, "-c", _FOREIGN_LISTENER, str(alice.sock)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout is not None
            try:
                assert listener.stdout.readline() == "listening\n"
                for arguments in (["send", "alice", "secret"], ["inbox"]):
                    done = claudemesh(alice.home, *arguments)
                    assert done.returncode == 78
                    assert f"A process of another user (uid {NOBODY}) answers" in done.stderr
                for program in ("Daemon", "AsyncDaemon"):
                    with pytest.raises(UnsafeSocket, match="process of another user"):
                        sdk_send(program)
            finally:
                listener.kill()
            received = listener.stdout.read().splitlines()
    assert received
    assert set(received) == {"b''"}


# Listens on a port as `nobody`, and prints its input.
_FOREIGN_BROKER = """
import os, socket
os.setgid(65534)
os.setuid(65534)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    link, _ = listener.accept()
    print(link.recv(65536), flush=True)
    link.close()
"""


@as_root
@pytest.mark.parametrize("command", [["broker", "mesh", "list"], ["mesh", "create", "team", "--broker"]])
def test_the_admin_token_goes_to_no_process_of_another_user(command: list[str], tmp_path: Path) -> None:
    """Any user can bind the port of a broker that has stopped."""
    data = tmp_path / "broker"
    data.mkdir(mode=0o700)
    (data / "admin_token").write_text("t" * 43)
    (data / "admin_token").chmod(0o600)
    lock = FileLock(data / "lock")
    with subprocess.Popen(
        [sys.executable, "-c", _FOREIGN_BROKER], stdout=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout is not None
        try:
            url = f"ws://127.0.0.1:{listener.stdout.readline().strip()}"
            (data / "broker.json").write_text(f'{{"url": "{url}", "pid": {listener.pid}}}')
            # As if a broker used the directory: without one its file is not believed at all.
            assert lock.acquire()
            done = claudemesh(tmp_path, *command, *([url] if command[-1] == "--broker" else []))
        finally:
            lock.release()
            listener.kill()
        received = listener.stdout.read()
    assert done.returncode == 78
    assert f"A process of another user (uid {NOBODY}) listens at {url}" in done.stderr
    assert received == ""


def test_the_admin_token_that_is_found_goes_to_no_broker_elsewhere(tmp_path: Path) -> None:
    """Only a token that was given for it does. The address leads to this machine, but is not known to."""
    with mesh() as made, socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(WAIT_S)
        environment = {"CLAUDEMESH_BROKER_DATA_DIR": str(made.broker.data)}
        there = ["--broker", f"ws://127.1:{elsewhere.getsockname()[1]}", "--insecure", "--json"]
        for command in (["mesh", "create", "team", "--name", "x"], ["broker", "mesh", "list"]):
            done = run(tmp_path, *command, *there, **environment)
            assert (done.code, done.json["error"]) == (64, "no_admin_token"), command
            assert "--admin-token-file" in done.json["message"]
        # The first connection that arrives is this one.
        with socket.create_connection(elsewhere.getsockname()) as last, elsewhere.accept()[0] as came:
            assert came.getpeername() == last.getsockname()
        own = ["--broker", made.broker.url.replace("127.0.0.1", "localhost"), "--json"]
        assert run(tmp_path, "broker", "mesh", "list", *own, **environment).code == 0


def test_the_admin_token_that_is_found_goes_to_a_public_address_of_the_same_broker(tmp_path: Path) -> None:
    """As it stands in the file of the running broker: scheme, host and port."""
    public = "ws://127.1:7"
    with mesh() as made:
        made.broker.environment["CLAUDEMESH_BROKER_PUBLIC_URL"] = public
        made.broker.kill()
        made.broker.start()
        made.broker.ready()
        environment = {"CLAUDEMESH_BROKER_DATA_DIR": str(made.broker.data)}
        for url, error in ((public, "broker_unreachable"), ("wss://127.1:7", "no_admin_token")):
            where = ["--broker", url, "--insecure", "--json"]
            done = run(tmp_path, "broker", "mesh", "list", *where, **environment)
            assert done.json["error"] == error, url


@as_root
def test_keys_are_not_written_into_the_home_of_another_user(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    give_away(home)
    with mesh() as made:
        token = made.broker.data / "admin_token"
        create = ["mesh", "create", "team", "--broker", made.broker.url, "--name", "alice"]
        done = claudemesh(home, *create, "--admin-token-file", str(token))
    assert done.returncode == 77
    assert "belongs to another user" in done.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_home_below_a_folder_that_everybody_can_write_to_is_refused(tmp_path: Path) -> None:
    """A user who can rename a folder there can put another one in its place."""
    shared = tmp_path / "shared"
    (shared / "home").mkdir(parents=True, mode=0o700)
    with mesh("alice") as made:
        made.daemons["alice"].stop()
        shutil.copytree(made.daemons["alice"].home / "daemon", shared / "home" / "daemon")
    (shared / "home" / "daemon").chmod(0o700)
    shared.chmod(0o777)
    done = claudemesh(shared / "home", "status")
    assert done.returncode == 78
    assert f"chmod go-w {shared}" in done.stderr


@pytest.mark.parametrize("command", [["daemon", "up", "-d"], ["logs"], ["bugreport"]])
def test_a_link_in_the_place_of_the_log_is_neither_written_nor_shown(
    command: list[str], tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("a secret line\n")
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        (alice.root / "daemon.log").symlink_to(target)
        done = claudemesh(alice.home, *command)
        assert not alice.sock.exists()
    assert "daemon.log is a symbolic link" in done.stdout + done.stderr
    assert "a secret line" not in done.stdout
    assert target.read_text() == "a secret line\n"


def test_a_daemon_writes_its_log_through_no_link_and_runs_all_the_same(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        (alice.root / "daemon.log").symlink_to(target)
        alice.environment["CLAUDEMESH_LOG_FILE"] = str(alice.root / "daemon.log")
        alice.start()
        alice.ready()
        assert target.read_text() == ""
        alice.stop()
        (alice.root / "daemon.log").unlink()
        alice.start()
        alice.ready()
        assert (alice.root / "daemon.log").stat().st_mode & 0o777 == 0o600
        assert "daemon_started" in (alice.root / "daemon.log").read_text()


_LINKED = ("keypair.json", "membership.json", "peers.json", "config.toml", "local_token", "outbox.db", "lock")


@pytest.mark.parametrize("name", _LINKED)
def test_a_link_in_the_place_of_a_file_of_the_daemon_is_not_followed(name: str, tmp_path: Path) -> None:
    """The daemon does not start, or starts without it; what the link leads to stays as it was."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        (alice.root / "config.toml").write_text("[ipc]\ntcp_enabled = true\n")
        alice.start()
        alice.ready()
        alice.stop()
        path, target = alice.root / name, tmp_path / name
        if path.exists():
            shutil.move(path, target)
        else:
            target.write_bytes(b"")
        before = target.read_bytes()
        path.symlink_to(target)
        alice.start()
        code = alice.ended()
        assert code in (73, 75, 77, 78), alice.log.read_text()[-2000:]
        assert f"{path}" in alice.log.read_text()
        assert target.read_bytes() == before
