"""Other brokers beside ours: acknowledged publishes of 1 KiB by one Python client, with a fixed number in
flight.

Equal durability: Redis (`appendfsync always`) and RabbitMQ have synced a message before they acknowledge it,
as we have. NATS JetStream has not: it is measured to be seen, and its rows say so. Ours keeps its data in
SQLite (`embedded`) or in Postgres, and does more: it checks envelopes and their signatures, keeps ids apart
for a year, writes history and a delivery.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.client import peer_of, pipelined
from benchmarks.lab import BODY, Lab
from benchmarks.size import size
from tests.support.processes import until

_MANY = 256
# Messages of a measurement, by how many are in flight.
_MESSAGES = {1: size(600, 20), _MANY: size(8000, 256)}
# A message once per id for as long as a stream's dedupe usually is told to remember.
_REDIS_ADD = """
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', 86400) then
  return redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])
end
return false
"""

Publish = Callable[[int], Awaitable[Any]]
Measured = Coroutine[Any, Any, float]


def beside(peer: str, in_flight: int, store: str, lab: Lab) -> tuple[float, float]:
    """Our messages/s with the data `embedded` or in `postgres`, and the peer's."""
    theirs = asyncio.run(_PEERS[peer](lab, in_flight))
    owner = lab.alice if store == "embedded" else lab.on_postgres()[1].daemons["olga"]
    ours = asyncio.run(pipelined(peer_of(owner), messages=_MESSAGES[in_flight], window=in_flight))[1]
    return ours, theirs


async def _rate(publish: Publish, in_flight: int) -> float:
    """Messages/s with this many unacknowledged at a time."""
    messages = _MESSAGES[in_flight]
    numbers = iter(range(messages))

    async def one_after_another() -> None:
        for number in numbers:
            await publish(number)

    started = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
    return messages / (time.perf_counter() - started)


async def _redis(lab: Lab, in_flight: int) -> float:
    import redis.asyncio as client

    folder = lab.peer("redis", _start_redis)
    link = client.Redis(unix_socket_path=str(folder / "sock"), max_connections=in_flight)
    add = link.register_script(_REDIS_ADD)
    try:
        await link.delete("stream")
        if in_flight == 1:
            return await _rate(lambda n: add(keys=["stream", f"{time.time_ns()}{n}"], args=[BODY]), 1)
        # Its client pipelines a batch on one connection: the way to be fast with it.
        messages, started = _MESSAGES[in_flight], time.perf_counter()
        for first in range(0, messages, in_flight):
            pipe = link.pipeline(transaction=False)
            for number in range(first, min(messages, first + in_flight)):
                await add(keys=["stream", f"{time.time_ns()}-{number}"], args=[BODY], client=pipe)
            assert all(await pipe.execute())
        return messages / (time.perf_counter() - started)
    finally:
        await link.aclose()


async def _rabbit(lab: Lab, in_flight: int, kind: str) -> float:
    import aio_pika

    port = int((lab.peer("rabbitmq", _start_rabbit) / "port").read_text())
    connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue(f"bench-{kind}", durable=True, arguments={"x-queue-type": kind})
        await queue.purge()
        body = BODY.encode()

        def publish(number: int) -> Any:
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            return channel.default_exchange.publish(message, queue.name)

        return await _rate(publish, in_flight)


async def _nats(lab: Lab, in_flight: int) -> float:
    import nats

    port = int((lab.peer("nats", _start_nats) / "port").read_text())
    link = await nats.connect(f"nats://127.0.0.1:{port}")
    try:
        stream = link.jetstream()
        await stream.add_stream(name="bench", subjects=["bench"])
        body = BODY.encode()
        return await _rate(
            lambda n: stream.publish("bench", body, headers={"Nats-Msg-Id": f"{time.time_ns()}-{n}"}),
            in_flight,
        )
    finally:
        await link.close()


_PEERS: dict[str, Callable[[Lab, int], Measured]] = {
    "redis": _redis,
    "rabbitmq durable": lambda lab, in_flight: _rabbit(lab, in_flight, "classic"),
    "rabbitmq quorum": lambda lab, in_flight: _rabbit(lab, in_flight, "quorum"),
    "nats": _nats,
}


# The server of a peer, its package, and the module of its client.
_NEEDS = {
    "redis": ("redis-server", "redis-server", "redis"),
    "rabbitmq durable": ("rabbitmq-server", "rabbitmq-server", "aio_pika"),
    "rabbitmq quorum": ("rabbitmq-server", "rabbitmq-server", "aio_pika"),
    "nats": ("nats-server", "nats-server", "nats"),
}


def missing(peer: str) -> str | None:
    """Return the reason for which a peer cannot be measured here, or None."""
    name, package, client = _NEEDS[peer]
    if _found(name) is None:
        return f"{name} is not installed (Debian: apt-get install {package})"
    if importlib.util.find_spec(client) is None:
        return f"the Python module {client} is not installed (build/requirements-bench.txt)"
    return None


# Private servers: their data in a folder of the bench's, gone with it.


def _start(command: list[str], folder: Path, **environment: str) -> Callable[[], None]:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "HOME": str(folder), **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def stop() -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    return stop


def _found(name: str) -> str | None:
    # The server of RabbitMQ is a script, of which any user may run the one in its own folder.
    places = ("/usr/lib/rabbitmq/bin", None, "/usr/sbin")
    return next((found for place in places if (found := shutil.which(name, path=place))), None)


def _program(name: str) -> str:
    found = _found(name)
    assert found is not None, "asked for before the start"
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _folder(name: str) -> tuple[Path, int]:
    folder, port = Path(tempfile.mkdtemp(prefix=f"cm-{name}-")), _free_port()
    (folder / "port").write_text(str(port))
    return folder, port


def _start_redis() -> tuple[Path, Callable[[], None]]:
    folder, _ = _folder("redis")
    command = [_program("redis-server"), "--port", "0", "--unixsocket", str(folder / "sock")]
    command += ["--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    stop = _start(command, folder)
    until((folder / "sock").exists, "Redis listens")
    return folder, stop


def _start_rabbit() -> tuple[Path, Callable[[], None]]:
    folder, port = _folder("rabbitmq")
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    (folder / "enabled_plugins").write_text("[].\n")
    stop = _start(
        [_program("rabbitmq-server")],
        folder,
        RABBITMQ_NODENAME=f"bench{port}@localhost",
        RABBITMQ_BASE=str(folder),
        RABBITMQ_MNESIA_BASE=str(folder / "mnesia"),
        RABBITMQ_LOG_BASE=str(folder / "logs"),
        RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq.conf"),
        RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "enabled_plugins"),
        RABBITMQ_DIST_PORT=str(_free_port()),
        ERL_EPMD_PORT=str(_free_port()),
    )
    until(lambda: _answers(port), "RabbitMQ listens", 60)
    return folder, stop


def _start_nats() -> tuple[Path, Callable[[], None]]:
    folder, port = _folder("nats")
    settings = {"port": port, "host": "127.0.0.1", "jetstream": {"store_dir": str(folder / "store")}}
    (folder / "nats.conf").write_text(json.dumps(settings))
    stop = _start([_program("nats-server"), "-c", str(folder / "nats.conf")], folder)
    until(lambda: _answers(port), "NATS listens")
    return folder, stop
