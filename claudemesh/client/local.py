"""The daemon of this host, over its unix socket."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson

from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.client.home import check_socket, choose_mesh, socket_path

_CONNECT_S = 0.1
_ANSWER_S = 60.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT_S)
        self.sock.connect(os.fspath(self._path))
        self.sock.settimeout(self.timeout)


class LocalClient:
    """One mesh's daemon. Every method raises `DaemonNotRunning` or `ApiError`."""

    def __init__(self, slug: str | None = None) -> None:
        # A hook is told where its daemon is, and has no home to find it by.
        told = os.environ.get("CLAUDEMESH_DAEMON_SOCK") if slug is None else None
        self.slug = os.environ.get("CLAUDEMESH_MESH", "") if told else choose_mesh(slug)
        self._path = check_socket(Path(told)) if told else socket_path(self.slug)
        token = os.environ.get("CLAUDEMESH_CAPABILITY_TOKEN") if told else None
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def is_running(self) -> bool:
        """Whether a daemon answers, found by asking it and not by its pid file."""
        try:
            self.get("/v1/version")
        except DaemonNotRunning:
            return False
        return True

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """GET a route; parameters that are None are left out."""
        given = {name.rstrip("_"): value for name, value in query.items() if value is not None}
        return self._request("GET", f"{path}?{urlencode(given)}" if given else path, None)

    def items(self, path: str) -> list[dict[str, Any]]:
        """GET a list whole, page after page."""
        items: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            page = self.get(path, after=after)
            items += page["items"]
            after = page["next"]
            if after is None:
                return items

    def text(self, path: str) -> str:
        """GET a route that answers with text."""
        connection = _UnixConnection(self._path, _ANSWER_S)
        with closing(connection):
            response = self._send(connection, "GET", path, None)
            raw = response.read()
            if response.status >= 400:
                raise ApiError(response.status, _parse(raw))
            return raw.decode()

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """POST an object to a route."""
        return self._request("POST", path, None if body is None else orjson.dumps(body))

    def stream(self, path: str, *, timeout_s: float = _ANSWER_S) -> Generator[tuple[str, dict[str, Any]]]:
        """Yield (event, data) until the daemon ends the stream; the first is ("open", {}), once it listens.

        `TimeoutError` when nothing at all has come for `timeout_s`; a daemon says something every 15 s.
        """
        connection = _UnixConnection(self._path, timeout_s)
        with closing(connection):
            response = self._send(connection, "GET", path, None)
            if response.status != 200:
                raise ApiError(response.status, _parse(response.read()))
            yield "open", {}
            yield from _events(response)

    def _request(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        connection = _UnixConnection(self._path, _ANSWER_S)
        with closing(connection):
            response = self._send(connection, method, path, body)
            answer = _parse(response.read())
            if response.status >= 400:
                raise ApiError(response.status, answer)
            return answer

    def _send(
        self, connection: _UnixConnection, method: str, path: str, body: bytes | None
    ) -> http.client.HTTPResponse:
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        try:
            connection.request(method, path, body, headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise DaemonNotRunning(self.slug) from error


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _events(response: http.client.HTTPResponse) -> Generator[tuple[str, dict[str, Any]]]:
    event = "message"
    for raw in response:
        name, _, value = raw.decode().rstrip("\n").partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, _parse(value.encode())
