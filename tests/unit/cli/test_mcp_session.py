"""The description of a session, as its server gives it to the daemon."""

from __future__ import annotations

from claudemesh.cli.mcp.jsonlines import line_of
from claudemesh.cli.mcp.session import McpSession


def test_a_directory_whose_name_is_not_utf_8_can_be_told() -> None:
    """Each byte that is none is replaced, so that the session can be registered."""
    about = McpSession(None, "/tmp/\udce9t\udce9")._about
    assert about["cwd"] == "/tmp/\ufffdt\ufffd"
    assert line_of(about)
