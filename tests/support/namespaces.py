"""Two network namespaces with a cable between them: two hosts that share no address. Only root makes them."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Namespace:
    """A namespace, and its address on the cable."""

    name: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command in front of one that runs inside."""
        return ("ip", "netns", "exec", self.name)


def missing() -> str | None:
    """Return the reason for which this machine has no namespaces for tests, None when it has."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    if shutil.which("ip") is None:
        return "network namespaces need the program ip (Debian: apt-get install iproute2)"
    probe = f"cm-{secrets.token_hex(3)}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if done.returncode != 0:
        return f"this machine makes no network namespaces: {done.stderr.strip()}"
    _ip("netns", "del", probe)
    return None


@contextmanager
def two_namespaces() -> Generator[tuple[Namespace, Namespace]]:
    """Make two namespaces; no route leads out of the network between them."""
    mark = secrets.token_hex(3)
    one, two = (Namespace(f"cm-{mark}-{side}", f"10.231.0.{side}") for side in (1, 2))
    cable = (f"cm{mark}a", f"cm{mark}b")
    made = []
    try:
        for namespace in (one, two):
            _ip("netns", "add", namespace.name)
            made.append(namespace.name)
        _ip("link", "add", cable[0], "netns", one.name, "type", "veth", "peer", cable[1], "netns", two.name)
        for here, end in ((one, cable[0]), (two, cable[1])):
            _ip("-n", here.name, "link", "set", "lo", "up")
            _ip("-n", here.name, "address", "add", f"{here.address}/30", "dev", end)
            _ip("-n", here.name, "link", "set", end, "up")
        yield one, two
    finally:
        for name in made:
            _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
