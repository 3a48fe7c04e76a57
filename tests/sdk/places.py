"""The hosts on which a driver runs: an ordinary one, and those that make its way to the daemon special."""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from claudemesh.home.ended import Ended, save_ended
from tests.sdk.conformance import Answers, Driver
from tests.support.mounts import hidden
from tests.support.processes import Daemon, Mesh, until

_NOBODY = 65534
_SANDBOX = Path(__file__).parent / "sandbox.py"
_OLDER = {
    "/v1/version": {
        "daemon_version": "0.0.9",
        "ipc_api": "v1",
        "ipc_features": ["GET /v1/health", "GET /v1/version"],
        "schema_version": 1,
        "broker": {"version": None, "features": {}},
        "mesh": "demo",
        "name": "older",
        "member_id": "1",
    },
    "/v1/health": {"name": "older"},
}

_ODD_ROUTES = [
    f"{method} /v1/{name}"
    for method, name in [
        ("GET", name) for name in ("version", "health", "profile", "peers", "outbox/{id}", "history")
    ]
    + [("POST", "send")]
]


def started(command: list[str], daemon: Daemon, folder: Path, **environment: str) -> Driver:
    """Start a driver on a host."""
    return Driver(command, {"CLAUDEMESH_HOME": str(daemon.home), **environment}, folder / "stderr")


def nowhere(command: list[str], daemon: Daemon, folder: Path, stack: ExitStack) -> Driver:
    """A socket that is not there."""
    return started(command, daemon, folder, CLAUDEMESH_DAEMON_SOCK=str(folder / "sock"))


def former(command: list[str], daemon: Daemon, folder: Path, stack: ExitStack) -> Driver:
    """The folder of a member that was revoked, without a daemon."""
    save_ended(folder / "ended.json", Ended("revoked"))
    return nowhere(command, daemon, folder, stack)


def sandbox(command: list[str], daemon: Daemon, folder: Path, stack: ExitStack) -> Driver:
    """A process that the system lets open no unix socket."""
    return started([sys.executable, str(_SANDBOX), str(errno.EACCES), *command], daemon, folder)


def private_tmp(command: list[str], daemon: Daemon, folder: Path, stack: ExitStack) -> Driver:
    """A temporary directory that the daemon does not see, as beside a service with its own /tmp."""
    home, tmp = folder / "home", folder / "tmp"
    for made in (home, tmp):
        made.mkdir()
    return started([*hidden(tmp), *command], daemon, folder, HOME=str(home), TMPDIR=str(tmp))


def foreign(command: list[str], daemon: Daemon, folder: Path, stack: ExitStack) -> Driver:
    """A socket that belongs to another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(daemon.sock, _NOBODY, _NOBODY)
    stack.callback(os.chown, daemon.sock, 0, 0)
    return started(command, daemon, folder)


def older(command: list[str], daemon: Daemon, folder: Path, stack: ExitStack) -> Driver:
    """A daemon of another version, with few routes."""
    return _served(command, daemon, folder, stack, lambda path: [_whole(_OLDER[path])])


def odd(command: list[str], daemon: Daemon, folder: Path, stack: ExitStack) -> Driver:
    """A program that answers as no daemon does, or cuts its first answer off; a proxy is set as well."""
    seen: set[str] = set()

    def answer(path: str) -> list[bytes]:
        again = path in seen
        seen.add(path)
        name = path.removeprefix("/v1/")
        if name == "version":
            return [_whole({**_OLDER["/v1/version"], "ipc_features": _ODD_ROUTES})]
        if name == "health":
            return [_http(200, b'{"name": ')]
        if name == "profile":
            return [_http(200, b"null")]
        if name == "peers":
            return [_http(500, b"<h1>no</h1>")]
        if name.startswith("outbox/"):
            # In pieces, with an answer behind it that belongs to no request.
            item = {"client_message_id": name[7:], "status": "done", "state": "accepted", "detail": ""}
            whole = _whole(item)
            return [whole[:20], whole[20:60], whole[60:] + _http(200, b'{"items": "of no request"}')]
        whole = _whole({"items": [], "next": None, "status": "queued", "client_message_id": ""})
        if name == "send":
            whole = _whole({"status": "queued", "client_message_id": folder.name})
        return [whole] if again else [whole[:-5], b""]

    proxies = {
        "http_proxy": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "socks5://x",
    }
    return _served(command, daemon, folder, stack, answer, **proxies)


def endless(command: list[str], daemon: Daemon, folder: Path, stack: ExitStack) -> Driver:
    """A program that lists the inbox page after page, without an end and without a reply."""
    sent = {"client_message_id": folder.name, "status": "done", "broker_message_id": "1"}
    answers = {
        "version": {**_OLDER["/v1/version"], "ipc_features": [*_ODD_ROUTES, "GET /v1/inbox"]},
        "inbox": {"items": [], "next": "1"},
        "send": sent,
    }
    row = {**sent, "state": "accepted", "detail": "", "destination_kind": "dm", "destination_ref": "x"}
    return _served(
        command,
        daemon,
        folder,
        stack,
        lambda path: [_whole(answers.get(path.removeprefix("/v1/"), row))],
    )


def _served(
    command: list[str],
    daemon: Daemon,
    folder: Path,
    stack: ExitStack,
    answer: Callable[[str], list[bytes]],
    **environment: str,
) -> Driver:
    """Start a driver whose daemon is a function: of a path, the pieces of its answer; an empty piece is the
    end of the connection."""
    path = folder / "sock"
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(path))
    listener.listen()
    stack.callback(listener.shutdown, socket.SHUT_RDWR)
    threading.Thread(target=_serve, args=(listener, answer), daemon=True).start()
    return started(command, daemon, folder, CLAUDEMESH_DAEMON_SOCK=str(path), **environment)


def _serve(listener: socket.socket, answer: Callable[[str], list[bytes]]) -> None:
    while True:
        try:
            link, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(link, answer), daemon=True).start()


def _answer(link: socket.socket, answer: Callable[[str], list[bytes]]) -> None:
    with suppress(OSError), link, link.makefile("rwb") as stream:
        while line := stream.readline():
            length = 0
            while header := stream.readline().strip().lower():
                if header.startswith(b"content-length:"):
                    length = int(header.partition(b":")[2])
            stream.read(length)
            for piece in answer(line.split()[1].decode().partition("?")[0]):
                if not piece:
                    return
                stream.write(piece)
                stream.flush()


def _http(status: int, raw: bytes) -> bytes:
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%s" % (status, len(raw), raw)


def _whole(value: dict[str, Any]) -> bytes:
    return _http(200, json.dumps(value).encode())


PLACES: Mapping[str, Callable[[list[str], Daemon, Path, ExitStack], Driver]] = {
    "nowhere": nowhere,
    "former": former,
    "sandbox": sandbox,
    "private tmp": private_tmp,
    "foreign": foreign,
    "older": older,
    "odd": odd,
    "endless": endless,
}


def answers_of_hook(
    command: list[str], made: Mesh, folder: Path, stack: ExitStack, calls: list[dict[str, Any]]
) -> Answers:
    """Run the driver as a hook of bob's daemon, with these calls, and return what it has told."""
    bob, hooks = made.daemons["bob"], made.daemons["bob"].root / "hooks"
    asked, told = folder / "asked", folder / "told"
    asked.write_text("".join(f"{json.dumps(call)}\n" for call in calls))
    hooks.mkdir(mode=0o700, exist_ok=True)
    script = hooks / "on-dm"
    script.write_text(
        f"#!/bin/sh\n{shlex.join([*command, '--finish'])} <{asked} >{told}.new && mv {told}.new {told}\n"
    )
    script.chmod(0o700)
    manifest = hooks / "hooks.toml"
    manifest.write_text('[on-dm]\ncapability_token_scope = ["dm:send:sender"]\n')
    stack.callback(bob.request, "POST", "/v1/reload")
    stack.callback(script.unlink)
    stack.callback(manifest.unlink)
    assert bob.request("POST", "/v1/reload")[1]["error"] is None
    assert made.daemons["alice"].send("bob", "run")[0] == 202
    until(told.exists, "the hook has run")
    return Answers(told.read_text())
