"""Requests to a daemon that do not wait for each other.

Each is written to one connection before the answers to earlier ones have arrived. The daemon handles them in
their order, and answers in it.
"""

from __future__ import annotations

import socket
from collections import deque
from types import TracebackType
from typing import Any

import httptools
import orjson

from claudemesh.client.local import LocalClient, connect_trusted

_ANSWER_S = 60.0
_PIECE = 64 << 10


class Pipeline:
    """An open connection of a client. Every method raises `OSError` when the connection is lost."""

    def __init__(self, client: LocalClient) -> None:
        self._link: socket.socket = connect_trusted(client.path)
        self._link.settimeout(_ANSWER_S)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items())
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._answers: deque[tuple[int, dict[str, Any]]] = deque()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()

    def post(self, path: str, raw: bytes) -> None:
        """Write a request with a body of JSON."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{self._headers}Content-Type: application/json\r\n"
            f"Content-Length: {len(raw)}\r\n\r\n"
        )
        self._link.sendall(head.encode() + raw)

    def answer(self) -> tuple[int, dict[str, Any]]:
        """Wait for the next answer, and return its status and its object."""
        while not self._answers:
            piece = self._link.recv(_PIECE)
            if not piece:
                raise ConnectionResetError("the daemon closed the connection")
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserError as error:
                raise ConnectionResetError("the answer is not HTTP") from error
        return self._answers.popleft()

    # The names by which the parser calls.

    def on_message_begin(self) -> None:
        """Begin an answer."""
        self._body.clear()

    def on_body(self, piece: bytes) -> None:
        """Take a part of the body."""
        self._body += piece

    def on_message_complete(self) -> None:
        """Keep a whole answer."""
        try:
            found = orjson.loads(self._body)
        except orjson.JSONDecodeError:
            found = {}
        self._answers.append((self._parser.get_status_code(), found if isinstance(found, dict) else {}))
