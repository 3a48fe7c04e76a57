"""The server on standard input and output: one JSON message a line.

Calls run in threads, so a wait holds up no other request. The server ends with its input, and with its
parent: a process that outlives its client would keep the session of a client that is gone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import orjson

import claudemesh
from claudemesh.cli.mcp.calls import Tools
from claudemesh.cli.mcp.protocol import (
    INTERNAL_ERROR,
    PARSE_ERROR,
    About,
    Call,
    client_of,
    failure,
    handle,
    result,
    text_result,
)
from claudemesh.cli.mcp.session import McpSession
from claudemesh.cli.mcp.tools import INSTRUCTIONS, TOOLS

_MOST_CALLS: Final = 16
_LONGEST_LINE: Final = 4 << 20
_PARENT_S: Final = 2.0


class Server:
    """One server for one client."""

    def __init__(self, session: McpSession, source: BinaryIO, sink: BinaryIO) -> None:
        self._session = session
        self._tools = Tools(session)
        self._source = source
        self._sink = sink
        self._writing = threading.Lock()
        self._slots = threading.Semaphore(_MOST_CALLS)
        self._ended = threading.Event()
        self._about = About("claudemesh", claudemesh.__version__, INSTRUCTIONS, TOOLS)

    def run(self) -> None:
        """Serve until the input ends or the client no longer reads."""
        parent = os.getppid()
        self._start(self._session.keep, self._ended)
        self._start(self._watch, parent)
        try:
            while line := self._source.readline(_LONGEST_LINE):
                if line.strip():
                    self._take(line)
        except BrokenPipeError:
            return
        finally:
            self._ended.set()
            self._session.end()

    def _take(self, line: bytes) -> None:
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            self._write(failure(None, PARSE_ERROR, "A line is a JSON object."))
            return
        client = client_of(message)
        if client is not None:
            self._session.describe(client=client[0], client_version=client[1])
        answer = handle(message, self._about)
        if isinstance(answer, Call):
            self._slots.acquire()
            self._start(self._run, answer)
        elif answer is not None:
            self._write(answer)

    def _run(self, call: Call) -> None:
        try:
            done = self._tools.call(call.tool, call.arguments)
            body = text_result(done.text, is_error=done.is_error)
            self._write(result(call.id, body, self._about if call.is_stateless else None))
            self._tools.mark(done)
        except BrokenPipeError:
            os._exit(0)
        except Exception as error:
            self._write(failure(call.id, INTERNAL_ERROR, f"The tool failed: {type(error).__name__}."))
        finally:
            self._slots.release()

    def _write(self, answer: Mapping[str, Any]) -> None:
        with self._writing:
            self._sink.write(orjson.dumps(answer) + b"\n")
            self._sink.flush()

    def _watch(self, parent: int) -> None:
        while not self._ended.wait(_PARENT_S):
            if os.getppid() != parent:
                self._session.end()
                os._exit(0)

    def _start(self, target: Any, *arguments: Any) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()


def serve(mesh: str | None) -> None:
    """Serve the client at standard input and output."""
    # Imported here: a path is needed only once the server runs.
    from pathlib import Path

    source, sink = sys.stdin.buffer, sys.stdout.buffer
    # A stray print would break the protocol.
    sys.stdout = sys.stderr
    Server(McpSession(mesh, Path.cwd()), source, sink).run()
