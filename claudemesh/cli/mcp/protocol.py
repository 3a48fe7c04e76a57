"""The Model Context Protocol as a function from a message to its answer (docs/agents.md).

The revisions up to 2025-11-25 begin with `initialize`; 2026-07-28 has no handshake, and each of its requests
names the revision. Both are served at once: no answer depends on an earlier message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

STATELESS: Final = "2026-07-28"
HANDSHAKES: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
REVISIONS: Final = (STATELESS, *HANDSHAKES)
_PREFIX: Final = "io.modelcontextprotocol/"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
UNKNOWN_METHOD: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
UNSUPPORTED_REVISION: Final = -32022


class Call(NamedTuple):
    """A call of a tool, which is answered later by `result`."""

    id: str | int
    tool: str
    arguments: Mapping[str, Any]
    is_stateless: bool


class About(NamedTuple):
    """The server as it describes itself."""

    name: str
    version: str
    instructions: str
    tools: Sequence[Mapping[str, Any]]


def handle(message: Any, about: About) -> dict[str, Any] | Call | None:
    """Return the answer to a message, the call that it makes, or None for a notification or an answer."""
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return failure(None, INVALID_REQUEST, "A message is a JSON-RPC 2.0 object.")
    method, request_id = message.get("method"), message.get("id")
    if method is None and ("result" in message or "error" in message):
        return None
    if not isinstance(method, str):
        return failure(_id(request_id), INVALID_REQUEST, "A request has a method.")
    if "id" not in message:
        return None
    known = _id(request_id)
    if known is None:
        return failure(None, INVALID_REQUEST, "The id of a request is a string or a whole number.")
    params = message.get("params", {})
    if not isinstance(params, dict):
        return failure(known, INVALID_PARAMS, "params is an object.")
    return _answer(known, method, params, about)


def _answer(
    request_id: str | int, method: str, params: Mapping[str, Any], about: About
) -> dict[str, Any] | Call:
    revision = _revision(params)
    if revision is not None and revision not in REVISIONS:
        data = {"supported": list(REVISIONS), "requested": revision}
        return failure(request_id, UNSUPPORTED_REVISION, "This revision is not supported.", data)
    is_stateless = revision == STATELESS
    if method == "initialize":
        return result(request_id, _initialized(params, about))
    if method == "server/discover":
        found = {"supportedVersions": list(REVISIONS), **_described(about)}
        return result(request_id, _cached(found), about if is_stateless or revision is None else None)
    if method == "ping":
        return result(request_id, {}, about if is_stateless else None)
    if method == "tools/list":
        tools = {"tools": list(about.tools)}
        return result(request_id, _cached(tools) if is_stateless else tools, about if is_stateless else None)
    if method == "tools/call":
        tool, arguments = params.get("name"), params.get("arguments") or {}
        if not isinstance(tool, str) or not isinstance(arguments, dict):
            return failure(request_id, INVALID_PARAMS, "A call has the name of a tool and arguments.")
        if tool not in {one["name"] for one in about.tools}:
            return failure(request_id, INVALID_PARAMS, f"There is no tool {tool[:64]}.")
        return Call(request_id, tool, arguments, is_stateless)
    return failure(request_id, UNKNOWN_METHOD, f"There is no method {method[:64]}.")


def result(request_id: str | int, body: Mapping[str, Any], stateless: About | None = None) -> dict[str, Any]:
    """Return a result. With `stateless`, it has the fields that revision 2026-07-28 requires."""
    if stateless is not None:
        server = {"name": stateless.name, "version": stateless.version}
        body = {**body, "resultType": "complete", "_meta": {f"{_PREFIX}serverInfo": server}}
    return {"jsonrpc": "2.0", "id": request_id, "result": dict(body)}


def failure(request_id: Any, code: int, text: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an error."""
    error = {"code": code, "message": text, **({"data": dict(data)} if data else {})}
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def text_result(text: str, *, is_error: bool = False) -> dict[str, Any]:
    """Return the result of a tool."""
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


def client_of(message: Any) -> tuple[str, str | None] | None:
    """Return name and version of the client that a message names."""
    params = message.get("params") if isinstance(message, dict) else None
    if not isinstance(params, dict):
        return None
    meta = params.get("_meta")
    info = params.get("clientInfo") or (isinstance(meta, dict) and meta.get(f"{_PREFIX}clientInfo"))
    if not isinstance(info, dict) or not isinstance(info.get("name"), str):
        return None
    version = info.get("version")
    return info["name"], version if isinstance(version, str) else None


def knows_tools(message: Any) -> bool:
    """Whether a request shows that the client knows the tools once it is answered."""
    return isinstance(message, dict) and message.get("method") in ("tools/list", "tools/call")


def _initialized(params: Mapping[str, Any], about: About) -> dict[str, Any]:
    wanted = params.get("protocolVersion")
    revision = wanted if wanted in HANDSHAKES else HANDSHAKES[0]
    info = {"name": about.name, "version": about.version}
    return {"protocolVersion": revision, "serverInfo": info, **_described(about)}


def _described(about: About) -> dict[str, Any]:
    return {"capabilities": {"tools": {"listChanged": False}}, "instructions": about.instructions}


def _cached(body: Mapping[str, Any]) -> dict[str, Any]:
    return {**body, "ttlMs": 0, "cacheScope": "private"}


def _revision(params: Mapping[str, Any]) -> str | None:
    meta = params.get("_meta")
    found = meta.get(f"{_PREFIX}protocolVersion") if isinstance(meta, dict) else None
    return found if isinstance(found, str) else None


def _id(value: Any) -> str | int | None:
    return value if isinstance(value, str) or type(value) is int else None
