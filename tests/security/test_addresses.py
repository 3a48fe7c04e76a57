"""A broker knows its own addresses: what was signed for another one counts for nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

from claudemesh.runtime.exits import CONFIGURATION, OK
from tests.support.balancer import balancer
from tests.support.cli import run
from tests.support.processes import Broker, Daemon, Mesh, free_port, mesh, until
from tests.support.proxy import Rules, proxy


@pytest.fixture
def pair() -> Generator[Mesh]:
    """A broker, alice and bob; only alice runs."""
    with mesh("alice", "bob", start=False) as made:
        made.daemons["alice"].start()
        made.daemons["alice"].ready()
        yield made


@contextmanager
def tcp_relay(broker_port: int) -> Generator[int]:
    """Passes on bytes, and nothing else."""
    with balancer([broker_port], free_port()) as made:
        yield made.port


@contextmanager
def host_rewriting_relay(broker_port: int) -> Generator[int]:
    """Opens a connection of its own to the broker, with the broker's address as Host."""
    with proxy(broker_port, Rules()) as port:
        yield port


@contextmanager
def redirecting(target: str) -> Generator[tuple[str, list[str]]]:
    """Answers everything with a redirect; yields its URL and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            asked.append(self.path)
            self.send_response(307)
            self.send_header("location", target + self.path)
            self.send_header("content-type", "application/json")
            body = b'{"mesh_id": "", "addresses": []}'
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def dial(daemon: Daemon, url: str) -> None:
    """Let a daemon dial another address, as a changed record of a name would."""
    path = daemon.root / "membership.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "broker_url": url}))


def told(daemon: Daemon) -> str:
    """The last line that a process that has ended left in its log."""
    return daemon.log.read_text().splitlines()[-1]


def connections(broker: Broker, outcome: str) -> float:
    """Return the number of handshakes that have ended in this way at a broker."""
    with urlopen(f"http://127.0.0.1:{broker.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    prefix = f'cm_broker_handshakes_total{{outcome="{outcome}"}}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(prefix))


@pytest.mark.parametrize("relay", [tcp_relay, host_rewriting_relay])
def test_a_relayed_hello_is_refused_and_no_message_is_acknowledged_away(
    pair: Mesh, relay: Callable[[int], AbstractContextManager[int]]
) -> None:
    """The daemon ends with 78 and names both addresses; what waits for it is still there afterwards."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    bob.start()
    bob.ready()
    bob.stop()
    assert alice.send("bob", "kept", client_message_id="kept")[0] == 202
    until(lambda: alice.outbox()["kept"]["status"] == "done", "the broker has it")
    completed = connections(pair.broker, "completed")
    with relay(pair.broker.port) as port:
        dial(bob, f"ws://127.0.0.1:{port}")
        bob.start()
        assert bob.ended() == CONFIGURATION
        assert f"ws://127.0.0.1:{port}" in told(bob)
        assert pair.broker.url in told(bob)
        assert "set-broker" in told(bob)
        assert "--public-url" in told(bob)
    assert connections(pair.broker, "completed") == completed
    dial(bob, pair.broker.url)
    bob.start()
    bob.ready()
    until(lambda: [item["body"] for item in bob.inbox()] == ["kept"], "the message has arrived")


def test_a_redirect_of_the_link_is_not_followed(pair: Mesh) -> None:
    """The daemon goes on trying at its own address, and says where it was sent to."""
    bob, handshakes = pair.daemons["bob"], connections(pair.broker, "completed")
    with redirecting(pair.broker.url.replace("ws:", "http:")) as (url, asked):
        dial(bob, url)
        bob.start()
        bob.ready(connected=False)
        until(lambda: len(asked) >= 3, "it was asked three times")
        error = bob.request("GET", "/v1/health")[1]["last_error"]
        assert f"redirect (307) to http://127.0.0.1:{pair.broker.port}/v1/ws" in error
        assert "set-broker" in error
        assert bob.stop() == OK
    assert set(asked) == {"/v1/ws"}
    assert connections(pair.broker, "completed") == handshakes


def test_a_redirect_of_a_join_or_a_new_mesh_is_not_followed(pair: Mesh, tmp_path: Path) -> None:
    """Keys and tokens go to the address that was given, or nowhere; nothing is kept of the answer."""
    token = str(pair.broker.data / "admin_token")
    with redirecting(pair.broker.url.replace("ws:", "http:")) as (url, asked):
        create = ["mesh", "create", "two", "--broker", url, "--admin-token-file", token, "--json"]
        made = run(tmp_path / "a", *create)
        assert (made.code, made.json["error"]) == (CONFIGURATION, "redirected")
        assert pair.broker.url.removeprefix("ws://") in made.json["message"]
        dial(pair.daemons["alice"], url)
        link = json.loads(pair.cli(pair.daemons["alice"], "invite", "create", "--json"))["invite"]
        joined = run(tmp_path / "b", "join", link, "--name", "carol", "--json")
        assert (joined.code, joined.json["error"]) == (CONFIGURATION, "redirected")
        assert {path.partition("?")[0] for path in asked} == {"/v1/join/challenge", "/v1/invites"}
    assert not list(tmp_path.rglob("membership.json"))


def test_a_join_or_a_new_mesh_at_an_address_that_the_broker_does_not_know_is_refused(
    pair: Mesh, tmp_path: Path
) -> None:
    """Before anything is made: a daemon that dialled it would only end."""
    token = str(pair.broker.data / "admin_token")
    with tcp_relay(pair.broker.port) as port:
        url = f"ws://127.0.0.1:{port}"
        create = ["mesh", "create", "two", "--broker", url, "--admin-token-file", token, "--json"]
        made = run(tmp_path / "a", *create)
        assert (made.code, made.json["error"]) == (CONFIGURATION, "wrong_address")
        assert url in made.json["message"]
        assert pair.broker.url in made.json["message"]
        dial(pair.daemons["alice"], url)
        link = json.loads(pair.cli(pair.daemons["alice"], "invite", "create", "--json"))["invite"]
        joined = run(tmp_path / "b", "join", link, "--name", "carol", "--json")
        assert (joined.code, joined.json["error"]) == (CONFIGURATION, "wrong_address")
    listed = ["broker", "mesh", "list", "--broker", pair.broker.url, "--admin-token-file", token, "--json"]
    meshes = run(tmp_path / "a", *listed)
    assert [item["slug"] for item in meshes.json["items"]] == ["demo"]
    assert not list(tmp_path.rglob("membership.json"))


def test_members_go_on_when_their_broker_gets_a_public_url(pair: Mesh) -> None:
    """The address that they dial is still one that it listens at."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    pair.broker.stop()
    pair.broker.stand_behind(free_port())
    pair.broker.start()
    pair.broker.ready()
    bob.start()
    bob.ready()
    alice.ready()
    assert alice.send("bob", "on", client_message_id="on")[0] == 202
    until(lambda: [item["body"] for item in bob.inbox()] == ["on"], "the message has arrived")
    finding = next(item for item in _doctor(bob) if item["check"] == "broker")
    assert (finding["state"], pair.broker.url in finding["detail"]) == ("ok", True)


def test_a_host_that_dials_an_unknown_address_is_told_both_and_mends_it_by_one_command(pair: Mesh) -> None:
    """By the daemon, by doctor, and by set-broker, which takes no address that the broker does not know."""
    bob, front = pair.daemons["bob"], free_port()
    with balancer([pair.broker.port], front):
        dial(bob, f"ws://127.0.0.1:{front}")
        finding = next(item for item in _doctor(bob) if item["check"] == "broker")
        assert finding["state"] == "failed"
        assert f"ws://127.0.0.1:{front}" in finding["detail"]
        assert pair.broker.url in finding["detail"]
        assert "set-broker" in json.dumps(finding)
        changed = run(bob.home, "daemon", "set-broker", pair.broker.url, "--json")
        assert (changed.code, changed.json["broker_url"]) == (OK, pair.broker.url)
        assert "invite" not in changed.json
        refused = run(bob.home, "daemon", "set-broker", f"ws://127.0.0.1:{front}", "--json")
        assert (refused.code, refused.json["error"]) == (CONFIGURATION, "wrong_address")
    kept = json.loads((bob.root / "membership.json").read_text())
    assert kept["broker_url"] == pair.broker.url
    assert kept["invite"].startswith("claudemesh://join/")
    bob.start()
    bob.ready()


PASSWORD = "s3cret-in-a-url"
NO_ADDRESSES = {
    "password": f"ws://user:{PASSWORD}@127.0.0.1:7900",
    "user": "ws://127.0.0.1:7900@127.0.0.1:7900",
    "query": "ws://127.0.0.1:7900/?x=1",
    "fragment": "ws://127.0.0.1:7900#x",
    "port_too_large": "ws://127.0.0.1:99999",
    "port_of_letters": "ws://127.0.0.1:x",
    "port_of_other_digits": "ws://127.0.0.1:\u0661\u0662",
    "no_port": "ws://127.0.0.1:0",
    "bracket": "ws://[::1",
    "no_address": "ws://[x]",
    "line_end": "ws://127.0.0.1:7900\r\nX: y",
    "other_letters": "ws://l\u043ecalhost:7900",
    "label_too_long": f"wss://{'a' * 64}.example",
}


@pytest.mark.parametrize("kind", NO_ADDRESSES)
def test_a_url_that_is_no_address_of_a_broker_is_refused_without_being_repeated(
    pair: Mesh, kind: str, tmp_path: Path
) -> None:
    """By a sentence, wherever it is given. Nothing is written, and a password in it is not shown."""
    alice, url = pair.daemons["alice"], NO_ADDRESSES[kind]
    before = (alice.root / "membership.json").read_bytes()
    changed = run(alice.home, "daemon", "set-broker", url, "--json")
    assert (changed.json["error"], (alice.root / "membership.json").read_bytes()) == (
        "invalid_broker_url",
        before,
    )
    token = str(pair.broker.data / "admin_token")
    create = ["mesh", "create", "other", "--broker", url, "--name", "x", "--admin-token-file", token]
    made = run(tmp_path, *create, "--json")
    assert made.json["error"] == "invalid_broker_url"
    public = run(tmp_path, "broker", "config", "check", CLAUDEMESH_BROKER_PUBLIC_URL=url)
    assert public.code == CONFIGURATION
    assert "public_url" in public.out + public.err
    for ran in (changed, made, public):
        assert PASSWORD not in ran.out + ran.err
    idle = pair.daemons.get("idle") or pair.add("idle")
    kept = (idle.root / "membership.json").read_bytes()
    (idle.root / "membership.json").write_text(json.dumps({**json.loads(kept), "broker_url": url}))
    told = run(idle.home, "daemon", "up")
    (idle.root / "membership.json").write_bytes(kept)
    assert told.code == CONFIGURATION
    assert "membership.json is damaged" in told.err
    assert PASSWORD not in told.out + told.err
    assert not list(tmp_path.rglob("membership.json"))


def _doctor(daemon: Daemon) -> list[dict[str, str]]:
    items: list[dict[str, str]] = run(daemon.home, "doctor", "--json").json["items"]
    return items
