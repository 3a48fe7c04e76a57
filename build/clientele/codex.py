"""Codex with the integration, in a home of its own: nothing of the user is read or changed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clientele.installed import Installed
from clientele.places import ARCHIVE, codex_program, version_of
from clientele.stub import Stub, stub
from clientele.suites import Case, Suite, reached, sent_to
from clientele.terminal import Terminal, terminal
from tests.support.processes import Mesh, until

_CONFIG: Final = """\
model = "stub"
model_provider = "stub"

[model_providers.stub]
name = "stub"
base_url = "{api}/v1"
wire_api = "responses"
env_key = "STUB_KEY"

[projects."{project}"]
trust_level = "trusted"
"""
# Hooks are trusted by a person at the client; there is none here.
_TRUST: Final = "--dangerously-bypass-hook-trust"


@dataclass(frozen=True)
class Codex(Installed):
    """The program, with a home and a project, at a host."""

    model: Stub

    @property
    def settings(self) -> Path:
        """The file that the integration changes."""
        return self.home / ".codex" / "config.toml"

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of the client: none of the calling shell but its path."""
        return {
            **super().environment,
            "CODEX_HOME": str(self.home / ".codex"),
            "STUB_KEY": "stub",
        }

    def prepare(self, api: str) -> None:
        """Write the settings of the user, and integrate."""
        for folder in (self.project, self.home / "bin", self.home / ".codex"):
            folder.mkdir(parents=True)
        (self.home / "bin" / "claudemesh").symlink_to(ARCHIVE)
        self.settings.write_text(_CONFIG.format(api=api, project=self.project))
        self.mesh("integrate", "codex")

    @contextmanager
    def screen(self) -> Iterator[Terminal]:
        """Start the client on a terminal, with a first prompt, and wait until its session can be woken."""
        with terminal([str(self.program), _TRUST], self.project, self.environment) as drawn:
            until(lambda: "Ask Codex" in drawn.text, "the prompt")
            drawn.enter("hello", lambda: self.model.shown("hello"))
            until(lambda: (self.session() or {}).get("reach") == "push", "the session can be woken")
            yield drawn

    def session(self) -> Mapping[str, Any] | None:
        """Return the live session, as the daemon lists it."""
        items = self.daemon.request("GET", "/v1/sessions")[1]["items"]
        return next((one for one in items if one["client"].startswith("codex")), None)


def woken(hosts: Mesh, codex: Codex) -> None:
    """A queued notice wakes an idle session, a hook proves it, and the tool shows the text."""
    with codex.screen():
        sent_to(hosts, "project", "is the NEEDLE-9 deployed?", "codex")
        row = reached(hosts, "codex", "shown")
        [one] = row["recipients"]
        assert one["notified_at"] is not None and one["session"] == "project", row
        until(lambda: codex.model.shown("NEEDLE-9"), "the text")


def executed(hosts: Mesh, codex: Codex) -> None:
    """A run without a terminal is told of its session, and ends by itself. No turn is queued for it."""
    assert "Understood." in codex.run("exec", "--skip-git-repo-check", _TRUST, "hello")
    assert codex.model.shown("this is bob/project in mesh")
    until(lambda: codex.session() is None, "the session has ended with its client")
    assert hosts.daemons["bob"].request("GET", "/v1/sessions")[1]["items"] == []


def uninstalled(hosts: Mesh, codex: Codex) -> None:
    """The settings are as before, byte for byte, also with what the client has written among them."""
    before = codex.settings.with_name("config.toml.before-claudemesh").read_text()
    codex.mesh("integrate", "codex", "--uninstall")
    assert codex.settings.read_text() == before
    codex.mesh("integrate", "codex")
    with codex.screen():
        until(lambda: "[tui]" in codex.settings.read_text(), "tables of the client")
    codex.mesh("integrate", "codex", "--uninstall")
    text = codex.settings.read_text()
    assert text.startswith(before) and "[tui]" in text and "[mcp_servers" not in text
    assert hosts.daemons["bob"].request("GET", "/v1/sessions")[0] == 200


_CASES: Final = {"queue-wakes-an-idle-session": woken, "exec-ends": executed, "uninstall": uninstalled}


def _case(program: Path, name: str) -> Case:
    def run(hosts: Mesh) -> None:
        folder = Path(tempfile.mkdtemp(prefix="cm-", dir="/var/tmp"))
        try:
            with stub() as (model, address):
                codex = Codex(program, folder, hosts.daemons["bob"], model)
                codex.prepare(address)
                _CASES[name](hosts, codex)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return run


def suites() -> list[Suite]:
    """Return the suite of Codex."""
    program = codex_program()
    if program is None:
        return [Suite("Codex", "codex", None, {})]
    return [Suite("Codex", "codex", version_of(program), {name: _case(program, name) for name in _CASES})]
