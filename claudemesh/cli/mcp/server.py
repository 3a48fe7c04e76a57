"""The server on standard input and output: one JSON message a line.

Calls run in threads, so a wait holds up no other request. The server ends with its input, and with its
parent: a process that outlives its client would keep the session of a client that is gone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final, NoReturn

import claudemesh
from claudemesh.cli.mcp.calls import Tools
from claudemesh.cli.mcp.claude_socket import claude_socket
from claudemesh.cli.mcp.codex_queue import codex_queue, thread_of
from claudemesh.cli.mcp.jsonlines import line_of, parsed
from claudemesh.cli.mcp.marks import Marks
from claudemesh.cli.mcp.protocol import (
    INTERNAL_ERROR,
    PARSE_ERROR,
    About,
    Call,
    client_of,
    failure,
    handle,
    knows_tools,
    result,
    text_result,
)
from claudemesh.cli.mcp.pushes import Pushes, push_all
from claudemesh.cli.mcp.qwen_inbox import qwen_inbox
from claudemesh.cli.mcp.session import McpSession
from claudemesh.cli.mcp.tools import INSTRUCTIONS, TOOLS
from claudemesh.client.errors import ClientError

_MOST_CALLS: Final = 16
# A text of 16 MiB in which each second byte is escaped.
_LONGEST_LINE: Final = 32 << 20
_PARENT_S: Final = 2.0


class Server:
    """One server for one client."""

    def __init__(self, session: McpSession, source: BinaryIO, sink: BinaryIO) -> None:
        self._session = session
        self._pushes = Pushes()
        self._marks = Marks(session)
        self._tools = Tools(session, self._pushes, self._marks)
        self._source = source
        self._sink = sink
        self._writing = threading.Lock()
        self._slots = threading.Semaphore(_MOST_CALLS)
        self._ended = threading.Event()
        self._parent = os.getppid()
        self._about = About("claudemesh", claudemesh.__version__, INSTRUCTIONS, TOOLS)

    def run(self) -> None:
        """Serve until the input ends or the client no longer reads."""
        self._start(self._session.keep, self._ended)
        self._start(self._watch)
        try:
            while line := self._source.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                    self._refuse_long()
                elif line.strip():
                    self._take(line)
        except BrokenPipeError:
            return
        finally:
            self._ended.set()
            with suppress(ClientError):
                self._marks.settle()
            self._session.end()

    def _refuse_long(self) -> None:
        """Skip the rest of a line, and answer it once."""
        while (rest := self._source.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass
        self._write(failure(None, PARSE_ERROR, f"A line has at most {_LONGEST_LINE} bytes."))

    def _take(self, line: bytes) -> None:
        try:
            message = parsed(line)
        except ValueError:
            self._write(failure(None, PARSE_ERROR, "A line is a JSON object."))
            return
        client = client_of(message)
        if client is not None:
            self._session.describe(client=client[0], client_version=client[1])
        self._session.describe(session_id=thread_of(message))
        answer = handle(message, self._about)
        if isinstance(answer, Call):
            self._slots.acquire()
            self._start(self._run, answer)
        elif answer is not None:
            self._write(answer)
        if knows_tools(message) and not self._session.ready.is_set():
            self._begin()

    def _begin(self) -> None:
        """Register the session, and make its pushes: the client knows the tools now."""
        door = claude_socket(os.environ) or qwen_inbox(os.environ) or codex_queue(self._session, self._parent)
        if door is not None:
            if door.is_open():
                self._session.reaches("push")
            self._start(push_all, self._session, door, self._pushes, self._marks, self._ended)
        self._session.ready.set()

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
            self._sink.write(line_of(answer))
            self._sink.flush()

    def _watch(self) -> None:
        while not self._ended.wait(_PARENT_S):
            if os.getppid() != self._parent:
                self._session.end()
                os._exit(0)

    def _start(self, target: Any, *arguments: Any) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()


def serve(mesh: str | None) -> NoReturn:
    """Serve the client at standard input and output, and end the process."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    # A stray print would break the protocol.
    sys.stdout = sys.stderr
    Server(McpSession(mesh, os.getcwd()), source, sink).run()  # noqa: PTH109
    sys.stderr.flush()
    # Not by the interpreter's own end: it may abort beneath the threads of calls that go on.
    os._exit(0)
