"""Peer credentials: the process at the other end of a unix socket, as the kernel names it.

A process id that stands in a file or in an answer may belong to another PID namespace, or to a process that
has ended since. The kernel translates the number of a peer into the reader's own namespace.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

_CREDENTIALS = struct.Struct("3i")
_CONNECT_S = 0.1
_TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"


class PeerProcess(NamedTuple):
    """Credentials of a process when it connected or started to listen."""

    # 0 when the process is in a PID namespace that is not visible to this process.
    pid: int
    uid: int


def peer_of(link: socket.socket) -> PeerProcess | None:
    """Return the credentials of the other end, None where the kernel does not tell them."""
    if link.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return PeerProcess(pid, uid)


def connect(path: Path, timeout_s: float = _CONNECT_S) -> socket.socket:
    """Connect to a unix socket. `OSError` when no process listens there."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout_s)
        link.connect(os.fspath(path))
    except BaseException:
        link.close()
        raise
    return link


def listener_on(path: Path) -> PeerProcess | None:
    """Return the process that listens on a socket, None without one or where the kernel does not tell."""
    try:
        with connect(path) as link:
            return peer_of(link)
    except OSError:
        return None


def owners_of_port(port: int) -> frozenset[int]:
    """Return the users whose processes listen on a TCP port of this machine; none where it is unknown."""
    owners = set()
    for table in _TCP_TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                owners.add(int(fields[7]))
    return frozenset(owners)


def distrust_peer(link: socket.socket, path: Path) -> str | None:
    """Return the reason not to trust a connection that leads to another user, as a sentence without its
    full stop, or None."""
    peer = peer_of(link)
    if peer is None or peer.uid == os.geteuid():
        return None
    return f"A process of another user (uid {peer.uid}) answers on {path}: run this as that user"
