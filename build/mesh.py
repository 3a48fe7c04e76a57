"""The scripted local mesh: everything is done by dist/claudemesh.pyz alone, as a user would do it."""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PYZ = ROOT / "dist" / "claudemesh.pyz"
PEERS = ("alice", "bob")
SLUG = "demo"
FIRST_PORT = 7910
_WAIT_S = 30.0
_POLL_S = 0.05
# <folder>/alice/daemon/demo/sock must fit into a socket's path: 103 bytes on macOS, 107 on Linux.
_LONGEST_FOLDER = 80
# Variables that the environment of the caller must not change here.
_OURS = ("CLAUDEMESH_", "PYTHON")
_KEPT = ("CLAUDEMESH_CACHE",)


class Failed(Exception):
    """A step of the script did not do what it should."""


class LocalMesh:
    """A broker and two peers below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker_data = folder / "broker"
        self._started: subprocess.Popen[bytes] | None = None

    def home(self, name: str) -> Path:
        """Return where a peer lives; each is a host of its own."""
        return self.folder / name

    def has_joined(self, name: str) -> bool:
        """Whether a peer is a member already."""
        return (self.home(name) / "daemon" / SLUG / "membership.json").exists()

    def run(self, name: str, *arguments: str, check: bool = True) -> str:
        """Run a command as a peer and return what it printed; `Failed` when it fails and `check` is set."""
        done = subprocess.run(
            [*program(), *arguments], env=self._environment(name), capture_output=True, text=True, timeout=120
        )
        if check and done.returncode != 0:
            raise Failed(f"claudemesh {shlex.join(arguments)}: {done.stdout}{done.stderr}".strip())
        return done.stdout

    def json(self, name: str, *arguments: str) -> Any:
        """Run a command as a peer and return its JSON."""
        return json.loads(self.run(name, *arguments, "--json"))

    def broker(self) -> dict[str, Any] | None:
        """Return the running broker's url and pid, or None when none answers."""
        try:
            found: dict[str, Any] = json.loads((self.broker_data / "broker.json").read_text())
            with urllib.request.urlopen(f"http{found['url'].removeprefix('ws')}/readyz", timeout=2):
                return found
        except (OSError, ValueError, KeyError):
            return None

    def start_broker(self) -> str:
        """Start the broker and return its URL."""
        log = self.folder / "broker.log"
        address = f"127.0.0.1:{self._port()}"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*program(), "broker", "up", "--listen", address, "--data-dir", str(self.broker_data)],
                env=self._environment("broker-home"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

        def url() -> str | None:
            if process.poll() is not None:
                raise Failed(f"the broker at {address} ended: {log.read_text()[-500:].strip()}")
            found = self.broker()
            return None if found is None else str(found["url"])

        self._started = process
        try:
            return str(until(url, f"the broker at {address} is ready"))
        except Failed:
            process.kill()
            raise

    def join(self, url: str) -> None:
        """Make the mesh with its first peer and let the second join, unless they are members."""
        first, second = PEERS
        if not self.has_joined(first):
            token = str(self.broker_data / "admin_token")
            create = ("mesh", "create", SLUG, "--broker", url, "--name", first)
            self.run(first, *create, "--admin-token-file", token)
        if not self.has_joined(second):
            link = self.json(first, "invite", "create")["invite"]
            self.run(second, "join", link, "--name", second)

    def is_connected(self, name: str) -> bool:
        """Whether a peer's daemon is connected and knows all the others."""
        connected: bool = self.json(name, "status")["connected"]
        return connected and len(self.json(name, "peers")["items"]) == len(PEERS)

    def received(self, name: str, wanted: set[str]) -> list[dict[str, Any]]:
        """Return the rows of a peer's inbox for these client_message_ids, once none is missing."""

        def rows() -> list[dict[str, Any]] | None:
            items = self.json(name, "inbox", "--limit", "500")["items"]
            found = [item for item in items if item["client_message_id"] in wanted]
            return found if {item["client_message_id"] for item in found} == wanted else None

        found: list[dict[str, Any]] = until(rows, f"{name} has received {sorted(wanted)}")
        return found

    def stop(self) -> None:
        """Stop everything that runs."""
        for name in PEERS:
            if self.has_joined(name):
                self.run(name, "daemon", "down", check=False)
        found = self.broker()
        if found is not None:
            self._stop_broker(found)
            until(lambda: not (self.broker_data / "broker.json").exists(), "the broker has stopped")
        if self._started is not None:
            self._started.wait(_WAIT_S)

    def _stop_broker(self, found: dict[str, Any]) -> None:
        """Stop the broker of this mesh. `Failed` when its number is another process's here.

        It may have been started in another PID namespace, or have ended since.
        """
        pid = int(found["pid"])
        hold = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        try:
            if f"--data-dir {self.broker_data}" not in command_line(pid):
                raise Failed(
                    f"the broker at {found['url']} is not process {pid} here: stop it where it was started"
                )
            if hold is None:
                os.kill(pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(hold, signal.SIGTERM)
        finally:
            if hold is not None:
                os.close(hold)

    def _port(self) -> int:
        """The port that the members know, or a free one for a new mesh."""
        if self.has_joined(PEERS[0]):
            membership = self.home(PEERS[0]) / "daemon" / SLUG / "membership.json"
            return int(json.loads(membership.read_text())["broker_url"].rpartition(":")[2])
        return next(port for port in range(FIRST_PORT, 65_536) if is_free(port))

    def _environment(self, name: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key in _KEPT or not key.startswith(_OURS)}
        return {**kept, "CLAUDEMESH_HOME": str(self.home(name))}


def program() -> list[str]:
    """Return how the pyz is called: by the Python below .venv, which has none of our libraries."""
    base: str = getattr(sys, "_base_executable", sys.executable)
    return [base, "-I", str(PYZ)]


def command_line(pid: int) -> str:
    """Return a process's command line, or nothing when there is no such process here."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return ""
    shown = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(shown, capture_output=True, text=True).stdout


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something to become true and return it; `Failed` when it takes too long."""
    deadline = time.monotonic() + _WAIT_S
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {_WAIT_S:.0f} s: {what}")
        time.sleep(_POLL_S)
    return result


def is_free(port: int) -> bool:
    """Return whether a port of this machine is free."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def start(mesh: LocalMesh) -> None:
    """Start what does not run yet."""
    mesh.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = mesh.broker()
    if found is None:
        say("starting the broker")
    url = mesh.start_broker() if found is None else str(found["url"])
    mesh.join(url)
    for name in PEERS:
        say(f"{name}'s daemon: {mesh.json(name, 'daemon', 'up', '-d')['status']}")
    for name in PEERS:
        until(functools.partial(mesh.is_connected, name), f"{name} is connected")
    mesh.run("alice", "topic", "create", "news")
    mesh.run("bob", "topic", "subscribe", "news")


def show_messages(mesh: LocalMesh) -> set[str]:
    """Send a message and a post, show them arriving, and return their ids."""
    say("alice writes to bob, and posts to the topic `news`")
    sent = {
        mesh.json("alice", "send", "bob", "hello bob, sealed for you alone")["client_message_id"],
        mesh.json("alice", "topic", "post", "news", "hello everybody")["client_message_id"],
    }
    say("bob's inbox:")
    for item in mesh.received("bob", sent):
        where = f" #{item['topic']}" if item["topic"] else ""
        print(f"  {item['received_at']}  {item['sender_name']}{where}  {item['body']}", flush=True)
    return sent


def smoke() -> None:
    """Run it all in a folder of its own; `Failed` unless each message arrives exactly once."""
    folder = Path(tempfile.mkdtemp(prefix="cm-", dir=short_temporary_folder()))
    mesh = LocalMesh(folder)
    try:
        start(mesh)
        to_bob = show_messages(mesh)
        say("bob answers, twice under the same id; his daemon is killed, and is written to meanwhile")
        mesh.run("bob", "send", "alice", "hello back", "--id", "answer")
        mesh.run("bob", "send", "alice", "hello back", "--id", "answer")
        os.kill(mesh.json("bob", "status")["pid"], signal.SIGKILL)
        to_bob |= {mesh.json("alice", "send", "bob", f"number {n}")["client_message_id"] for n in range(3)}
        mesh.run("bob", "daemon", "up", "-d")
        check_once(mesh, "bob", to_bob)
        check_once(mesh, "alice", {"answer"})
        say("each message arrived exactly once")
    finally:
        try:
            mesh.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def check_once(mesh: LocalMesh, name: str, sent: set[str]) -> None:
    """Raise `Failed` unless a peer's inbox holds each of these once."""
    found = sorted(item["client_message_id"] for item in mesh.received(name, sent))
    if found != sorted(sent):
        raise Failed(f"{name} received {found}, sent were {sorted(sent)}")


def status(mesh: LocalMesh) -> bool:
    """Show how everything is; returns whether all of it runs."""
    found = mesh.broker()
    print(f"broker   {'not running' if found is None else found['url']}", flush=True)
    running = found is not None
    for name in PEERS:
        joined = mesh.has_joined(name)
        shown = mesh.run(name, "status", check=False).strip() if joined else ""
        print(f"\n{name}\n{shown or 'not running'}", flush=True)
        running = running and bool(shown)
    return running


def explain(mesh: LocalMesh) -> None:
    """Say where things are and what to try next."""
    homes = {name: shlex.quote(str(mesh.home(name))) for name in PEERS}
    command = shlex.quote(str(PYZ.relative_to(ROOT)))
    print(
        f"""
The mesh lives in {mesh.folder}: each peer has a home there, as if it were a host of its own.

Try, as bob:
  export CLAUDEMESH_HOME={homes["bob"]}
  {command} send alice 'hello back'
  {command} send '#news' 'anybody there?'
  {command} inbox -f
  {command} status
and in another terminal, as alice:
  export CLAUDEMESH_HOME={homes["alice"]}
  {command} inbox

./build/mesh status shows how it is; ./build/mesh down ends it."""
    )


def default_folder() -> Path:
    """Return `.mesh` in the checkout, or a short folder where a socket's path would grow too long."""
    folder = ROOT / ".mesh"
    if len(os.fsencode(folder)) <= _LONGEST_FOLDER:
        return folder
    mark = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]
    short = short_temporary_folder() / f"claudemesh-{os.getuid()}-{mark}"
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    if short.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Failed(f"{short} is not a folder of this user alone: remove it, or set TMPDIR")
    return short


def short_temporary_folder() -> Path:
    """Return $TMPDIR, or /tmp when that is too long for a socket below it."""
    folder = Path(tempfile.gettempdir())
    return folder if len(os.fsencode(folder)) <= _LONGEST_FOLDER - 32 else Path("/tmp")  # noqa: S108


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"── {text}", flush=True)


def act(action: str, mesh: LocalMesh) -> int:
    """Start, show or stop the mesh that stays."""
    if action == "down":
        mesh.stop()
        say(f"the mesh is down; its data stays in {mesh.folder}")
        return 0
    if action == "status":
        return 0 if status(mesh) else 1
    if mesh.folder.exists() and mesh.broker() and all(mesh.has_joined(name) for name in PEERS):
        say("the mesh runs already")
        start(mesh)
        status(mesh)
    else:
        start(mesh)
        show_messages(mesh)
    explain(mesh)
    return 0


def main() -> int:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(prog="./build/mesh", description="A mesh on this machine.")
    parser.add_argument("action", nargs="?", choices=["up", "down", "status"], default="up")
    parser.add_argument("--smoke", action="store_true", help="run and check it elsewhere, then clean up")
    options = parser.parse_args()
    try:
        if options.smoke:
            smoke()
            return 0
        return act(options.action, LocalMesh(default_folder()))
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print(f"build/mesh: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
