"""A broker behind nginx and behind Caddy, as docs/deploy configures them; at the root and below a path."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from claudemesh.protocol.wire import PING_INTERVAL_S
from claudemesh.runtime.exits import OK
from claudemesh.runtime.guarded import client_of
from tests.support.certificates import Authority, authority
from tests.support.cli import run
from tests.support.fronts import DEPLOY, KINDS, front, missing
from tests.support.processes import Daemon, Mesh, free_port, mesh, until
from tests.support.waiting import WAIT_S


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """One kind of proxy, if it is installed."""
    wanted: str = request.param
    if reason := missing(wanted):
        pytest.skip(reason)
    return wanted


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate for localhost."""
    return authority(tmp_path_factory.mktemp("ca"), "DNS:localhost")


@pytest.mark.parametrize("path", ["", "/mesh"])
def test_a_mesh_works_behind_a_proxy(kind: str, path: str, signed: Authority) -> None:
    """Create, join, doctor, messages and files over links that the proxy upgrades; metrics stay inside."""
    port = free_port()
    url = f"wss://localhost:{port}{path}"
    with mesh(start=False) as made, front(kind, port, made.broker.port, signed):
        made.broker.stop()
        made.broker.arguments += ["--public-url", url, "--trusted-proxies", "127.0.0.1"]
        made.broker.start()
        made.broker.ready()
        alice, bob = (Daemon(made.root, name, made.slug) for name in ("alice", "bob"))
        made.daemons.update(alice=alice, bob=bob)
        token = str(made.broker.data / "admin_token")
        create = ["mesh", "create", made.slug, "--broker", url, "--name", "alice"]
        done = run(alice.home, *create, "--admin-token-file", token, "--ca-file", str(signed.ca))
        assert done.code == OK, done.err
        link = run(alice.home, "invite", "create", "--json").json["invite"]
        joined = run(bob.home, "join", link, "--name", "bob", "--ca-file", str(signed.ca))
        assert joined.code == OK, joined.err
        exchange(made)
        exchange_file(made)
        items = run(bob.home, "doctor", "--json").json["items"]
        assert next(item for item in items if item["check"] == "broker")["state"] == "ok"
        assert status_of(port, f"{path}/readyz", signed) == 200
        assert status_of(port, f"{path}/metrics", signed) == 404


def test_a_mesh_moves_behind_a_proxy_with_tls(kind: str, signed: Authority) -> None:
    """From `ws://` to `wss://`; a host that does not trust the certificate waits, and says why."""
    port = free_port()
    url = f"wss://localhost:{port}/mesh"
    with mesh("alice", "bob", start=False) as made, front(kind, port, made.broker.port, signed):
        made.broker.stop()
        made.broker.arguments += ["--public-url", made.broker.url, "--public-url", url]
        made.broker.start()
        made.broker.ready()
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        trust = ["daemon", "set-broker", made.broker.url, "--ca-file", str(signed.ca)]
        assert run(alice.home, *trust).code == OK
        exchange(made)
        assert run(alice.home, "mesh", "move", url).code == OK
        until(lambda: link_of(alice) == (True, url), "alice has moved")
        until(lambda: "no authority that this host trusts" in waits_for(bob), "bob says why he waits")
        assert link_of(bob) == (True, made.broker.url)
        assert run(bob.home, *trust).code == OK
        until(lambda: link_of(bob) == (True, url), "bob has moved")
        assert alice.send("bob", "moved")[0] == 202
        until(lambda: bob.inbox()[-1]["body"] == "moved", "the message has arrived")


def link_of(daemon: Daemon) -> tuple[bool, str]:
    """Return whether a daemon is connected, and the address that it dials."""
    found = daemon.request("GET", "/v1/health")[1]
    return found["connected"], found["broker_url"]


def waits_for(daemon: Daemon) -> str:
    """Return the conditions of a daemon in words."""
    return str(daemon.request("GET", "/v1/health")[1]["degraded"])


def test_a_proxy_names_the_client_that_it_sees(kind: str, signed: Authority) -> None:
    """A client that sends X-Forwarded-For by itself does not choose its address."""
    port = free_port()
    with listening() as (behind, headers), front(kind, port, behind, signed):
        status_of(port, "/readyz", signed, {"X-Forwarded-For": "203.0.113.9"})
        (forwarded,) = headers
    assert client_of(forwarded, lambda address: False) == "127.0.0.1"


def test_no_proxy_ends_an_idle_link() -> None:
    """nginx waits for more than two pings; Caddy has no such limit unless it is configured."""
    waits = re.findall(r"proxy_(?:read|send)_timeout (\d+)s;", (DEPLOY / "nginx.conf").read_text())
    assert len(waits) == 2
    assert all(int(wait) > 2 * PING_INTERVAL_S for wait in waits)
    assert "_timeout" not in (DEPLOY / "Caddyfile").read_text()


def test_a_path_that_no_proxy_removes_is_explained() -> None:
    """The broker itself serves no path: the error says which part has to remove it."""
    with mesh("alice", start=False) as made:
        home = made.daemons["alice"].home
        done = run(home, "daemon", "set-broker", f"{made.broker.url}/mesh", "--json")
        assert done.code != OK
        assert "proxy in front of it removes the path" in done.json["message"]


def exchange_file(made: Mesh) -> None:
    """Let alice share a file of several parts, and bob fetch it."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    content = bytes(range(256)) * 20_000
    source, out = made.root / "source", made.root / "fetched"
    source.write_bytes(content)
    fields = {"path": str(source), "to": "bob", "message": "the file"}
    status, shared = alice.request("POST", "/v1/file/share", fields)
    assert status == 202, shared
    until(lambda: any(item["body"] == "the file" for item in bob.inbox()), "the file is announced")
    get = {"id": shared["file_id"], "out": str(out)}
    until(lambda: bob.request("POST", "/v1/file/get", get)[0] == 200, "the file is fetched")
    assert out.read_bytes() == content


def exchange(made: Mesh) -> None:
    """Send a message and an answer."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    for daemon in (alice, bob):
        daemon.start()
    for daemon in (alice, bob):
        daemon.ready()
    for sender, receiver in ((alice, bob), (bob, alice)):
        assert sender.send(receiver.name, "x" * 30_000)[0] == 202
        until(lambda receiver=receiver: len(receiver.inbox()) == 1, "the message has arrived")


def status_of(port: int, path: str, signed: Authority, headers: dict[str, str] | None = None) -> int:
    """Return the status of a GET by the proxy."""
    context = ssl.create_default_context(cafile=signed.ca)
    link = HTTPSConnection("localhost", port, timeout=WAIT_S, context=context)
    link.request("GET", path, headers=headers or {})
    answer = link.getresponse()
    answer.read()
    link.close()
    return answer.status


@contextmanager
def listening() -> Generator[tuple[int, list[str]]]:
    """Yield the port of a server, and the X-Forwarded-For of its requests."""
    found: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.append(", ".join(self.headers.get_all("x-forwarded-for") or ()))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1], found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
