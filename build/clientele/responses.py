"""The form of a conversation that Codex and its vendor's API have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

SERVER: Final = "mcp__claudemesh"
_USAGE: Final = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}


def messages_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a conversation as messages with a role and a content, in their order."""
    messages = []
    for item in body.get("input", ()):
        if item.get("type") in ("function_call", "custom_tool_call"):
            messages.append({"role": "assistant", "content": ""})
        elif "output" in item:
            messages.append({"role": "user", "content": _text(item["output"])})
        elif item.get("role"):
            messages.append({"role": item["role"], "content": _text(item.get("content"))})
    return messages


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    parts: Sequence[Any] = value if isinstance(value, list) else ()
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def events(blocks: Sequence[Mapping[str, Any]]) -> bytes:
    """Return an answer as the stream of events that the client reads."""
    made: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": "resp_1"}}]
    for index, block in enumerate(blocks):
        made.append({"type": "response.output_item.done", "output_index": index, "item": _item(block)})
    made.append({"type": "response.completed", "response": {"id": "resp_1", "usage": _USAGE}})
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in made).encode()


def _item(block: Mapping[str, Any]) -> dict[str, Any]:
    if block["type"] == "text":
        content = [{"type": "output_text", "text": block["text"]}]
        return {"type": "message", "role": "assistant", "id": "msg_1", "content": content}
    return {
        "type": "function_call",
        "id": block["id"],
        "call_id": block["id"],
        "namespace": SERVER,
        "name": block["name"].rpartition("__")[2],
        "arguments": json.dumps(block["input"]),
    }
