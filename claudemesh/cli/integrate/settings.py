"""Entries of claudemesh in the settings files of clients, in JSON and in TOML."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from claudemesh.cli.integrate import jsontext
from claudemesh.cli.integrate.files import Format

NAME: Final = "claudemesh"
_SERVERS: Final = "mcpServers"
_BEGIN: Final = "# claudemesh: begin. `claudemesh integrate codex --uninstall` removes these tables."
_MARKS: Final = re.compile(r"^# claudemesh: (?:begin\b.*|end)\r?\n?", re.MULTILINE)
# The header of a table. One that is mistaken for it is found by a comparison of the values.
_HEADER: Final = re.compile(r"^[ \t]*\[\[?([^\[\]\n]+)\]\]?[ \t]*(?:#[^\n]*)?\r?$", re.MULTILINE)
_LINES: Final = re.compile(r'"{3}(?:\\.|[^\\])*?"{3}|\'{3}.*?\'{3}', re.DOTALL)
_OWN_COMMAND: Final = re.compile(r"claudemesh.* hook (?:session-start|prompt|tool)$")


def json_settings(server: Mapping[str, Any], hooks: Mapping[str, Mapping[str, Any]]) -> Format:
    """Return the form of a file with `mcpServers`, and `hooks` with groups by event.

    The entries are known by the name of the server, and by that of a hook in its group.
    """

    def merge(text: str) -> str:
        text = jsontext.put(text, (_SERVERS, NAME), dict(server))
        for event, group in hooks.items():
            text = jsontext.append(text, ("hooks", event), dict(group))
        return text

    def strip(text: str) -> str:
        return jsontext.cut(text, _is_ours) if text.strip() else text

    return Format(merge, strip, _values, "{}\n")


def _values(text: str) -> Any:
    return jsontext.parse(text).value if text.strip() else {}


def _is_ours(path: Sequence[str], value: Any) -> bool:
    if path == (_SERVERS, NAME):
        return True
    if len(path) != 2 or path[0] != "hooks" or not isinstance(value, dict):
        return False
    inner = value.get("hooks")
    return isinstance(inner, list) and any(
        isinstance(hook, dict) and hook.get("name") == NAME for hook in inner
    )


def toml_settings(server: Mapping[str, Any], hooks: Mapping[str, Mapping[str, Any]]) -> Format:
    """Return the form of a TOML file with `mcp_servers` and `hooks`: tables at its end, behind a mark.

    The client writes tables of its own between them, so each of them is known by its name, and by the command
    of a hook.
    """

    def merge(text: str) -> str:
        body = text if not text or text.endswith("\n") else f"{text}\n"
        made = f"{body}{_BEGIN}\n{_toml(server, hooks)}"
        _toml_values(made)
        return made

    return Format(merge, _without_tables, _toml_values, "")


def _toml_values(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def _without_tables(text: str) -> str:
    """Return a text without the tables of claudemesh. `ValueError` when it cannot be taken apart."""
    before = _toml_values(text)
    bounds = [0, *(match.start() for match in _HEADER.finditer(_masked(text))), len(text)]
    parts = [text[start:end] for start, end in pairwise(bounds)]
    kept = "".join(part for number, part in enumerate(parts) if not _is_own_table(parts, number))
    rest = _MARKS.sub("", kept)
    if _without_entries(_toml_values(rest)) != _without_entries(before):
        raise ValueError("the tables of claudemesh stand among others in a way that cannot be taken apart")
    return rest


def _masked(text: str) -> str:
    """Return a text of the same length without strings of several lines: these may look like headers."""
    return _LINES.sub(lambda match: "." * len(match[0]), text)


def _is_own_table(parts: Sequence[str], number: int) -> bool:
    header, _, body = parts[number].partition("\n")
    match = _HEADER.match(header)
    if match is None:
        return False
    try:
        path = _path(tomllib.loads(f"[{match[1]}]"))
    except ValueError:
        # An array inside of another one stands alone in a line, too.
        return False
    if path[:2] == ["mcp_servers", NAME]:
        return True
    if path[:1] != ["hooks"] or not header.lstrip().startswith("[["):
        return False
    if path[2:] == ["hooks"]:
        return _is_own_hook(tomllib.loads(body))
    # A group goes with its only hook, which is the next table.
    following = [_header_of(part) for part in parts[number + 1 : number + 3]]
    own = f"{match[1].strip()}.hooks"
    is_single = following[:1] == [own] and following[1:] != [own]
    return is_single and not tomllib.loads(body) and _is_own_table(parts, number + 1)


def _header_of(part: str) -> str:
    match = _HEADER.match(part)
    return "" if match is None else match[1].strip()


def _path(value: Any) -> list[str]:
    path: list[str] = []
    while isinstance(value, dict) and len(value) == 1:
        [(key, value)] = value.items()
        path.append(key)
    return path


def _is_own_hook(hook: Any) -> bool:
    command = hook.get("command") if isinstance(hook, dict) else None
    return isinstance(command, str) and _OWN_COMMAND.search(command) is not None


def _without_entries(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a file without the entries of claudemesh and the tables that are empty then."""
    rest = dict(values)
    servers, hooks = rest.get("mcp_servers"), rest.get("hooks")
    if isinstance(servers, dict):
        rest["mcp_servers"] = {name: one for name, one in servers.items() if name != NAME}
    if isinstance(hooks, dict):
        kept = {event: _without_hooks(groups) for event, groups in hooks.items()}
        rest["hooks"] = {event: groups for event, groups in kept.items() if groups}
    return {
        name: value for name, value in rest.items() if value != {} or name not in ("mcp_servers", "hooks")
    }


def _without_hooks(groups: Any) -> Any:
    if not isinstance(groups, list):
        return groups
    rest = []
    for group in groups:
        found = group.get("hooks") if isinstance(group, dict) else None
        if not isinstance(found, list) or not any(map(_is_own_hook, found)):
            rest.append(group)
        elif others := [hook for hook in found if not _is_own_hook(hook)]:
            rest.append({**group, "hooks": others})
    return rest


def _toml(server: Mapping[str, Any], hooks: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"[mcp_servers.{NAME}]", *_pairs(server)]
    for event, group in hooks.items():
        [hook] = group["hooks"]
        lines += ["", f"[[hooks.{event}]]", "", f"[[hooks.{event}.hooks]]", *_pairs(hook)]
    return "\n".join([*lines, ""])


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_literal(value)}" for name, value in table.items()]


def _literal(value: Any) -> str:
    # Strings, numbers and arrays of JSON without ASCII escapes are TOML too.
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_pairs(value))} }}"
    return json.dumps(value, ensure_ascii=False)
