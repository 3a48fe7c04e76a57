"""`doctor` on hosts with faults: a real fault, its code, and the command that mends it."""

from __future__ import annotations

import http.server
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit import wait_done
from tests.support.certificates import authority
from tests.support.cli import Ran, run
from tests.support.disks import fill, small_disk
from tests.support.faketime import FakeClock
from tests.support.processes import REPOSITORY, Daemon, Mesh, free_port, mesh, until
from tests.support.waiting import WAIT_S

OK, USAGE, UNAVAILABLE = 0, 64, 69


def codes(done: Ran) -> dict[str, str]:
    """The code of each check that has found a fault."""
    return {item["check"]: item["code"] for item in done.json["items"] if item["state"] != "ok"}


def doctor(daemon: Daemon, *options: str, **environment: str) -> dict[str, str]:
    """Run the doctor, and return its faults."""
    return codes(run(daemon.home, "doctor", "--json", *options, **environment))


@pytest.fixture(scope="module")
def lonely() -> Generator[Daemon]:
    """A host whose daemon does not run, and whose broker is what a test puts there."""
    with mesh("alice", start=False) as made:
        yield made.daemons["alice"]


def dial(daemon: Daemon, url: str, **environment: str) -> dict[str, Any]:
    """Change the address of the broker, and return the doctor's finding about it."""
    file = daemon.root / "membership.json"
    membership = json.loads(file.read_text())
    file.write_text(json.dumps({**membership, "broker_url": url}))
    items = run(daemon.home, "doctor", "--json", **environment).json["items"]
    found: dict[str, Any] = next(item for item in items if item["check"] == "broker")
    assert found["state"] == "ok" or found["remedy"], found
    return found


class _Plain(http.server.BaseHTTPRequestHandler):
    """A web server that is no broker."""

    def do_GET(self) -> None:
        if self.path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", "https://login.example/")
        else:
            self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Generator[int]:
    """A web server on a port, with TLS by a context."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Plain) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextmanager
def listening(handle: Callable[[socket.socket], None]) -> Generator[int]:
    """A port whose connections a function gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    handle(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_broker_that_refuses_is_told_from_one_that_does_not_answer(lonely: Daemon) -> None:
    """No program listens; a firewall swallows the connection; a program closes it."""
    assert dial(lonely, f"ws://127.0.0.1:{free_port()}")["code"] == "refused"
    held: list[socket.socket] = []
    with listening(held.append) as port:
        assert dial(lonely, f"ws://127.0.0.1:{port}")["code"] == "timed_out"
    for link in held:
        link.close()
    with listening(lambda link: link.close()) as port:
        assert dial(lonely, f"ws://127.0.0.1:{port}")["code"] == "closed"


def test_a_server_that_is_no_broker_is_named(lonely: Daemon) -> None:
    """It answers with a page or a redirect, or without the TLS of the address."""
    with serving() as port:
        assert dial(lonely, f"ws://127.0.0.1:{port}")["code"] == "not_a_broker"
        assert dial(lonely, f"ws://127.0.0.1:{port}/elsewhere")["code"] == "redirected"
        assert dial(lonely, f"wss://127.0.0.1:{port}")["code"] == "no_tls"
    assert dial(lonely, "wss://mesh.invalid")["code"] == "unknown_host"


def test_each_trouble_with_a_certificate_has_its_own_name(lonely: Daemon, tmp_path: Path) -> None:
    """Another authority, another name, past and future."""
    signed = authority(tmp_path, "DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.cert, signed.key)
    clock = FakeClock(tmp_path / "clock")
    trusted = {"SSL_CERT_FILE": str(signed.ca)}
    with serving(context) as port:
        unknown = dial(lonely, f"wss://localhost:{port}")
        assert unknown["code"] == "unknown_authority"
        assert unknown["next"] == f"claudemesh daemon set-broker wss://localhost:{port} --ca-file FILE"
        assert dial(lonely, f"wss://127.0.0.1:{port}", **trusted)["code"] == "wrong_certificate_name"
        assert dial(lonely, f"wss://localhost:{port}", **trusted)["code"] == "not_a_broker"
        for days, code in ((10, "certificate_expired"), (-10, "certificate_not_yet_valid")):
            clock.shift(days=days)
            assert dial(lonely, f"wss://localhost:{port}", **trusted, **clock.variables)["code"] == code


def test_a_proxy_in_the_way_is_named(lonely: Daemon) -> None:
    """One that is away, and one of another kind."""
    away = dial(lonely, "wss://mesh.invalid", HTTPS_PROXY=f"http://127.0.0.1:{free_port()}")
    assert (away["code"], "NO_PROXY" in away["remedy"]) == ("proxy_unreachable", True)
    assert dial(lonely, "wss://mesh.invalid", HTTPS_PROXY="socks5://127.0.0.1:1")["code"] == "unusable_proxy"


def test_an_address_that_is_not_the_public_one_is_found() -> None:
    """Refused, when the broker does not know it; and when invites hold the loopback all the same."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        made.broker.stop()
        made.broker.environment["CLAUDEMESH_BROKER_PUBLIC_URL"] = "wss://mesh.example.org"
        made.broker.start()
        made.broker.ready()
        assert doctor(alice)["address"] == "loopback_invite"
        # The name of another machine that leads to this one.
        unknown = dial(alice, f"ws://127.0.0.2:{made.broker.port}")
        assert unknown["code"] in ("refused", "wrong_address")


def test_a_revoked_member_and_a_stuck_daemon_are_told_from_one_that_is_stopped() -> None:
    """By the log of the last run, and by the lock."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = made.daemons.values()
        assert doctor(bob)["daemon"] == "not_running"
        assert run(bob.home, "up", "-d").code == OK
        pid = int((bob.root / "pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        (bob.root / "sock").rename(bob.root / "hidden")
        assert doctor(bob)["daemon"] == "other_daemon"
        (bob.root / "hidden").rename(bob.root / "sock")
        os.kill(pid, signal.SIGCONT)
        assert run(bob.home, "down").code == OK
        token = ("--admin-token-file", str(made.broker.data / "admin_token"))
        revoke = ("broker", "member", "revoke", made.slug, "bob", "--broker", made.broker.url)
        assert run(alice.home, *revoke, *token).code == OK
        assert run(bob.home, "up", "-d").code != OK
        assert doctor(bob)["daemon"] == "revoked"


def test_a_clock_that_differs_from_the_brokers_is_found(tmp_path: Path) -> None:
    """Messages go on; times that are shown are wrong."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        clock = FakeClock(tmp_path / "clock")
        clock.shift(days=1)
        alice.environment |= clock.variables
        alice.start()
        alice.ready()
        assert doctor(alice)["clock"] == "clock_skew"


def test_a_disk_without_room_and_one_without_files_are_told_apart() -> None:
    """A file system has room for bytes, and for a number of files."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        with small_disk(alice.root, "8m"):
            assert "disk" not in doctor(alice)
            fill(alice.root / "ballast")
            assert doctor(alice)["disk"] == "disk_full"
        with small_disk(alice.root, "8m", "nr_inodes=100"):
            for number in count():
                try:
                    (alice.root / f"ballast-{number}").touch()
                except OSError:
                    break
            assert doctor(alice)["disk"] == "inodes_used_up"


def test_a_cache_on_noexec_and_a_python_that_is_a_script_are_found(tmp_path: Path) -> None:
    """/proc is mounted noexec; pyenv and asdf put a script in the place of python3."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        if os.statvfs("/proc").f_flag & os.ST_NOEXEC:
            assert doctor(alice, CLAUDEMESH_CACHE="/proc/none/claudemesh")["cache"] == "cache_noexec"
        shim = tmp_path / "python3"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        shim.chmod(0o755)
        archive = tmp_path / "claudemesh.pyz"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("__main__.py", "from claudemesh.cli.main import main; raise SystemExit(main())")
        environment = {**os.environ, "CLAUDEMESH_HOME": str(alice.home), "PYTHONPATH": str(REPOSITORY)}
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
        command = [sys.executable, str(archive), "doctor", "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S)
        assert codes(Ran(done.returncode, done.stdout, done.stderr))["python3"] == "python_shim"


def test_hooks_that_do_not_run_are_found() -> None:
    """Not executable, without a file, not listed; a unit of an older installation, too."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        hooks = alice.root / "hooks"
        hooks.mkdir(mode=0o700)
        (hooks / "hooks.toml").write_text("[on-message]\n")
        (hooks / "on-message.sh").write_text("#!/bin/sh\n")
        (hooks / "on-message.sh").chmod(0o600)
        assert doctor(alice)["hooks"] == "hook_not_executable"
        assert doctor(alice, "--fix", "--yes").get("hooks") is None
        (hooks / "other.sh").write_text("#!/bin/sh\n")
        assert doctor(alice)["hooks"] == "hook_not_listed"
        (hooks / "on-message.sh").unlink()
        (hooks / "other.sh").unlink()
        assert doctor(alice)["hooks"] == "hook_not_runnable"
        units = alice.home / ".config" / "systemd" / "user"
        units.mkdir(parents=True)
        unit = units / "claudemesh@demo.service"
        unit.write_text("[Service]\nType=notify\nExecStart=/no/such/claudemesh daemon up\n")
        assert doctor(alice, HOME=str(alice.home))["unit"] == "unit_outdated"


def test_fix_mends_modes_and_removes_what_a_killed_daemon_has_left() -> None:
    """Only when it is told to, and never behind a daemon that runs."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        keys = alice.root / "keypair.json"
        keys.chmod(0o644)
        alice.kill()
        assert {"keys", "daemon"} <= doctor(alice).keys()
        refused = run(alice.home, "doctor", "--fix")
        assert (refused.code, "--yes" in refused.err) == (USAGE, True)
        assert (alice.root / "sock").exists()
        done = run(alice.home, "doctor", "--fix", "--yes", "--json")
        assert {item["problem"] for item in done.json["repairs"]} == {None}
        assert keys.stat().st_mode & 0o777 == 0o600
        assert not (alice.root / "sock").exists()
        assert codes(done) == {"daemon": "not_running"}
        alice.start()
        alice.ready()
        assert run(alice.home, "doctor", "--fix", "--yes").code == OK
        assert alice.request("GET", "/v1/health")[0] == OK + 200


def test_fix_queues_sends_again_that_died_of_a_cause_that_is_gone() -> None:
    """A topic that came back; what is too large stays dead."""
    with mesh("alice", "bob") as made:
        alice = made.daemons["alice"]
        sent = give_up(made, alice)
        assert doctor(alice)["outbox"] == "dead_sends"
        made.cli(alice, "topic", "create", "deploys")
        done = run(alice.home, "doctor", "--fix", "--yes", "--json")
        assert [(item["kind"], item["problem"]) for item in done.json["repairs"]] == [("requeue", None)]
        assert "outbox" not in codes(done)
        successor = until(lambda: [one for one in alice.outbox() if one != sent], "there is a successor")
        wait_done(alice, successor)


def give_up(made: Mesh, daemon: Daemon) -> str:
    """Let a post die, because its topic is not there when the broker gets it."""
    daemon.stop()
    (daemon.root / "topics.json").unlink(missing_ok=True)
    made.broker.stop()
    daemon.start()
    daemon.ready(connected=False)
    status, answer = daemon.post("deploys", "v42 is out")
    assert status == 202, answer
    made.broker.start()
    made.broker.ready()
    sent: str = answer["client_message_id"]
    until(lambda: daemon.outbox()[sent]["status"] == "dead", "it is given up")
    return sent


def test_fix_asks_on_a_terminal() -> None:
    """`n` leaves everything as it is."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        keys = alice.root / "keypair.json"
        keys.chmod(0o644)
        environment = {**os.environ, "CLAUDEMESH_HOME": str(alice.home), "PYTHONPATH": str(REPOSITORY)}
        for answer, mode in ((b"n\n", 0o644), (b"y\n", 0o600)):
            main, terminal = pty.openpty()
            os.write(main, answer)
            subprocess.run(
                [sys.executable, "-m", "claudemesh", "doctor", "--fix"],
                env=environment,
                stdin=terminal,
                capture_output=True,
                timeout=WAIT_S,
            )
            os.close(terminal)
            os.close(main)
            assert keys.stat().st_mode & 0o777 == mode
