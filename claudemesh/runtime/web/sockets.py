"""Listening sockets: TCP, and a private unix socket that replaces a stale one."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from claudemesh.runtime.exits import CANNOT_CREATE, TEMPORARY, ExitWith
from claudemesh.runtime.oserrors import cannot, explain, local_cause
from claudemesh.runtime.urls import host_port

_SOCKET_PATH_LIMIT = 107  # sun_path on Linux, less the closing zero; macOS has 103
_BACKLOG = 1024


def bind_tcp(host: str, port: int, settings: str = "") -> socket.socket:
    """Bind a listening TCP socket; port 0 takes a free port.

    `ExitWith` 73 names the cause of a failure, and `settings`, which say where the address is set.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host_port(host, port), error, settings) from error
    listener.setblocking(False)
    return listener


def bind_unix(path: Path) -> socket.socket:
    """Bind a listening unix socket with mode 0600, replacing a stale one. `ExitWith` 73 on failure.

    The caller holds the daemon's lock, so a socket that refuses connections is stale. A file that is not a
    socket is never removed.
    """
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
        raise ExitWith(
            CANNOT_CREATE,
            "socket_path_too_long",
            f"{path} is longer than {_SOCKET_PATH_LIMIT} bytes, the most that a socket path may have. "
            "Set CLAUDEMESH_HOME to a shorter directory.",
        )
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(str(path), error) from error
    finally:
        os.umask(previous)
    listener.setblocking(False)
    return listener


def _cannot_listen(place: str, error: OSError, settings: str = "") -> ExitWith:
    """Return the exit for a failed bind: temporary (75) when the machine is short of something, else 73."""
    cause = local_cause(error)
    if cause is not None and cause.exit_code == TEMPORARY:
        return cannot("listen on", error, place)
    reason, remedy = explain(error), ""
    if settings:
        if error.errno in (errno.EACCES, errno.EPERM):
            reason = "access is denied; a port below 1024 needs CAP_NET_BIND_SERVICE"
        where = f"set another address ({settings})"
        remedy = f" {where[0].upper()}{where[1:]}."
        if error.errno == errno.EADDRINUSE:
            remedy = f" Stop the process that listens there, or {where}; port 0 takes a free port."
    return ExitWith(CANNOT_CREATE, "cannot_listen", f"Cannot listen on {place}: {reason}.{remedy}")


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ExitWith(
            CANNOT_CREATE, "not_a_socket", f"{path} is not a socket. Move it away, then try again."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ExitWith(CANNOT_CREATE, "cannot_listen", f"{path} does not answer: {error}.") from error
    raise ExitWith(CANNOT_CREATE, "already_running", f"Another process answers on {path}. Stop it first.")
