"""The forms of a conversation that Qwen Code and Gemini CLI have with their vendors' APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_USAGE: Final = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
_COUNTS: Final = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
_Block = Mapping[str, Any]


def chat(body: Mapping[str, Any], blocks: Sequence[_Block]) -> tuple[bytes, str]:
    """Return an answer in the form of chat completions, and its media type."""
    names = [tool["function"]["name"] for tool in body.get("tools") or ()]
    calls = [
        {
            "index": index,
            "id": block["id"],
            "type": "function",
            "function": {"name": _known(block, names), "arguments": json.dumps(block["input"])},
        }
        for index, block in enumerate(_calls(blocks))
    ]
    said: dict[str, Any] = {"role": "assistant", "content": _text(blocks)}
    if calls:
        said["tool_calls"] = calls
    head = {"id": "chat_1", "created": 1, "model": body.get("model")}
    ending = "tool_calls" if calls else "stop"
    if not body.get("stream"):
        choice = {"index": 0, "message": said, "finish_reason": ending}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": _USAGE}
        return json.dumps(whole).encode(), "application/json"
    pieces: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": said, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": ending}], "usage": _USAGE},
    ]
    lines = [json.dumps({**head, "object": "chat.completion.chunk", **piece}) for piece in pieces]
    return "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]")).encode(), "text/event-stream"


def contents(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a conversation of Gemini as messages with a role and a content, in their order."""
    return [
        {
            "role": "assistant" if one.get("role") == "model" else "user",
            "content": "\n".join(_strings(one.get("parts"))),
        }
        for one in body.get("contents", ())
    ]


def generated(body: Mapping[str, Any], blocks: Sequence[_Block], *, streams: bool) -> tuple[bytes, str]:
    """Return an answer in the form of Gemini, and its media type."""
    declared = [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations", ())]
    names = [one["name"] for one in declared]
    parts: list[dict[str, Any]] = [{"text": text}] if (text := _text(blocks)) else []
    parts += [
        {"functionCall": {"name": _known(block, names), "args": block["input"]}} for block in _calls(blocks)
    ]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
    whole = json.dumps({"candidates": [candidate], "usageMetadata": _COUNTS})
    if streams:
        return f"data: {whole}\n\n".encode(), "text/event-stream"
    return whole.encode(), "application/json"


def _text(blocks: Sequence[_Block]) -> str:
    return "".join(block["text"] for block in blocks if block["type"] == "text")


def _calls(blocks: Sequence[_Block]) -> Iterator[_Block]:
    return (block for block in blocks if block["type"] == "tool_use")


def _known(block: _Block, names: Sequence[str]) -> str:
    """Return the name that the client has given a tool."""
    name: str = block["name"].rpartition("__")[2]
    return next((one for one in names if one.endswith(name)), f"mcp__claudemesh__{name}")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
