"""Starts that cannot succeed name the cause and end with 75; stops are quick for any behaviour of clients."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.living import files_in
from tests.support.processes import Broker, Daemon, mesh, until

UNAVAILABLE, TEMPORARY = 69, 75


@contextmanager
def read_only(folder: Path) -> Generator[None]:
    """A folder as a read-only file system; skips where this user may not mount."""
    for command in (["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder]):
        if subprocess.run([str(word) for word in command], capture_output=True).returncode:
            pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_start_on_a_read_only_file_system_names_the_file_the_reason_and_the_remedy() -> None:
    """Exit 75, which a supervisor retries, and the next start works."""
    with mesh("alice") as made:
        [alice] = made.daemons.values()
        assert alice.stop() == 0
        with read_only(alice.root):
            alice.start()
            assert alice.ended() == TEMPORARY
            last = alice.log.read_text().splitlines()[-1]
            assert str(alice.root) in last
            assert "read-only" in last
            assert "mount it" in last
            assert "Traceback" not in alice.log.read_text()
        alice.start()
        alice.ready()


def test_a_broker_begins_no_new_database_in_one_that_has_lost_its_content(tmp_path: Path) -> None:
    """A copy that was cut to nothing is damage, and no fresh start."""
    broker = Broker(tmp_path)
    broker.start()
    broker.ready()
    broker.stop()
    (broker.data / "broker.db").write_bytes(b"")
    broker.start()
    assert broker.ended() == UNAVAILABLE
    assert "has lost its content" in broker.log.read_text()
    assert (broker.data / "broker.db").stat().st_size == 0


@pytest.mark.parametrize("limit", [6, 8, 10, 12, 14, 16, 20, 24])
def test_a_broker_without_descriptors_says_so_or_works(tmp_path: Path, limit: int) -> None:
    """The event loop's library would abort the process; the broker ends with a sentence before that."""
    broker = Broker(tmp_path)
    broker.prefix = ["bash", "-c", f'ulimit -c 0; ulimit -n {limit}; exec "$@"', "bash"]
    broker.start()
    until(lambda: not broker.running or broker.is_ready(), "it ends or answers")
    if broker.running:
        assert broker.stop() == 0
        return
    code, text = broker.ended(), broker.log.read_text()
    assert code == TEMPORARY, text
    assert "ulimit -n" in text
    assert "Traceback" not in text
    assert "RuntimeWarning" not in text


@pytest.mark.parametrize("limit", [6, 9, 12, 15, 18, 20, 21, 30])
def test_a_start_without_descriptors_says_so_or_works(limit: int) -> None:
    """Wherever they run out: a sentence with the limit's name, never a traceback or a bare errno."""
    with mesh("alice") as made:
        [alice] = made.daemons.values()
        assert alice.stop() == 0
        seen = len(alice.log.read_text())
        alice.prefix = ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash"]
        alice.start()
        until(lambda: not alice.running or alice.request("GET", "/v1/health"), "it ends or answers")
        if not alice.running:
            code, text = alice.ended(), alice.log.read_text()[seen:]
            assert code == TEMPORARY, text
            assert "ulimit -n" in text
            assert "Traceback" not in text
        else:
            alice.kill()
        alice.prefix = []
        alice.start()
        alice.ready()


class Followers:
    """Clients of the event stream that come back as soon as it ends."""

    def __init__(self, daemon: Daemon, count: int) -> None:
        self._path = str(daemon.sock)
        self._over = threading.Event()
        self.opened = 0
        self._threads = [threading.Thread(target=self._follow, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _follow(self) -> None:
        while not self._over.is_set():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as link:
                link.connect(self._path)
                link.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.opened += 1
                while link.recv(4096):
                    pass

    def end(self) -> None:
        """Come back no more."""
        self._over.set()


def test_sigterm_ends_a_daemon_soon_whatever_its_clients_do() -> None:
    """Followers that reconnect at once, a request that never ends, an idle connection, a reader that sleeps,
    and a caller that waits for a broker that is away."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        for number in range(40):
            assert alice.send("bob", "x" * 100_000, client_message_id=f"m{number}")[0] == 202
        until(lambda: len(bob.inbox()) == 40, "bob has them")
        made.broker.kill()
        followers = Followers(bob, 16)
        until(lambda: followers.opened >= 16, "they follow")
        links = []
        for text in (
            b"",
            b"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
            b"GET /v1/inbox?limit=500 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ):
            link = socket.socket(socket.AF_UNIX)
            link.connect(str(bob.sock))
            link.sendall(text)
            links.append(link)
        answers: list[tuple[int, bytes]] = []
        waiter = threading.Thread(target=lambda: answers.append(wait_for_the_broker(bob)))
        waiter.start()
        until(lambda: bob.outbox(), "the send is queued")
        assert bob.stop() == 0
        followers.end()
        waiter.join()
        for link in links:
            link.close()
        assert answers[0][0] == 202, answers
        text = bob.log.read_text()
        assert "Traceback" not in text
        # Its end is in the log; the drain did not have to be given up for it.
        assert '"daemon_stopped"' in text
        assert '"drain_unfinished"' not in text


def wait_for_the_broker(daemon: Daemon) -> tuple[int, bytes]:
    """Send and wait for the broker's word for 30 s."""
    connection = http.client.HTTPConnection("localhost")
    with closing(connection):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(daemon.sock))
        body = json.dumps({"to": "alice", "message": "x"})
        connection.request("POST", "/v1/send?wait_ms=30000", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


def test_a_second_sigterm_ends_at_once() -> None:
    """Even while the first one waits; the next start goes on."""
    with mesh("alice") as made:
        [alice] = made.daemons.values()
        followers = Followers(alice, 4)
        until(lambda: followers.opened >= 4, "they follow")
        slow = socket.socket(socket.AF_UNIX)
        slow.connect(str(alice.sock))
        slow.sendall(b"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        os.kill(alice.pid, signal.SIGTERM)
        until(lambda: not accepts(alice), "the listener is closed")
        os.kill(alice.pid, signal.SIGTERM)
        # Killed by it, with the request that never ends still open: an end in order is 0.
        assert alice.ended() == -signal.SIGTERM
        followers.end()
        slow.close()
        alice.start()
        alice.ready()


def accepts(daemon: Daemon) -> bool:
    """Whether a process listens on the socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(daemon.sock))
        except OSError:
            return False
    return True


def test_positions_point_behind_every_message_of_a_new_inbox() -> None:
    """inbox.db is damaged and replaced: readers that resume at their position get all new messages."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        for number in range(30):
            assert alice.send("bob", "old", client_message_id=f"old-{number}")[0] == 202
        until(lambda: len(bob.inbox()) == 30, "bob has them")
        last = bob.inbox()[-1]["seq"]
        assert bob.stop() == 0
        database = bob.root / "inbox.db"
        database.write_bytes(b"not a database at all" * 1000)
        bob.start()
        bob.ready()
        until(lambda: not (bob.root / "inbox.db.rebuild").exists(), "the old ones are read back")
        for number in range(20):
            assert alice.send("bob", "new", client_message_id=f"new-{number}")[0] == 202
        until(lambda: len(bob.inbox()) == 50, "bob has the new ones too")
        status, page = bob.request("GET", f"/v1/inbox?after={last}&limit=500")
        assert status == 200
        assert [item["recovered"] for item in page["items"]] == [False] * 20
        position = page["items"][-1]["seq"]
        assert bob.stop() == 0
        bob.start()
        bob.ready()
        assert alice.send("bob", "next", client_message_id="next")[0] == 202
        until(lambda: len(bob.inbox()) == 51, "and the next one")
        # A clean restart gives out the very next number.
        assert bob.inbox()[-1]["seq"] == position + 1


def test_every_file_of_a_mesh_is_private() -> None:
    """0600 below the mesh's directory, for every writer."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        assert alice.send("bob", "x")[0] == 202
        until(lambda: bob.inbox(), "it came")
        files = [path for path in files_in(alice.root) if path.name != "config.toml"]
        assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == {
            path.name: "0o600" for path in files
        }
