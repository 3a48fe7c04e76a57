"""`claudemesh mcp` held to the client of the protocol's official Python SDK."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from claudemesh.cli.mcp.tools import TOOLS
from tests.integration.sessions.test_receipts import reached, received
from tests.support.processes import REPOSITORY, Mesh, mesh


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    with mesh("alice", "bob") as running:
        yield running


async def test_the_official_client_finds_nothing_to_complain_about(made: Mesh, tmp_path: Path) -> None:
    """It checks each answer against the protocol's schema: handshake, tools, results, errors and ping."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    environment = {
        "CLAUDEMESH_HOME": str(bob.home),
        "PYTHONPATH": str(REPOSITORY),
        "PATH": os.environ["PATH"],
    }
    (tmp_path / "official").mkdir()
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "claudemesh", "mcp"], env=environment, cwd=tmp_path / "official"
    )
    async with stdio_client(server) as (source, sink), ClientSession(source, sink) as client:
        begun = await client.initialize()
        assert begun.instructions is not None and "mesh_inbox" in begun.instructions
        listed = await client.list_tools()
        assert [tool.name for tool in listed.tools] == [tool["name"] for tool in TOOLS]
        status = await client.call_tool("mesh_status", {})
        assert "bob/official" in status.content[0].text  # type: ignore[union-attr]
        assert alice.send("bob/official", "hello", client_message_id="official", receipt="shown")[0] == 202
        waited = await client.call_tool("mesh_wait", {"timeout_s": 60})
        assert "hello" in waited.content[0].text  # type: ignore[union-attr]
        reached(alice, "official", "shown")
        item = received(bob, "official")
        answered = await client.call_tool("mesh_send", {"reply_to": item["id"], "message": "yes"})
        assert not answered.is_error
        wrong = await client.call_tool("mesh_send", {"to": "alice"})
        assert "needs message" in wrong.content[0].text  # type: ignore[union-attr]
        await client.send_ping()
