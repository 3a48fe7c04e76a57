"""Settings of clients with a value of any type in any place: each is handled, or refused by name."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudemesh.cli.diagnosis.client_checks import check_clients
from claudemesh.cli.diagnosis.clients import client_facts
from claudemesh.cli.integrate.clients import CLIENTS
from claudemesh.cli.integrate.files import apply, diff
from claudemesh.cli.integrate.places import Place
from claudemesh.runtime.exits import ExitWith

_WORDS = st.sampled_from(["", "claudemesh", "mcp", "hooks", "mcpServers", "a\0b", "/bin/sh"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORDS, inner, max_size=2),
    max_leaves=4,
)
_SERVER = {"mcpServers": {"mesh": {"command": "claudemesh", "args": ["mcp"]}}}
# Further files that are read for Claude Code, below the home of the user.
_BESIDE = {
    ".claude.json": {**_SERVER, "projects": {"PROJECT": _SERVER}},
    "project/.mcp.json": _SERVER,
    ".claude/settings.json": {
        "disableAllHooks": True,
        "permissions": {"allow": ["x"], "defaultMode": "plan"},
    },
}
_DEEP = (b"[" * 5000, b'{"a":' * 5000, b"a = " + b"[" * 5000)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    """A user with every integration, and no client on the path."""
    home = tmp_path_factory.mktemp("user")
    (home / "project").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home / "project")
        patch.setenv("HOME", str(home))
        patch.setenv("PATH", "/nowhere")
        for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "CLAUDEMESH_HOME"):
            patch.delenv(name, raising=False)
        made = Place("user", home, home / "project", ["/bin/sh"], {"CLAUDEMESH_HOME": "/mesh"})
        for client in CLIENTS.values():
            apply(client.install(made))
        for name, content in _BESIDE.items():
            (home / name).write_text(json.dumps(content).replace("PROJECT", str(made.project)))
        yield made


def files(place: Place, name: str) -> list[Path]:
    beside = [place.home / other for other in _BESIDE] if name == "claude" else []
    written = [change.path for change in CLIENTS[name].install(place)]
    return [path for path in [*written, *beside] if path.suffix in (".json", ".toml")]


def places_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places_in(one, (*at, key))


def with_value(value: Any, at: tuple[Any, ...], other: Any) -> Any:
    if not at:
        return other
    changed = value.copy()
    changed[at[0]] = with_value(value[at[0]], at[1:], other)
    return changed


def as_toml(value: Any) -> str:
    """The value in one line. TOML has no null."""
    if isinstance(value, dict):
        pairs = [f"{json.dumps(key)} = {as_toml(one)}" for key, one in value.items() if one is not None]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(as_toml(one) for one in value if one is not None)}]"
    return json.dumps(value).replace("e+", "e")


def as_tables(value: dict[str, Any]) -> str:
    """The value with a table for each server and hook, as far as its types allow it."""
    lines, servers = [], value.get("mcp_servers")
    for key, one in value.items():
        if one is not None and not (key == "mcp_servers" and isinstance(servers, dict)):
            lines.append(f"{json.dumps(key)} = {as_toml(one)}")
    for name, server in servers.items() if isinstance(servers, dict) else ():
        if isinstance(server, dict):
            lines.append(f"[mcp_servers.{json.dumps(name)}]")
            lines += [f"{json.dumps(key)} = {as_toml(one)}" for key, one in server.items() if one is not None]
    return "\n".join([*lines, ""])


def use(name: str, place: Place) -> None:
    """Everything that reads the files of a client. A refusal names what is wrong; no other error comes."""
    list(check_clients(client_facts(())))
    for work in (CLIENTS[name].install, CLIENTS[name].remove):
        with suppress(ExitWith):
            diff(work(place))
    with suppress(ExitWith):
        CLIENTS[name].others(place)


@pytest.mark.parametrize("name", CLIENTS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_value_of_another_type_is_handled_or_refused(name: str, place: Place, data: st.DataObject) -> None:
    """By the doctor, an installation and its removal."""
    path = data.draw(st.sampled_from(files(place, name)))
    raw = path.read_bytes()
    is_toml = path.suffix == ".toml"
    value = tomllib.loads(raw.decode()) if is_toml else json.loads(raw)
    at = data.draw(st.sampled_from([one for one in places_in(value) if one or not is_toml]))
    other = with_value(value, at, data.draw(_VALUES))
    path.write_text(as_tables(other) if is_toml else json.dumps(other))
    try:
        use(name, place)
    finally:
        path.write_bytes(raw)


@pytest.mark.parametrize("name", CLIENTS)
def test_values_that_are_nested_very_deeply_are_handled_or_refused(name: str, place: Place) -> None:
    """A reader of such a text runs out of its stack."""
    for path in files(place, name):
        raw = path.read_bytes()
        for content in _DEEP:
            path.write_bytes(content)
            try:
                use(name, place)
            finally:
                path.write_bytes(raw)
