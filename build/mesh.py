"""The scripted local mesh: everything is done by dist/claudemesh.pyz, as a user would do it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PYZ = ROOT / "dist" / "claudemesh.pyz"
PEERS = ("alice", "bob")
_WAIT_S = 30.0
_POLL_S = 0.05
# <home>/daemon/demo/sock must fit into the 107 bytes of a socket's path.
_LONGEST_FOLDER = 80


class Failed(Exception):
    """A step of the script did not do what it should."""


class LocalMesh:
    """A broker and two peers below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker_data = folder / "broker"

    def home(self, name: str) -> Path:
        """Where a peer lives; each is a host of its own."""
        return self.folder / name

    def run(self, name: str, *arguments: str, check: bool = True) -> str:
        """Run a command as a peer and return what it printed."""
        done = subprocess.run(
            [sys.executable, str(PYZ), *arguments],
            env=self._environment(name),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode != 0:
            raise Failed(f"claudemesh {' '.join(arguments)}: {done.stdout}{done.stderr}".strip())
        return done.stdout

    def json(self, name: str, *arguments: str) -> Any:
        """Run a command as a peer and return its JSON."""
        return json.loads(self.run(name, *arguments, "--json"))

    def url(self) -> str | None:
        """Where the broker answers, or None."""
        try:
            url: str = json.loads((self.broker_data / "broker.json").read_text())["url"]
            with urllib.request.urlopen(f"{url.replace('ws://', 'http://')}/readyz", timeout=2):
                return url
        except (OSError, ValueError, urllib.error.URLError):
            return None

    def start_broker(self, port: int) -> str:
        """Start the broker and return its URL."""
        log = (self.folder / "broker.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, str(PYZ), "broker", "up", "--listen", f"127.0.0.1:{port}"]
            + ["--data-dir", str(self.broker_data)],
            env=self._environment("broker-home"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + _WAIT_S
        while (url := self.url()) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "broker.log").read_text()[-500:]
                raise Failed(f"the broker did not start: {tail}")
            time.sleep(_POLL_S)
        return url

    def join(self, url: str) -> None:
        """Make the mesh with its first peer and let the second join."""
        first, second = PEERS
        if not (self.home(first) / "daemon" / "demo" / "membership.json").exists():
            token = str(self.broker_data / "admin_token")
            made = ("mesh", "create", "demo", "--broker", url, "--name", first)
            self.run(first, *made, "--admin-token-file", token)
        if not (self.home(second) / "daemon" / "demo" / "membership.json").exists():
            link = self.json(first, "invite", "create")["invite"]
            self.run(second, "join", link, "--name", second)

    def wait_connected(self, name: str) -> None:
        """Return once a peer is connected and knows the others."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            if self.json(name, "status")["connected"] and len(self.json(name, "peers")["items"]) == len(
                PEERS
            ):
                return
            if time.monotonic() > deadline:
                raise Failed(f"{name} is not connected: {self.run(name, 'status', check=False)}")
            time.sleep(_POLL_S)

    def received(self, name: str, wanted: set[str]) -> list[dict[str, Any]]:
        """Return a peer's messages of these ids, once all are there."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            items = self.json(name, "inbox", "--limit", "500")["items"]
            found = [item for item in items if item["client_message_id"] in wanted]
            if {item["client_message_id"] for item in found} == wanted:
                return found
            if time.monotonic() > deadline:
                raise Failed(
                    f"{name} did not receive {wanted - {item['client_message_id'] for item in found}}"
                )
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop everything that runs."""
        for name in PEERS:
            if (self.home(name) / "daemon" / "demo" / "membership.json").exists():
                self.run(name, "daemon", "down", check=False)
        path = self.broker_data / "broker.json"
        if self.url() is None or not path.exists():
            return
        os.kill(json.loads(path.read_text())["pid"], signal.SIGTERM)
        deadline = time.monotonic() + _WAIT_S
        while path.exists() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _environment(self, name: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
        cache = os.environ.get("CLAUDEMESH_CACHE")
        return {
            **kept,
            "CLAUDEMESH_HOME": str(self.home(name)),
            **({"CLAUDEMESH_CACHE": cache} if cache else {}),
        }


def start(mesh: LocalMesh, *, port: int = 0) -> None:
    """Start what does not run yet and show messages arriving."""
    mesh.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = mesh.url()
    if url is None:
        say("starting the broker")
        url = mesh.start_broker(port or last_port(mesh))
    mesh.join(url)
    for name in PEERS:
        say(f"starting {name}'s daemon")
        mesh.run(name, "daemon", "up", "-d")
    for name in PEERS:
        mesh.wait_connected(name)
    mesh.run("alice", "topic", "create", "news")
    mesh.run("bob", "topic", "subscribe", "news")
    say("alice sends a message to bob, and posts to the topic `news`")
    sent = {
        mesh.json("alice", "send", "bob", "hello bob, sealed for you alone")["client_message_id"],
        mesh.json("alice", "topic", "post", "news", "hello everybody")["client_message_id"],
    }
    say("bob's inbox:")
    for item in mesh.received("bob", sent):
        where = f" #{item['topic']}" if item["topic"] else ""
        print(f"  {item['received_at']}  {item['sender_name']}{where}  {item['body']}", flush=True)


def last_port(mesh: LocalMesh) -> int:
    """The port that the mesh's members know, or a free one for a new mesh."""
    try:
        path = mesh.home("alice") / "daemon" / "demo" / "membership.json"
        return int(json.loads(path.read_text())["broker_url"].rpartition(":")[2])
    except (OSError, ValueError, KeyError):
        return free_port()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def smoke() -> None:
    """Run it all in a folder of its own and check that each message arrives exactly once."""
    folder = Path(tempfile.mkdtemp(prefix="claudemesh-"))
    mesh = LocalMesh(folder)
    try:
        start(mesh)
        sent = {
            mesh.json("bob", "send", "alice", f"number {n}", "--id", f"n{n}")["client_message_id"]
            for n in range(5)
        }
        mesh.json("bob", "send", "alice", "number 0", "--id", "n0")
        found = [item["client_message_id"] for item in mesh.received("alice", sent)]
        if sorted(found) != sorted(sent):
            raise Failed(f"alice received {sorted(found)}, sent were {sorted(sent)}")
        say("each message arrived exactly once")
    finally:
        mesh.stop()
        shutil.rmtree(folder, ignore_errors=True)


def explain(mesh: LocalMesh) -> None:
    """Say where things are and what to try next."""
    shown = PYZ.relative_to(ROOT)
    print(
        f"""
The mesh runs. It lives in {mesh.folder}
  broker  {mesh.url()}
  alice   CLAUDEMESH_HOME={mesh.home("alice")}
  bob     CLAUDEMESH_HOME={mesh.home("bob")}

Try:
  export CLAUDEMESH_HOME={mesh.home("bob")}
  {shown} send alice 'hello back'
  {shown} status
  {shown} inbox -f
  {shown} send '#news' 'anybody there?'

End it with ./build/mesh down"""
    )


def default_folder() -> Path:
    """`.mesh` in the checkout, or a short folder where a socket's path would grow too long."""
    folder = ROOT / ".mesh"
    if len(os.fsencode(folder)) <= _LONGEST_FOLDER:
        return folder
    mark = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"claudemesh-{os.getuid()}-{mark}"


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"── {text}", flush=True)


def main() -> int:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(prog="./build/mesh", description="A mesh on this machine.")
    parser.add_argument("action", nargs="?", choices=["up", "down", "status"], default="up")
    parser.add_argument("--smoke", action="store_true", help="run, check and clean up")
    options = parser.parse_args()
    mesh = LocalMesh(default_folder())
    try:
        if options.action == "down":
            mesh.stop()
            say("the mesh is down; its data stays in " + str(mesh.folder))
            return 0
        if options.action == "status":
            for name in PEERS:
                print(mesh.run(name, "status", check=False), flush=True)
            return 0
        subprocess.run([str(ROOT / "build" / "pyz")], check=True)
        if options.smoke:
            smoke()
        else:
            start(mesh)
            explain(mesh)
    except (Failed, subprocess.SubprocessError) as error:
        print(f"build/mesh: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
