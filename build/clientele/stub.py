"""A stub of the vendors' APIs on the loopback: records what a model would read, and answers by rules.

A request whose newest text holds `[[TOOL {ARGUMENTS}]]` is answered with that call; `$ID` in it is the id of
the message around it, and `((TOOL {ARGUMENTS}))` is the same within the arguments of another. A notice of
waiting messages is answered with a call that reads them. Everything else is answered with a sentence.
"""

from __future__ import annotations

import http.server
import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from clientele import completions, responses

_CALLS: Final = (
    re.compile(r"\[\[(\w+) (\{.*?\})\]\]", re.DOTALL),
    re.compile(r"\(\((\w+) (\{.*?\})\)\)", re.DOTALL),
)
_ID: Final = re.compile(r"<mesh-message id=(\w+)>")
_WAITING: Final = re.compile(r"messages? waits? for (?:this session|you)|call mesh_inbox again")
_MCP: Final = "mcp__plugin_claudemesh_claudemesh__"


class Stub:
    """The requests so far, as texts of what the model reads."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._lock = threading.Lock()

    def shown(self, text: str) -> bool:
        """Whether a model has read a text."""
        return any(text in request for request in self.requests)

    def most(self, text: str) -> int:
        """Return how often a text stands in one request, at most: a conversation repeats what came before."""
        return max((request.count(text) for request in self.requests), default=0)

    def answer(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Note a request, and return the blocks of its answer."""
        messages = body.get("messages", [])
        with self._lock:
            self.requests.append("\n".join(_texts(messages)))
        own = [place for place, one in enumerate(messages) if one.get("role") == "assistant"]
        # Clients put a text of the user and contexts of theirs into messages of their own.
        newest = "\n".join(_texts(messages[own[-1] + 1 if own else 0 :]))
        call = _CALLS[0].search(newest) or _CALLS[1].search(newest)
        has_tools = bool(body.get("tools"))
        if call is not None and has_tools:
            found = _ID.findall(newest[: call.start()])
            # Without a message around it, the call is one of the user's prompt, and passes the word on.
            arguments = call[2].replace("$ID", found[-1]) if found else call[2]
            return [_use(call[1], json.loads(arguments))]
        if _WAITING.search(newest) and has_tools:
            return [_use("mesh_inbox", {})]
        return [{"type": "text", "text": "Understood."}]


def _use(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    name = f"{_MCP}{tool}" if tool.startswith("mesh_") else tool
    return {"type": "tool_use", "id": f"toolu_{secrets.token_hex(8)}", "name": name, "input": arguments}


def _texts(value: Any) -> Iterator[str]:
    """Return the texts in a conversation, without those that the model itself has written."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict) and value.get("role") != "assistant":
        yield from _texts(value.get("content", value.get("text", "")))


def _events(body: Mapping[str, Any], blocks: list[dict[str, Any]]) -> bytes:
    """Return an answer as the stream of events that clients read."""
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            begun, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            begun = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        events += [
            {"type": "content_block_start", "index": index, "content_block": begun},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    reason = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
    ending = {"stop_reason": reason, "stop_sequence": None}
    events += [
        {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events).encode()


def _handler(stub: Stub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.endswith("/responses"):
                messages = responses.messages_of(body := json.loads(raw))
                blocks = stub.answer({"messages": messages, "tools": body.get("tools")})
                self._reply(200, responses.events(blocks), "text/event-stream")
                return
            if self.path.endswith("/chat/completions"):
                body = json.loads(raw)
                self._reply(200, *completions.chat(body, stub.answer(body)))
                return
            if "enerateContent" in self.path:
                body = json.loads(raw)
                blocks = stub.answer({"messages": completions.contents(body), "tools": body.get("tools")})
                streams = "streamGenerateContent" in self.path
                self._reply(200, *completions.generated(body, blocks, streams=streams))
                return
            if not self.path.startswith("/v1/messages") or "count_tokens" in self.path:
                self._reply(404, b"{}", "application/json")
                return
            body = json.loads(raw)
            self._reply(200, _events(body, stub.answer(body)), "text/event-stream")

        def do_GET(self) -> None:
            self._reply(404, b"{}", "application/json")

        def do_HEAD(self) -> None:
            self._reply(200, b"", "application/json")

        def _reply(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed resets its connections."""


@contextmanager
def stub() -> Iterator[tuple[Stub, str]]:
    """A stub that serves, and its address."""
    made = Stub()
    with _Server(("127.0.0.1", 0), _handler(made)) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield made, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
