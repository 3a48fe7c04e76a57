"""Claude Code with the integration, in a home of its own: nothing of the user is read or changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clientele.installed import Installed
from clientele.stub import Stub, stub
from clientele.terminal import Terminal, terminal
from tests.support.processes import Daemon, until

_KEY: Final = "sk-ant-api03-stub"
_TOOLS: Final = (
    "mcp__plugin_claudemesh_claudemesh__mesh_send,mcp__plugin_claudemesh_claudemesh__mesh_ack,Bash"
)


@dataclass(frozen=True)
class Claude(Installed):
    """The program of one version, with a home and a project."""

    archive: Path
    api: str

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of the client: none of the calling shell but its path."""
        return {
            **super().environment,
            "ANTHROPIC_BASE_URL": self.api,
            "ANTHROPIC_API_KEY": _KEY,
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",
        }

    def prepare(self) -> None:
        """Answer the questions of a first start, and integrate."""
        self.project.mkdir(parents=True)
        (self.home / "bin").mkdir()
        (self.home / "bin" / "claudemesh").symlink_to(self.archive)
        (self.home / "bin" / "claude").symlink_to(self.program)
        known = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        settings = {
            "hasCompletedOnboarding": True,
            "lastOnboardingVersion": "9.9.9",
            "theme": "dark",
            "bypassPermissionsModeAccepted": True,
            "customApiKeyResponses": {"approved": [_KEY[-20:]], "rejected": []},
            "projects": {str(self.project): known},
        }
        (self.home / ".claude.json").write_text(json.dumps(settings))
        self.mesh("integrate", "claude")

    @contextmanager
    def screen(self, *options: str) -> Iterator[Terminal]:
        """Start the client on a terminal, and wait until its session can be woken."""
        command = [str(self.program), "--allowedTools", _TOOLS, *options]
        with terminal(command, self.project, self.environment) as drawn:
            until(lambda: self.session() is not None, "the session is registered")
            # The prompt is drawn last.
            until(lambda: "❯" in drawn.text, "the prompt")
            yield drawn

    def session(self) -> Mapping[str, Any] | None:
        """Return the live session, as the daemon lists it."""
        items = self.daemon.request("GET", "/v1/sessions")[1]["items"]
        return next((one for one in items if one["client"] == "claude-code"), None)


@contextmanager
def claude(program: Path, archive: Path, home: Path, daemon: Daemon) -> Iterator[tuple[Claude, Stub]]:
    """The client for one host, integrated, and the stub that its model is."""
    with stub() as (model, address):
        made = Claude(program, home, daemon, archive, address)
        made.prepare()
        yield made, model
        until(lambda: made.session() is None, "the session has ended with its client")
