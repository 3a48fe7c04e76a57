"""Qwen Code and Gemini CLI with the integration, in homes of their own."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clientele.installed import Installed
from clientele.places import ARCHIVE, node_program, script, version_of
from clientele.stub import Stub, stub
from clientele.suites import Case, Suite, reached, sent_to
from clientele.terminal import Terminal, terminal
from tests.support.processes import Mesh, until


@dataclass(frozen=True)
class Kind:
    """A client: its script, its settings, and the variables that lead it to an API."""

    name: str
    script: str
    settings: Mapping[str, Any]
    variables: Callable[[str], Mapping[str, str]]
    options: Sequence[str]


_KINDS: Final = {
    "Qwen Code": Kind(
        "qwen",
        "@qwen-code/qwen-code/cli-entry.js",
        {"security": {"auth": {"selectedType": "openai"}}},
        lambda api: {"OPENAI_API_KEY": "stub", "OPENAI_BASE_URL": f"{api}/v1", "OPENAI_MODEL": "stub"},
        ("--yolo",),
    ),
    "Gemini CLI": Kind(
        "gemini",
        "@google/gemini-cli/bundle/gemini.js",
        {"security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}}},
        lambda api: {"GEMINI_API_KEY": "stub", "GOOGLE_GEMINI_BASE_URL": api},
        ("--yolo", "-m", "gemini-2.5-flash"),
    ),
}


@dataclass(frozen=True)
class NodeClient(Installed):
    """The program, with a home and a project, at a host."""

    kind: Kind
    node: Path
    api: str
    model: Stub

    @property
    def settings(self) -> Path:
        """The file that the integration changes."""
        return self.home / f".{self.kind.name}" / "settings.json"

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of the client: none of the calling shell but its path."""
        found = super().environment
        path = f"{self.node.parent}:{found['PATH']}"
        return {**found, "PATH": path, **self.kind.variables(self.api)}

    def prepare(self) -> None:
        """Write the settings of the user, and integrate."""
        for folder in (self.project, self.home / "bin", self.settings.parent):
            folder.mkdir(parents=True)
        (self.home / "bin" / "claudemesh").symlink_to(ARCHIVE)
        self.settings.write_text(json.dumps(self.kind.settings))
        self.mesh("integrate", self.kind.name)

    def run(self, *arguments: str) -> str:
        """Run the client without a terminal, and return what it prints."""
        return self._run([str(self.node), str(self.program), *arguments])

    def prompt(self, text: str) -> str:
        """Run a prompt without a terminal, and return what is printed."""
        return self.run(*self.kind.options, "-p", text)

    @contextmanager
    def screen(self) -> Iterator[Terminal]:
        """Start the client on a terminal, with a first prompt that is answered."""
        command = [str(self.node), str(self.program), *self.kind.options, "-i", "hello"]
        with terminal(command, self.project, self.environment) as drawn:
            until(lambda: self.model.shown("hello") and "Understood." in drawn.text, "the first answer")
            yield drawn

    def session(self) -> Mapping[str, Any] | None:
        """Return the live session, as the daemon lists it."""
        items = self.daemon.request("GET", "/v1/sessions")[1]["items"]
        return next(iter(items), None)


def read(hosts: Mesh, client: NodeClient) -> None:
    """A run without a terminal is told of what waits, reads it by the tool, and ends by itself."""
    sent_to(hosts, "project", "is the NEEDLE-10 deployed?", "read")
    assert "Understood." in client.prompt("hello")
    row = reached(hosts, "read", "shown")
    [one] = row["recipients"]
    assert one["notified_at"] is not None and one["session"] == "project", row
    assert client.model.shown("NEEDLE-10")
    until(lambda: client.session() is None, "the session has ended with its client")


def woken(hosts: Mesh, client: NodeClient) -> None:
    """A notice wakes an idle session, and the tool shows the text."""
    with client.screen():
        until(lambda: (client.session() or {}).get("reach") == "push", "the session can be woken")
        sent_to(hosts, "project", "is the NEEDLE-11 deployed?", "woken")
        reached(hosts, "woken", "shown")
        until(lambda: client.model.shown("NEEDLE-11"), "the text")


def turned(hosts: Mesh, client: NodeClient) -> None:
    """An idle session that nothing wakes is told at its next prompt."""
    with client.screen() as drawn:
        until(lambda: (client.session() or {}).get("reach") == "turn", "hooks have run")
        sent_to(hosts, "project", "is the NEEDLE-12 deployed?", "turned")
        reached(hosts, "turned", "delivered")
        drawn.enter("go on", lambda: client.model.shown("go on"))
        reached(hosts, "turned", "shown")


def uninstalled(_: Mesh, client: NodeClient) -> None:
    """The settings are as before, byte for byte."""
    client.mesh("integrate", client.kind.name, "--uninstall")
    assert client.settings.read_text() == json.dumps(client.kind.settings)


_CASES: Final[Mapping[str, Mapping[str, Callable[[Mesh, NodeClient], None]]]] = {
    "Qwen Code": {"reads": read, "push-wakes-an-idle-session": woken, "uninstall": uninstalled},
    "Gemini CLI": {"reads": read, "next-prompt": turned, "uninstall": uninstalled},
}


def _case(title: str, program: Path, node: Path, name: str) -> Case:
    def run(hosts: Mesh) -> None:
        folder = Path(tempfile.mkdtemp(prefix="cm-", dir="/var/tmp"))
        try:
            with stub() as (model, address):
                kind = _KINDS[title]
                client = NodeClient(program, folder, hosts.daemons["bob"], kind, node, address, model)
                client.prepare()
                _CASES[title][name](hosts, client)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return run


def suites() -> list[Suite]:
    """Return the suites of Qwen Code and of Gemini CLI, which run on the Node beside them."""
    node, found = node_program(), []
    for title, kind in _KINDS.items():
        program = script(kind.script)
        if node is None or program is None:
            found.append(Suite(title, kind.name, None, {}))
            continue
        cases = {name: _case(title, program, node, name) for name in _CASES[title]}
        found.append(Suite(title, kind.name, version_of(node, program), cases))
    return found
