"""Integrations as changes of files: repeated, taken back, beside text of the user."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from claudemesh.cli.integrate import claude
from claudemesh.cli.integrate.clients import CLIENTS
from claudemesh.cli.integrate.files import apply, backup_of, diff, forget
from claudemesh.cli.integrate.places import Place, Scope
from claudemesh.runtime.exits import ExitWith

SHARED = ("codex", "gemini", "qwen", "cursor")
TEXTS = {
    "codex": [
        "",
        'model = "x"\n[mcp_servers.other]\ncommand = "y"',
        "a = [\n  [1, 2]\n]\n",
        'a = 1\r\n[b]\r\nc = """\r\n[mcp_servers.claudemesh]\r\n"""\r\n',
        '\ufeffmodel = "x"\n[[hooks.SessionStart]]\n[[hooks.SessionStart.hooks]]\ncommand = "mine"\n',
        "# mine\n[hooks]\n",
    ],
    "gemini": ["", "{}", '{\n  // dark\n  "theme": "dark",\n  "hooks": {"BeforeAgent": [{"hooks": []}]},\n}'],
    "qwen": [
        "{}\n",
        '{\r\n\t"mcpServers": {"a": 1},\r\n\t"mcpServers": {"b": {}}\r\n}',
        '{"mcpServers": {"claudemesh": {"command": "old", "args": ["mcp"]}}}',
    ],
    "cursor": ['{"mcpServers": {"other": {"command": "y"}}}', '\ufeff{"a":1}'],
}


@pytest.fixture(autouse=True)
def _no_folders_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)


def place(folder: Path, scope: Scope = "user") -> Place:
    (folder / "project").mkdir(exist_ok=True)
    command = ["/opt/a b/claudemesh"]
    return Place(scope, folder, folder / "project", command, {"CLAUDEMESH_HOME": "/mesh"})


def install(client: str, where: Place) -> list[Path]:
    return apply(CLIENTS[client].install(where))


def remove(client: str, where: Place) -> list[Path]:
    changes = CLIENTS[client].remove(where)
    done = apply(changes)
    forget(changes)
    return done


def file_of(client: str, where: Place) -> Path:
    [change] = CLIENTS[client].install(where)
    return change.path


def servers(path: Path) -> Any:
    if path.suffix == ".toml":
        return tomllib.loads(path.read_text().removeprefix("\ufeff"))["mcp_servers"]
    from claudemesh.cli.integrate.jsontext import parse

    return parse(path.read_text()).value["mcpServers"]


@pytest.mark.parametrize(("client", "text"), [(one, text) for one in SHARED for text in TEXTS[one]])
def test_a_file_of_the_user_is_restored_byte_for_byte(client: str, text: str, tmp_path: Path) -> None:
    """Its mode stays, a repeated installation changes nothing, and no backup is left."""
    where = place(tmp_path)
    path = file_of(client, where)
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode())
    path.chmod(0o640)
    assert install(client, where) == [path]
    assert servers(path)["claudemesh"]["env"] == {"CLAUDEMESH_HOME": "/mesh"}
    assert backup_of(path).read_bytes() == text.encode()
    assert install(client, where) == []
    assert remove(client, where) == [path]
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (text.encode(), 0o640)
    assert list(path.parent.iterdir()) == [path]
    if "claudemesh" not in text:
        assert remove(client, where) == []


@pytest.mark.parametrize("client", SHARED)
def test_a_file_that_was_not_there_is_gone_again(client: str, tmp_path: Path) -> None:
    """Also after a second installation."""
    where = place(tmp_path, "project")
    path = file_of(client, where)
    assert install(client, where) == [path] and path.is_relative_to(tmp_path / "project")
    assert install(client, where) == []
    remove(client, where)
    assert not path.exists()


@pytest.mark.parametrize(
    ("client", "added"), [("codex", "\n[extra]\nx = 1\n"), ("gemini", "// added later\n")]
)
def test_what_the_user_has_changed_since_stays(client: str, added: str, tmp_path: Path) -> None:
    """The entries alone are taken out."""
    where = place(tmp_path)
    path = file_of(client, where)
    path.parent.mkdir(parents=True)
    path.write_text(TEXTS[client][-1])
    install(client, where)
    if client == "gemini":
        path.write_text(path.read_text().replace('"theme": "dark"', f'"theme": "light",\n{added}"size": 2'))
    else:
        path.write_text(path.read_text() + added)
    remove(client, where)
    text = path.read_text()
    assert added.strip() in text and "claudemesh" not in text
    assert not backup_of(path).exists()


def test_tables_that_codex_writes_among_those_of_claudemesh_stay(tmp_path: Path) -> None:
    """It puts its own ones anywhere: behind the last table, and between those of servers and hooks."""
    where = place(tmp_path)
    path = file_of("codex", where)
    install("codex", where)
    text = path.read_text().replace(
        "\n[[hooks.UserPrompt", '\n[mcp_servers.b]\ncommand = "b"\n\n[[hooks.UserPrompt', 1
    )
    text += "\n[tui]\nseen = true\n\n[[hooks.Stop]]\n\n[[hooks.Stop.hooks]]\ncommand = 'mine'\n"
    path.write_text(text)
    assert install("codex", where) == []
    remove("codex", where)
    assert tomllib.loads(path.read_text()) == {
        "mcp_servers": {"b": {"command": "b"}},
        "tui": {"seen": True},
        "hooks": {"Stop": [{"hooks": [{"command": "mine"}]}]},
    }


def test_a_file_that_is_read_only_is_left_alone(tmp_path: Path) -> None:
    """Its owner keeps programs from changing it, also those that replace it."""
    where = place(tmp_path)
    path = file_of("gemini", where)
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    path.chmod(0o444)
    with pytest.raises(ExitWith, match="access is denied") as refused:
        install("gemini", where)
    assert str(path) in refused.value.message
    assert list(path.parent.iterdir()) == [path] and path.read_text() == "{}"


def test_the_file_behind_a_link_is_written_and_the_link_stays(tmp_path: Path) -> None:
    """Settings are often kept in another folder."""
    where = place(tmp_path)
    path, real = file_of("cursor", where), tmp_path / "dotfiles.json"
    path.parent.mkdir()
    real.write_text("{}")
    path.symlink_to(real)
    install("cursor", where)
    assert path.is_symlink() and "claudemesh" in real.read_text()
    remove("cursor", where)
    assert path.is_symlink() and real.read_text() == "{}"


def test_a_file_that_its_client_could_not_read_is_left_alone(tmp_path: Path) -> None:
    """It is named, with the reason."""
    for client in ("codex", "gemini"):
        path = file_of(client, place(tmp_path))
        path.parent.mkdir(parents=True)
        path.write_text("{ broken")
        with pytest.raises(ExitWith, match="cannot be read") as refused:
            CLIENTS[client].install(place(tmp_path))
        assert (refused.value.error, path.read_text()) == ("settings_unreadable", "{ broken")


def test_a_diff_shows_what_is_written(tmp_path: Path) -> None:
    """Nothing once it is written."""
    where = place(tmp_path)
    shown = diff(CLIENTS["codex"].install(where))
    assert "+[mcp_servers.claudemesh]" in shown
    assert "+command = \"env CLAUDEMESH_HOME=/mesh '/opt/a b/claudemesh' hook prompt\"" in shown
    install("codex", where)
    assert diff(CLIENTS["codex"].install(where)) == ""


def test_the_plugin_is_one_directory_and_its_hooks_are_of_its_server(tmp_path: Path) -> None:
    """The start of a session is a command: no server runs then."""
    where = place(tmp_path)
    written = install("claude", where)
    own = tmp_path / ".claude" / "skills" / "claudemesh"
    assert all(path.is_relative_to(own) for path in written)
    manifest = json.loads((own / ".claude-plugin" / "plugin.json").read_text())
    server = manifest["mcpServers"]["claudemesh"]
    assert (server["command"], server["args"], server["alwaysLoad"]) == ("/opt/a b/claudemesh", ["mcp"], True)
    hooks = json.loads((own / "hooks" / "hooks.json").read_text())["hooks"]
    kinds = {event: hook["type"] for event, [group] in hooks.items() for hook in group["hooks"]}
    assert kinds.pop("SessionStart") == "command"
    assert set(kinds.values()) == {"mcp_tool"}
    assert {"UserPromptSubmit", "PreToolUse", "Stop"} <= set(kinds)
    assert install("claude", where) == []
    remove("claude", where)
    assert not any(path.exists() for path in written)


def test_a_diff_marks_a_missing_newline_at_the_end(tmp_path: Path) -> None:
    """As `diff` does, so that the last line is not joined to the next one when it is applied."""
    where = place(tmp_path)
    path = file_of("codex", where)
    path.parent.mkdir()
    path.write_text('model = "x\u2028y"')
    lines = diff(CLIENTS["codex"].install(where)).split("\n")
    at = lines.index('-model = "x\u2028y"')
    assert lines[at + 1 : at + 3] == ["\\ No newline at end of file", '+model = "x\u2028y"']
    assert not lines[-1].startswith("\\")


@pytest.mark.parametrize(
    ("file", "content", "command"),
    [
        (
            ".claude.json",
            {"mcpServers": {"my mesh": {"command": "claudemesh", "args": ["mcp"]}}},
            "--scope user 'my mesh'",
        ),
        (
            ".claude.json",
            {"mcpServers": {"-v": {"command": "claudemesh", "args": ["mcp"]}}},
            "--scope user -- -v",
        ),
        (
            ".claude.json",
            {"mcpServers": {"mesh": {"command": "claudemesh", "args": ["mcp"]}}},
            "--scope user mesh",
        ),
        (
            ".claude.json",
            {
                "projects": {
                    "PROJECT": {
                        "mcpServers": {"m": {"command": "python", "args": ["-m", "claudemesh", "mcp"]}}
                    }
                }
            },
            "--scope local m",
        ),
        (
            "project/.mcp.json",
            {"mcpServers": {"claudemesh": {"command": "claudemesh", "args": ["mcp"]}}},
            "--scope project",
        ),
        ("project/.claude/skills/claudemesh/.claude-plugin/plugin.json", {}, "--project --uninstall"),
    ],
)
def test_another_registration_of_the_server_is_found(
    file: str, content: Any, command: str, tmp_path: Path
) -> None:
    """Each with the command that removes it; servers of others are none."""
    where = place(tmp_path)
    assert claude.other_registrations(where) == []
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content).replace("PROJECT", str(tmp_path / "project")))
    [(found, remedy)] = claude.other_registrations(where)
    assert (found in str(path), command in remedy) == (True, True)


def test_servers_of_others_are_no_registration(tmp_path: Path) -> None:
    """Nor is a file that cannot be read."""
    (tmp_path / ".claude.json").write_text(
        '{"mcpServers": {"x": {"command": "other", "args": ["mcp"]}, "y": 1}}'
    )
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".mcp.json").write_text("{ broken")
    assert claude.other_registrations(place(tmp_path)) == []
