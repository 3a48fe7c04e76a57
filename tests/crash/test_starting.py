"""Starting and stopping: one daemon per mesh (docs/spec/daemon.md, Starting, stopping, failing)."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.audit import rows
from tests.support.living import paths_in
from tests.support.processes import Daemon, Mesh, Process, mesh, until
from tests.support.waiting import WAIT_S

CANNOT_CREATE, CONFIGURATION, PERMISSION = 73, 78, 77


@pytest.fixture(scope="module")
def running() -> Generator[Mesh]:
    """A broker and alice, who is started by each test."""
    with mesh("alice", start=False) as made:
        yield made


@pytest.fixture
def alice(running: Mesh) -> Generator[Daemon]:
    """Alice's daemon, not running before nor after."""
    daemon = running.daemons["alice"]
    yield daemon
    if daemon.running:
        daemon.kill()


def exit_code(process: Process) -> int:
    """Start a process that is expected to end by itself."""
    process.start()
    assert process._popen is not None
    return process._popen.wait(WAIT_S)


def test_of_many_started_at_once_exactly_one_serves(running: Mesh, alice: Daemon) -> None:
    """The losers exit 73 and leave the files intact."""
    rivals = [Daemon(running.root, "alice", running.slug) for _ in range(12)]
    for rival in rivals:
        rival.start()
    until(lambda: sum(rival.running for rival in rivals) == 1, "one is left")
    [winner] = [rival for rival in rivals if rival.running]
    winner.ready()
    codes = {rival._popen.returncode for rival in rivals if rival is not winner and rival._popen}
    assert codes == {CANNOT_CREATE}
    assert winner.request("GET", "/v1/health")[1]["pid"] == winner.pid
    assert winner.stop() == 0


def test_a_stale_socket_and_a_stale_pid_are_replaced(alice: Daemon) -> None:
    """After a SIGKILL the next start just works."""
    alice.start()
    alice.ready()
    alice.kill()
    assert alice.sock.exists()
    (alice.root / "pid").write_text("1\n")
    alice.start()
    alice.ready()
    assert alice.stop() == 0
    assert not alice.sock.exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_socket_is_never_removed(alice: Daemon, kind: str) -> None:
    """A foreign file in the socket's place stops the start, exit 73."""
    precious = alice.home / "precious"
    precious.write_text("keep")
    if kind == "file":
        alice.sock.write_text("keep")
    else:
        alice.sock.symlink_to(precious)
    try:
        assert exit_code(alice) == CANNOT_CREATE
        assert alice.sock.read_text() == "keep"
    finally:
        alice.sock.unlink()


def test_a_socket_path_that_is_too_long_names_the_setting(alice: Daemon, tmp_path: Path) -> None:
    """The message names CLAUDEMESH_HOME."""
    home = tmp_path / ("x" * 100)
    home.mkdir(mode=0o700)
    os.chmod(tmp_path, 0o700)
    target = home / "daemon"
    target.mkdir(mode=0o700)
    (target / "demo").mkdir(mode=0o700)
    for name in ("membership.json", "keypair.json"):
        (target / "demo" / name).write_bytes((alice.root / name).read_bytes())
        (target / "demo" / name).chmod(0o600)
    process = Process(["daemon", "up"], home, tmp_path / "log")
    assert exit_code(process) == CANNOT_CREATE
    assert "CLAUDEMESH_HOME" in process.log.read_text()


@pytest.mark.parametrize(
    ("damage", "code"),
    [("truncated", CONFIGURATION), ("readable", PERMISSION), ("missing", CONFIGURATION)],
)
def test_a_bad_key_file_is_refused_and_never_replaced(alice: Daemon, damage: str, code: int) -> None:
    """A private key is never replaced silently."""
    path = alice.root / "keypair.json"
    good = path.read_bytes()
    try:
        if damage == "truncated":
            path.write_bytes(good[:20])
        elif damage == "readable":
            path.chmod(0o644)
        else:
            path.unlink()
        before = path.read_bytes() if path.exists() else None
        assert exit_code(alice) == code
        assert (path.read_bytes() if path.exists() else None) == before
        assert "ed25519_seed" not in alice.log.read_text()
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(good)
        path.chmod(0o600)


def test_a_damaged_outbox_is_refused_and_left_as_it_is(alice: Daemon) -> None:
    """It may hold unsent messages: exit 78, nothing changed."""
    alice.start()
    alice.ready()
    alice.stop()
    path = alice.root / "outbox.db"
    good = path.read_bytes()
    path.write_bytes(b"damaged" + good[7:])
    try:
        assert exit_code(alice) == CONFIGURATION
        assert path.read_bytes() == b"damaged" + good[7:]
    finally:
        path.write_bytes(good)


def test_sigterm_exits_0_with_the_row_kept(alice: Daemon, running: Mesh) -> None:
    """Stop accepting, let answers land, exit 0; what is not sent stays pending."""
    running.broker.kill()
    try:
        alice.start()
        alice.ready(connected=False)
        assert alice.send("#all", "later", client_message_id="kept")[0] == 202
        assert alice.stop() == 0
        kept = rows(alice.root / "outbox.db", "SELECT status FROM outbox WHERE client_message_id = 'kept'")
        assert kept == [("pending",)]
    finally:
        running.broker.start()
        running.broker.ready()


def test_the_socket_is_for_its_owner_only(alice: Daemon) -> None:
    """0600 in a 0700 directory, and every other file private, under any umask."""
    previous, alice.forked = os.umask(0), False
    try:
        alice.start()
        alice.ready()
    finally:
        os.umask(previous)
        alice.forked = True
    modes = {path.name: path.stat().st_mode & 0o077 for path in paths_in(alice.root)}
    public = {name for name, mode in modes.items() if mode and name not in ("schema_version", "config.toml")}
    assert public == set()
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(alice.sock))
    alice.stop()
