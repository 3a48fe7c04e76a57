"""`broker setup`: the commands that it prints lead to a broker that other hosts join."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from claudemesh.runtime.exits import CANNOT_CREATE, CONFIGURATION, OK, USAGE
from tests.support.certificates import authority
from tests.support.cli import Ran, run
from tests.support.processes import REPOSITORY, free_port, until
from tests.support.waiting import WAIT_S


class Server:
    """A host on which a broker is set up, and another host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.other = folder / "a", folder / "b"
        self.port = free_port()

    @property
    def toml(self) -> Path:
        return self.home / "broker/broker.toml"

    def setup(self, *options: str) -> Ran:
        return run(self.home, "broker", "setup", "--json", "--name", "alice", *options)

    def follow(self, commands: list[str]) -> None:
        """Run the commands that setup has printed."""
        for line in commands:
            program, *arguments = shlex.split(line)
            assert program == "claudemesh"
            done = run(self.home, *arguments)
            assert done.code == OK, (line, done.err)

    def local(self) -> list[str]:
        """The options for a broker that only this machine dials."""
        here = f"127.0.0.1:{self.port}"
        return ["--yes", "--public-url", here, "--listen", here, "--tls", "none", "--run", "foreground"]


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    """Two hosts; what they start is ended."""
    made = Server(tmp_path)
    yield made
    for home in (made.home, made.other):
        run(home, "daemon", "down")
    run(made.home, "broker", "down")


def meet(server: Server, made: dict[str, Any], *join: str) -> None:
    """Start the broker as printed, and let the other host join by the printed invite and send."""
    server.follow(made["next"])
    joined = run(server.other, "join", made["invite"], "--name", "bob", *join)
    assert joined.code == OK, joined.err
    assert run(server.other, "daemon", "up", "-d").code == OK
    assert run(server.other, "send", "alice", "hello", "--wait", "30000").code == OK
    until(lambda: "hello" in run(server.home, "inbox").out, "the message has arrived")


def test_the_printed_commands_and_invite_make_a_mesh(server: Server) -> None:
    """A second run with the same answers changes nothing, and makes another invite."""
    made = server.setup(*server.local())
    assert made.code == OK, made.err
    assert (made.json["changed"], made.json["membership"]["name"]) == (True, "alice")
    before = server.toml.stat().st_mtime_ns
    again = server.setup(*server.local())
    assert (again.code, again.json["changed"], again.json["membership"]) == (OK, False, None)
    assert server.toml.stat().st_mtime_ns == before
    assert again.json["invite"] != made.json["invite"]
    meet(server, again.json)
    # The broker runs now, and setup uses it.
    assert server.setup(*server.local()).code == OK


def test_a_broker_with_a_certificate_is_set_up_before_its_name_leads_here(server: Server) -> None:
    """The mesh is made without a connection to the name; hosts join there once the broker runs."""
    signed = authority(server.folder, "DNS:localhost")
    files = ["--tls-cert", str(signed.cert), "--tls-key", str(signed.key), "--ca-file", str(signed.ca)]
    address = ["--public-url", "localhost", "--listen", f"127.0.0.1:{server.port}"]
    made = server.setup("--yes", *address, *files, "--run", "foreground")
    assert made.code == OK, made.err
    assert made.json["public_urls"] == [f"wss://localhost:{server.port}"]
    meet(server, made.json, "--ca-file", str(signed.ca))


def test_other_settings_are_replaced_only_by_force(server: Server) -> None:
    """Nothing is changed otherwise; afterwards this host dials the new address."""
    assert server.setup(*server.local()).code == OK
    before = server.toml.read_bytes()
    server.port = free_port()
    refused = server.setup(*server.local())
    assert (refused.code, refused.json["error"]) == (CANNOT_CREATE, "file_exists")
    assert server.toml.read_bytes() == before
    forced = server.setup(*server.local(), "--force")
    assert (forced.code, forced.json["changed"]) == (OK, True)
    meet(server, forced.json)


def test_settings_that_no_broker_starts_with_are_refused_before_they_are_written(server: Server) -> None:
    """A certificate that is not there, one that is not given, a name that is none, and no terminal."""
    local = ["--yes", "--public-url", "localhost", "--run", "foreground"]
    missing = server.setup(*local, "--tls-cert", "/nowhere/a.pem", "--tls-key", "/nowhere/b.pem")
    assert (missing.code, "/nowhere/a.pem" in missing.json["message"]) == (CONFIGURATION, True)
    for options, code in (
        ([*local, "--tls", "files"], "no_certificate"),
        (["--yes", "--public-url", "a b"], "invalid_broker_url"),
        ([], "no_terminal"),
    ):
        done = server.setup(*options)
        assert (done.code, done.json["error"]) == (USAGE, code)
    assert not server.toml.exists()


def test_a_unit_or_a_compose_file_is_printed_for_the_same_settings(server: Server) -> None:
    """For a proxy in front the broker listens on the loopback and takes the proxy's word for the client."""
    proxied = ["--yes", "--public-url", "mesh.example.org", "--run"]
    unit = server.setup(*proxied, "service")
    assert unit.code == OK, unit.err
    assert f"broker up --data-dir {server.home}/broker" in unit.json["service"]
    assert unit.json["next"][0].startswith("claudemesh broker install-service")
    assert (unit.json["listen"], unit.json["public_urls"]) == ("127.0.0.1:7900", ["wss://mesh.example.org"])
    assert 'trusted_proxies = "127.0.0.1"' in server.toml.read_text()
    before = server.toml.read_bytes()
    compose = server.setup(*proxied, "compose", "--database-url", "postgresql://mesh:pw@db/mesh")
    assert compose.code == OK, compose.err
    assert (compose.json["invite"], compose.json["file"]) == (None, None)
    assert server.toml.read_bytes() == before
    text = compose.json["service"]
    assert '"127.0.0.1:7900:7900"' in text
    assert 'CLAUDEMESH_BROKER_PUBLIC_URL: "wss://mesh.example.org"' in text
    assert "pw@" not in text


def test_four_questions_are_asked_on_a_terminal(server: Server) -> None:
    """Each has a default; the result has a QR code."""
    answers = f"127.0.0.1\nnone\n{server.home}/broker\nforeground\n"
    shown = on_a_terminal(server.home, ["--listen", f"127.0.0.1:{server.port}"], answers)
    for question in ("Name by which other hosts dial", "TLS", "Data", "Run it"):
        assert question in shown
    assert "claudemesh://join/" in shown
    assert "\u2588" in shown
    assert f'public_url = ["ws://127.0.0.1:{server.port}"]' in server.toml.read_text()


def on_a_terminal(home: Path, options: list[str], answers: str) -> str:
    """Return what `broker setup` shows on a terminal where these lines are typed."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "claudemesh", "broker", "setup", *options],
        cwd=REPOSITORY,
        env={**kept, "CLAUDEMESH_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    os.write(leader, answers.encode())
    shown = b""
    try:
        while part := os.read(leader, 65_536):
            shown += part
    except OSError:
        pass  # The last end of the terminal is closed.
    os.close(leader)
    assert process.wait(WAIT_S) == OK, shown.decode()
    return shown.decode()
