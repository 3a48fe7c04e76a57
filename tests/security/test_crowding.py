"""Connections that strangers hold open keep no member out: on the loopback, behind a proxy, or at full
speed."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import Limits
from claudemesh.runtime.crowd import Caps
from claudemesh.runtime.guarded import Guardroom
from claudemesh.runtime.web.asgi import Receive, Scope, Send
from claudemesh.runtime.web.replies import Reply, respond
from claudemesh.runtime.web.server import HttpServer, admit
from claudemesh.runtime.web.sockets import bind_tcp
from tests.integration.cli.test_broker_admin import certificate
from tests.security.test_flooding import limits, open_sockets
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.flood import UPGRADE, flooding, frame
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.waiting import WAIT_S
from tests.support.wspeer import http_request

CAP = 8
# No deadline ends a connection: a cap does.
PATIENT = Limits(strangers_per_address=CAP, handshake_s=10 * WAIT_S, sign_in_s=10 * WAIT_S)


@pytest.fixture(scope="module")
def one() -> Generator[Mesh]:
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        (alice.root / "config.toml").write_text("[ipc]\ntcp_enabled = true\n")
        alice.start()
        alice.ready()
        yield made


def strangers_limited(alice: Daemon) -> float:
    """Return how many times a daemon's limits on strangers were reached."""
    with closing(alice.connection()) as connection:
        connection.request("GET", "/v1/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    counted = (
        line for line in lines if line.startswith("cm_daemon_guard_limits_total{") and "strangers" in line
    )
    return sum(float(line.split()[-1]) for line in counted)


def ask_loopback(alice: Daemon) -> int:
    """The status of a request with the bearer on the daemon's loopback."""
    port = int((alice.root / "http.port").read_text())
    token = (alice.root / "local_token").read_text().strip()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)) as connection:
        connection.request("GET", "/v1/version", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status


@pytest.mark.parametrize("kind", ["idle", "slow head", "slow body"])
def test_idle_strangers_do_not_shut_the_loopback(one: Mesh, kind: str) -> None:
    """A client with the token is answered, for any number of connections without it."""
    alice = one.daemons["alice"]
    port = int((alice.root / "http.port").read_text())
    before = strangers_limited(alice)
    with flooding(kind, port, 300) as attack:
        for _ in range(20):
            until(lambda: ask_loopback(alice) == 200, "the bearer is answered")
        # A body without the bearer is answered at once: those never become too many.
        if kind != "slow body":
            until(lambda: strangers_limited(alice) > before, "strangers are too many")
        assert alice.request("GET", "/v1/health")[0] == 200
    assert attack.result["cut"] > 0


def test_an_event_stream_stays_open_while_strangers_come_and_go(one: Mesh) -> None:
    """An authenticated connection is not evicted."""
    alice = one.daemons["alice"]
    port = int((alice.root / "http.port").read_text())
    token = (alice.root / "local_token").read_text().strip()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)) as stream:
        stream.request("GET", "/v1/events", headers={"Authorization": f"Bearer {token}"})
        response = stream.getresponse()
        assert response.status == 200
        with flooding("idle", port, 300):
            for number in range(10):
                until(lambda: ask_loopback(alice) == 200, "the bearer is answered")
                client_message_id = f"streamed-{number}"
                assert alice.send("alice", "to myself", client_message_id=client_message_id)[0] == 200
        until(lambda: len([item for item in alice.inbox() if item["body"] == "to myself"]) >= 10, "all came")
        lines = 0
        while lines < 10:
            line = response.readline()
            assert line, "the stream ended"
            lines += line.startswith(b"data:") and b"to myself" in line


@asynccontextmanager
async def half_open(broker: Broker, names: list[str]) -> AsyncGenerator[list[asyncio.Task[None]]]:
    """Handshakes that end with their answer, one for each address that a proxy at 127.0.0.2 names. Yield a
    task for each connection, which ends with it."""
    port = int(broker.url.rpartition(":")[2])
    async with AsyncExitStack() as stack:
        links = []
        for name in names:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            stack.callback(writer.close)
            header = b"\r\nX-Forwarded-For: " + name.encode() + b"\r\n\r\n"
            writer.write(UPGRADE.removesuffix(b"\r\n\r\n") + header)
            with suppress(OSError):
                await asyncio.wait_for(reader.read(1), WAIT_S)
            links.append(asyncio.create_task(ended(reader)))
            stack.callback(links[-1].cancel)
        yield links


async def ended(reader: asyncio.StreamReader) -> None:
    """Return when the other side has ended its connection."""
    with suppress(OSError):
        await reader.read()


async def settles_at(links: list[asyncio.Task[None]], cap: int) -> None:
    """Wait until no more than this many connections are open."""
    async with asyncio.timeout(WAIT_S):
        while (still := [link for link in links if not link.done()]) and len(still) > cap:
            await asyncio.wait(still, return_when=asyncio.FIRST_COMPLETED)


async def test_a_trusted_proxy_tells_whose_connections_they_are() -> None:
    """The caps are those of the addresses behind it, and a client cannot choose its own."""
    async with running_broker(limits=PATIENT, trusted_proxies="127.0.0.2") as broker:
        ada = await create_mesh(broker)
        many = [f"198.51.100.{number}, 192.0.2.1" for number in range(CAP + 20)]
        async with half_open(broker, many) as links:
            await settles_at(links, CAP)
            # Another client of the same proxy is not kept out.
            async with half_open(broker, ["192.0.2.2"]) as (other,):
                assert sum(not link.done() for link in links) == CAP
                assert not other.done()
            async with ada.connect() as link:
                assert (await link.request(ada.envelope("all")))["status"] in (200, 201)


async def test_an_untrusted_client_does_not_choose_its_address() -> None:
    """Its X-Forwarded-For is ignored."""
    names = [f"198.51.100.{number}" for number in range(CAP + 20)]
    async with running_broker(limits=PATIENT) as broker, half_open(broker, names) as links:
        await settles_at(links, CAP)


def test_a_proxy_that_reuses_a_connection_keeps_its_clients_apart() -> None:
    """A stranger behind it guesses and floods in its own name, on the connection that the operator used."""
    with mesh() as made:
        made.broker.stop()
        made.broker.arguments += ["--trusted-proxies", "127.0.0.1"]
        made.broker.start()
        made.broker.ready()
        token = (made.broker.data / "admin_token").read_text().strip()
        with closing(http.client.HTTPConnection("127.0.0.1", made.broker.port, timeout=WAIT_S)) as reused:

            def ask(client: str, path: str, bearer: str) -> int:
                headers = {"X-Forwarded-For": client, "Authorization": f"Bearer {bearer}"}
                reused.request("GET", path, headers=headers)
                answer = reused.getresponse()
                answer.read()
                return answer.status

            assert ask("198.51.100.1", "/v1/admin/meshes", token) == 200
            guesses = [ask("203.0.113.9", "/v1/admin/meshes", "wrong") for _ in range(12)]
            assert guesses == [401] * 10 + [429] * 2
            assert ask("198.51.100.1", "/v1/admin/meshes", token) == 200
            for _ in range(300):
                assert ask("203.0.113.9", "/healthz", "wrong") == 200
        assert limits(made.broker)["requests"] > 0


@pytest.mark.parametrize(
    "data",
    [frame(10) * 1000, frame(9, b"x") * 1000, frame(1, b"{", final=False) + frame(0, final=False) * 1000],
    ids=["pongs", "pings", "continuations"],
)
async def test_a_member_that_floods_is_cut_off_and_no_other(data: bytes) -> None:
    """1008, and what it sent before is kept."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with bob.connect() as calm, ada.connect() as loud:
            sent = await loud.request(ada.envelope("all"))
            assert sent["status"] in (200, 201), sent
            loud.websocket.transport.write(data)
            assert (await loud.closed())[0] == 1008
            assert (await calm.request(bob.envelope("all")))["status"] in (200, 201)


async def test_a_member_at_full_speed_meets_no_limit() -> None:
    """Large messages, small ones, thousands in one write: all are answered."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, rate_limit_per_minute=10**9, member_rate_limit_per_minute=10**9)
        async with ada.connect(max_queue=None) as link:
            ids = [await link.send(ada.envelope("all", "x" * (size % 3000))) for size in range(3000)]
            ids += [await link.send(ada.envelope("all", "y" * 60_000)) for _ in range(50)]
            for number in ids:
                assert (await link.result(number))["status"] in (200, 201)
        status, page = await http_request(broker.url, "GET", "/metrics")
        assert status == 200
        counts = [line for line in page.splitlines() if line.startswith("cm_broker_guard_limits_total{")]
        assert counts
        assert [line for line in counts if not line.endswith(" 0.0")] == []


async def test_the_page_of_metrics_is_not_made_for_everybody_who_asks() -> None:
    """Past a rate the last one is given."""
    async with running_broker() as broker:
        metrics, made = broker.context.metrics, 0
        render = metrics.render

        def counted() -> bytes:
            nonlocal made
            made += 1
            return render()

        metrics.render = counted
        loop_time = asyncio.get_running_loop().time
        began = loop_time()
        for _ in range(150):
            assert (await http_request(broker.url, "GET", "/metrics"))[0] == 200
        assert made <= 51 + 5 * (loop_time() - began)


def test_tls_makes_nobody_easier_to_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes that never end, plain text, floods inside TLS: members come in and send."""
    with mesh(start=False) as made:
        broker = made.broker
        broker.stop()
        cert, key = certificate(made.root)
        broker.arguments += ["--tls-cert", str(cert), "--tls-key", str(key)]
        broker.tls = str(cert)
        broker.url = f"wss://localhost:{broker.port}"
        broker.start()
        broker.ready()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        made.add("alice").start()
        made.daemons["alice"].ready()
        before = open_sockets(broker.pid)
        with (
            flooding("idle", broker.port, 300, "127.0.0.2"),
            flooding("slow head", broker.port, 300, "127.0.0.3"),
            flooding("pongs", broker.port, 4, "127.0.0.4", tls=True),
            flooding("half-open", broker.port, 200, "127.0.0.5", tls=True),
        ):
            made.add("bob").start()
            made.daemons["bob"].ready()
            for number in range(10):
                made.daemons["alice"].get_across({"to": "bob", "message": f"over tls {number}"})
            until(lambda: open_sockets(broker.pid) <= before + Limits().strangers + 2, "the caps hold")
        until(lambda: open_sockets(broker.pid) <= before + 2, "nothing is left behind")
        assert "Traceback" not in broker.log.read_text()


async def test_deadlines_of_requests_end_no_websocket() -> None:
    """A member that says nothing for longer than a head or a body may take stays connected."""
    async with running_broker(limits=Limits(head_s=2, body_s=2)) as broker:
        ada = await create_mesh(broker)
        port = int(broker.url.rpartition(":")[2])
        async with ada.connect() as link:
            # Strangers that come later and say as little meet both deadlines.
            for words in (b"GET / HTTP/1.1\r\n", b"POST /v1/join HTTP/1.1\r\nContent-Length: 9\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(words)
                async with asyncio.timeout(WAIT_S):
                    await reader.read()
                writer.close()
            assert (await link.request(ada.envelope("all")))["status"] in (200, 201)


async def test_a_stranger_that_reads_no_answer_is_ended() -> None:
    """Its waiting bytes are bounded, and so is the time that it waits."""
    async with running_broker(limits=Limits(unread_s=0.1)) as broker:
        port = int(broker.url.rpartition(":")[2])
        link = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with closing(link):
            await asyncio.to_thread(link.sendall, ask * 2000)
            async with asyncio.timeout(WAIT_S):
                while 'limit="unread"' not in broker.context.metrics.render().decode():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


async def test_connections_that_have_shown_the_bearer_are_bounded_too() -> None:
    """Above the number of members they are evicted like strangers, so that descriptors are left."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        admit(scope)
        await respond(send, Reply(200, {}))

    room = Guardroom(Caps(members=2, strangers=3, strangers_per_address=3, settle_s=0.0))
    listener = bind_tcp("127.0.0.1", 0)
    server = HttpServer(app, listener, room=room)
    port = listener.getsockname()[1]
    await server.start()
    writers = []
    try:
        for _ in range(12):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)).startswith(b"HTTP/1.1 200")
            assert room.crowd.members <= 2
            assert room.crowd.strangers <= 3
    finally:
        for writer in writers:
            writer.close()
        await server.stop()
