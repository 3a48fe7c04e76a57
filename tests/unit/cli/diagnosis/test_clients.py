"""Clients of agents that have the integration, as the doctor sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from claudemesh.cli.diagnosis.client_checks import check_clients
from claudemesh.cli.diagnosis.clients import client_facts
from claudemesh.cli.diagnosis.examine import examine
from claudemesh.cli.diagnosis.facts import ClientFacts
from claudemesh.cli.diagnosis.findings import Finding
from claudemesh.cli.integrate.clients import CLIENTS
from claudemesh.cli.integrate.files import apply
from claudemesh.cli.integrate.places import Place
from tests.support.values import replace

WORKING = ClientFacts(
    "claude",
    "Claude Code",
    Path("/home/alice/.claude/skills/claudemesh"),
    version=(2, 1, 300),
    floor=(2, 1, 248),
    asking=("mesh_send", "mesh_ack"),
    sessions=("push",),
)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user, with Claude Code below the floor on the path."""
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '2.1.197 (Claude Code)'\n")
    program.chmod(0o755)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CLAUDEMESH_HOME", str(tmp_path / "mesh"))
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def install(user: Path, name: str, command: str = "/bin/sh") -> Path:
    place = Place("user", user, user / "project", [command])
    apply(CLIENTS[name].install(place))
    return CLIENTS[name].install(place)[0].path


def found(*facts: ClientFacts) -> list[Finding]:
    return list(check_clients(facts or client_facts(())))


def codes(*facts: ClientFacts) -> list[str]:
    return [finding.code for finding in found(*facts)]


def test_a_client_without_the_integration_is_not_looked_at(user: Path) -> None:
    """Its program alone says nothing."""
    assert found() == []


def test_a_push_and_the_tools_that_ask_are_told_for_the_permission_mode(user: Path) -> None:
    """With the rules that are missing, and none in a mode that asks for nothing."""
    [finding] = found(WORKING)
    assert finding.state == "ok" and "every permission mode" in finding.detail
    assert '"mcp__plugin_claudemesh_claudemesh__mesh_send"' in finding.detail
    assert "version 2.1.300, 1 session, reach push" in finding.detail
    [bypass] = found(replace(WORKING, mode="bypassPermissions"))
    assert "(here: bypassPermissions)" in bypass.detail and "mesh_send" not in bypass.detail
    install(user, "claude")
    rules = {
        "permissions": {"allow": ["mcp__plugin_claudemesh_claudemesh__mesh_send"], "defaultMode": "plan"}
    }
    (user / ".claude" / "settings.json").write_text(json.dumps(rules))
    [facts] = client_facts(())
    assert (facts.mode, facts.asking) == ("plan", ("mesh_ack",))


def test_a_version_below_the_floor_is_named(user: Path) -> None:
    """npm installs one on an old Node without a word."""
    install(user, "claude")
    [finding] = found()
    assert (finding.code, finding.state) == ("client_outdated", "warning")
    assert "2.1.197 is older than 2.1.248" in finding.detail and "Node 20" in finding.remedy


@pytest.mark.parametrize("name", ["claude", "codex", "gemini", "qwen"])
def test_a_command_that_is_gone_and_hooks_that_are_missing_are_named(name: str, user: Path) -> None:
    """With the command that writes them again."""
    path = install(user, name, "/gone/claudemesh")
    hooks = path.parent.parent / "hooks" / "hooks.json" if name == "claude" else path
    hooks.write_text(hooks.read_text().replace("UserPromptSubmit", "Other").replace("BeforeAgent", "Other"))
    findings = {finding.code: finding for finding in found()}
    assert "/gone/claudemesh" in findings["client_command_missing"].detail
    assert "UserPromptSubmit" in findings["client_hooks_missing"].detail or name == "gemini"
    assert {finding.next for finding in findings.values()} - {None} == {f"claudemesh integrate {name}"}


def test_hooks_that_are_no_table_are_missing_ones(user: Path) -> None:
    """The file of another program may have anything in their place."""
    path = install(user, "gemini")
    path.write_text(json.dumps({**json.loads(path.read_text()), "hooks": None}))
    assert codes() == ["client_hooks_missing"]


def test_settings_that_break_the_hooks_are_named(user: Path) -> None:
    """Hooks that are turned off, a second registration, and a file that cannot be read."""
    install(user, "claude")
    (user / ".claude" / "settings.json").write_text('{"disableAllHooks": true}')
    server = {"mcpServers": {"mesh": {"command": "claudemesh", "args": ["mcp"]}}}
    (user / ".claude.json").write_text(json.dumps(server))
    install(user, "cursor").write_text("{ broken")
    assert {"client_hooks_off", "registered_already", "settings_unreadable"} <= set(codes())


def test_clients_are_checked_on_a_host_without_a_mesh(user: Path) -> None:
    """Its user may have left the mesh, or have integrated a client first."""
    install(user, "cursor", "/gone/claudemesh")
    assert [finding.code for finding in examine(None).findings] == ["no_mesh", "client_command_missing"]


def test_a_command_that_cannot_be_started_and_files_that_cannot_be_read_are_named(user: Path) -> None:
    """None of them ends the examination."""
    manifest = install(user, "claude")
    manifest.write_text(json.dumps({"mcpServers": {"claudemesh": {"command": "claudemesh", "args": 5}}}))
    server = install(user, "cursor")
    server.write_text(json.dumps({"mcpServers": {"claudemesh": {"url": "ws://mesh.example.org"}}}))
    assert [finding.code for finding in found()] == ["settings_unreadable"] * 2
    manifest.write_text("{}")
    assert "no server named claudemesh" in found()[0].detail
    install(user, "claude")
    (user / ".claude.json").mkdir()
    assert [finding.code for finding in found()] == ["settings_unreadable"] * 2
