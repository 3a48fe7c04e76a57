"""The cluster: brokers, daemons and perhaps a Postgres as real processes, each in a home of its own."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.support.postgres import Server, sql
from tests.support.processes import REPOSITORY, Broker, Daemon, Mesh, Process
from tortures import client
from tortures.gate import DatabaseGate, Gate
from tortures.history import Ended
from tortures.plan import BROKER, DAEMON, DATABASE, Shape
from tortures.shims import ClockSwitch, FaultSwitch, build_fault_shim, environment, find_faketime

PYZ: Final = REPOSITORY / "dist" / "claudemesh.pyz"
READY_S: Final = 90.0
_POLL_S: Final = 0.1
_RESTART_S: Final = 1.0
_TMPFS: Final = "size=1g,mode=700"
PROGRAM: Final = [sys.executable, str(PYZ)]
_DATABASE: Final = "torture"
# The event that each process logs when it has started.
_STARTED: Final = {BROKER: '"broker_started"', DAEMON: '"daemon_started"'}
_CONFIG: Final = "[reconnect]\nmax_backoff_ms = 2000\n"


class Stuck(Exception):
    """The cluster did not become ready."""


class Node:
    """One process of the cluster, its switches, and whether it should be running."""

    def __init__(self, name: str, role: str, process: Process, switches: Path) -> None:
        self.name = name
        self.role = role
        self.process = process
        self.lock = asyncio.Lock()
        # While it is held, only the holder starts it.
        self.is_held = True
        self.fault = FaultSwitch(switches / f"{name}.fault")
        self.clock = ClockSwitch(switches / f"{name}.clock")
        self.storage = switches
        self.starts = 0
        # When the supervisor saw it running last.
        self.alive_s: float | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process id of the latest start."""
        return self.process.pid

    def start(self) -> None:
        """Start it, and let the supervisor keep it running."""
        self._log_start = self.process.log.stat().st_size if self.process.log.exists() else 0
        self.process.start()
        self.alive_s = time.monotonic()
        self.starts += 1
        self.is_held = False

    def kill(self) -> None:
        """SIGKILL, and hold it."""
        self.is_held = True
        if self.process.running:
            self.signal(signal.SIGCONT)
            self.process.kill()

    async def terminate(self) -> int:
        """SIGTERM, hold it, and return its exit code."""
        self.is_held = True
        return await asyncio.to_thread(self.process.stop)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it, if it is there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def has_served(self) -> bool:
        """Whether its latest start succeeded."""
        with self.process.log.open("rb") as log:
            log.seek(self._log_start)
            return _STARTED[self.role].encode() in log.read()

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP has taken hold."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    @property
    def descriptors(self) -> int:
        """Return the number of open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208

    @property
    def resident_bytes(self) -> int:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


class Cluster:
    """Everything that runs. `close` leaves no process and no mount behind."""

    def __init__(self, shape: Shape, kinds: Sequence[str]) -> None:
        # A short folder: a socket path has at most 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="cm-t-"))
        self.shape = shape
        self.kinds = frozenset(kinds)
        self.nodes: dict[str, Node] = {}
        self.gates: dict[str, Gate] = {}
        self.server: Server | None = None
        # Held by the code that stops the server or removes its data: a fault may last longer than was
        # planned.
        self.server_lock = asyncio.Lock()
        self.ended: list[Ended] = []
        self._mounts: list[Path] = []
        self._severed: set[int] = set()
        self._fault = build_fault_shim(self.root) if self.kinds & {"eio", "disk_full"} else None
        self._faketime = find_faketime() if "clock" in self.kinds else None
        self._supervisor: asyncio.Task[None] | None = None
        self._is_closing = False
        self._mesh = Mesh(self.root)
        self._mesh.program = PROGRAM

    @property
    def missing(self) -> dict[str, str]:
        """The kinds that this machine cannot carry out, and the package that mends it."""
        found = {}
        if "eio" in self.kinds and self._fault is None:
            found["eio"] = "a C compiler (Debian: apt-get install gcc)"
        if "disk_full" in self.kinds and self._fault is None and os.geteuid() != 0:
            found["disk_full"] = "root, or a C compiler (Debian: apt-get install gcc)"
        if "clock" in self.kinds and self._faketime is None:
            found["clock"] = "libfaketime (Debian: apt-get install faketime)"
        return found

    def daemon(self, name: str) -> Daemon:
        """Return a daemon's process."""
        process = self.nodes[name].process
        assert isinstance(process, Daemon)
        return process

    def broker(self, name: str) -> Broker:
        """Return a broker's process."""
        process = self.nodes[name].process
        assert isinstance(process, Broker)
        return process

    def ports(self) -> list[int]:
        """The brokers that a gate may connect to."""
        ports = [self.broker(name).port for name in self.shape.brokers]
        return [port for port in ports if port not in self._severed]

    def sever(self, port: int) -> None:
        """Cut every link to a broker, and open none until `mend`."""
        self._severed.add(port)
        for gate in self.gates.values():
            gate.cut(port)

    def mend(self, port: int) -> None:
        """Let links to a broker be opened again."""
        self._severed.discard(port)

    async def start(self) -> None:
        """Start the brokers, make the mesh, start its daemons, and wait until all are connected."""
        # Unpacked once, without a library in the way.
        await asyncio.to_thread(self._command, "doctor", "--help")
        if self.shape.postgres:
            self.server = Server()
            self.server.start()
            await sql(self.server.url(), f"CREATE DATABASE {_DATABASE}", "SELECT 1")
        for name in self.shape.daemons:
            gate = self.gates[name] = Gate(name, self.ports)
            await gate.start()
        for number, name in enumerate(self.shape.brokers):
            await self._add_broker(number, name)
            await self.ready(name)
        for name in self.shape.daemons:
            await self._add_daemon(name)
        await asyncio.gather(*map(self.ready, self.shape.daemons))
        self._supervisor = asyncio.ensure_future(self._supervise())

    async def _add_broker(self, number: int, name: str) -> None:
        folder = self.root / name
        folder.mkdir()
        broker = Broker(
            folder, None if self.server is None else f"postgresql://postgres@/{_DATABASE}?host={folder}"
        )
        for daemon in self.shape.daemons:
            # It is dialled at the gates, and takes no hello for an address that it does not know.
            broker.arguments += ["--public-url", f"ws://127.0.0.1:{self.gates[daemon].port}"]
        broker.data.mkdir(mode=0o700)
        if self.server is None:
            self._mount(broker.data)
        else:
            gate = self.gates[f"{DATABASE}:{name}"] = DatabaseGate(name, folder, self.server.folder)
            await gate.start()
        broker.log = self.root / f"{name}.log"
        if number == 0:
            self._mesh.broker = broker
        else:
            # Brokers of one database have one admin token.
            shutil.copy(self._mesh.broker.data / "admin_token", broker.data / "admin_token")
        self._register(name, BROKER, broker, broker.data).start()

    async def _add_daemon(self, name: str) -> None:
        home = self.root / name
        home.mkdir(mode=0o700)
        self._mount(home)
        daemon = await asyncio.to_thread(self._mesh.add, name)
        membership = daemon.root / "membership.json"
        found = json.loads(membership.read_text())
        found["broker_url"] = f"ws://127.0.0.1:{self.gates[name].port}"
        membership.write_text(json.dumps(found))
        (daemon.root / "config.toml").write_text(_CONFIG)
        self._register(name, DAEMON, daemon, daemon.root).start()

    def _register(self, name: str, role: str, process: Process, storage: Path) -> Node:
        node = self.nodes[name] = Node(name, role, process, self.root)
        node.storage = storage
        process.command = PROGRAM
        # Nothing outlives a harness that was killed.
        process.prefix = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        process.environment = {
            "CLAUDEMESH_CACHE": str(self.root / "cache"),
            **environment(self._fault, node.fault, self._faketime, node.clock),
        }
        return node

    def _mount(self, folder: Path) -> None:
        """Give a folder a small file system of its own, where that is allowed."""
        if "disk_full" in self.kinds and os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", _TMPFS, "claudemesh-torture", str(folder)]
            subprocess.run(command, check=True, capture_output=True)
            self._mounts.append(folder)

    def is_mounted(self, node: Node) -> bool:
        """Whether a node's data has a file system of its own."""
        return any(node.storage.is_relative_to(folder) for folder in self._mounts)

    async def health(self, name: str) -> Mapping[str, Any] | None:
        """Return a daemon's health, None when it does not answer."""
        with suppress(client.Unanswered):
            status, body = await client.request(self.daemon(name).sock, "GET", "/v1/health")
            if status == 200 and isinstance(body, dict):
                return body
        return None

    async def holds_more(self, name: str, position: int) -> bool:
        """Whether a daemon's inbox has messages after a position, or does not answer."""
        with suppress(client.Unanswered):
            path = f"/v1/inbox?limit=1&after={position}"
            status, body = await client.request(self.daemon(name).sock, "GET", path)
            return status != 200 or bool(body["items"])
        return True

    async def is_ready(self, name: str) -> bool:
        """Whether a broker is ready, or a daemon connected."""
        node = self.nodes[name]
        if not node.process.running:
            return False
        if node.role == BROKER:
            with suppress(OSError):
                return await asyncio.to_thread(self.broker(name).is_ready)
            return False
        health = await self.health(name)
        return health is not None and health["connected"]

    async def ready(self, name: str, timeout_s: float = READY_S) -> None:
        """Wait until a node is ready; `Stuck` when it does not get there."""
        deadline = time.monotonic() + timeout_s
        while not await self.is_ready(name):
            if time.monotonic() > deadline:
                raise Stuck(f"{name} is not ready within {timeout_s:.0f} s: {self.log_tail(name)}")
            await asyncio.sleep(_POLL_S)

    def log_tail(self, name: str) -> str:
        """Return the last lines of a node's log."""
        with suppress(OSError):
            return "\n".join(self.nodes[name].process.log.read_text(errors="replace").splitlines()[-3:])
        return ""

    async def _supervise(self) -> None:
        """Start again what ended by itself, as a service manager would."""
        while True:
            await asyncio.sleep(_POLL_S)
            for node in self.nodes.values():
                if node.is_held:
                    continue
                if node.process.running:
                    node.alive_s = time.monotonic()
                else:
                    code = await asyncio.to_thread(node.process.ended)
                    ended = Ended(node.name, code, time.monotonic(), node.has_served, node.alive_s)
                    self.ended.append(ended)
                    node.is_held = True
                    asyncio.get_running_loop().call_later(_RESTART_S, self._revive, node)

    def _revive(self, node: Node) -> None:
        if self._is_closing or node.process.running:
            return
        if node.lock.locked():
            asyncio.get_running_loop().call_later(_RESTART_S, self._revive, node)
        else:
            node.start()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the artefact against the first broker."""
        return self._command(*arguments, "--data-dir", str(self.broker(self.shape.brokers[0]).data))

    def _command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        names = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
        return subprocess.run(
            [*PROGRAM, *arguments],
            env={
                **names,
                "CLAUDEMESH_HOME": str(self.root / "broker-home"),
                "CLAUDEMESH_CACHE": str(self.root / "cache"),
            },
            capture_output=True,
            text=True,
            timeout=READY_S,
        )

    async def close(self, *, keep: bool = False) -> None:
        """End every process and unmount every file system; the folder stays if wanted."""
        self._is_closing = True
        if self._supervisor is not None:
            self._supervisor.cancel()
        for node in self.nodes.values():
            with suppress(AssertionError):
                node.kill()
        for gate in self.gates.values():
            await gate.stop()
        if self.server is not None:
            self.server.remove()
        for folder in self._mounts:
            self._unmount(folder, keep=keep)
        if not keep:
            shutil.rmtree(self.root, ignore_errors=True)

    def _unmount(self, folder: Path, *, keep: bool) -> None:
        if keep:
            # Copied below the mount point's sibling, because a tmpfs ends with its mount.
            shutil.copytree(
                folder, f"{folder}.kept", symlinks=True, ignore=lambda at, names: _sockets(at, names)
            )
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
        if keep:
            folder.rmdir()
            Path(f"{folder}.kept").rename(folder)


def _sockets(at: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(at) / name).is_socket()]
