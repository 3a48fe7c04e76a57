"""The command and the folders that an integration is made of."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from claudemesh.cli.background import program
from claudemesh.runtime.homes import user_home

Scope: TypeAlias = Literal["user", "project"]


@dataclass(frozen=True, slots=True)
class Place:
    """The scope of an integration, and the command that clients start."""

    scope: Scope
    home: Path
    project: Path
    command: Sequence[str]
    # Variables that the command needs: a client may start it without those of this shell.
    variables: Mapping[str, str] = field(default_factory=dict)

    def folder(self, name: str, variable: str | None = None) -> Path:
        """Return the folder of a client's configuration. `variable` names it for the user's scope."""
        if self.scope == "project":
            return self.project / name
        told = os.environ.get(variable) if variable else None
        return Path(told) if told else self.home / name

    @property
    def server(self) -> dict[str, object]:
        """The server as most clients describe one."""
        first, *rest = self.command
        made: dict[str, object] = {"command": first, "args": [*rest, "mcp"]}
        if self.variables:
            made["env"] = dict(self.variables)
        return made

    def hook(self, event: str) -> str:
        """Return the command of a hook, as a line for a shell. It stays the same: clients ask about a new
        one."""
        given = [f"{name}={value}" for name, value in self.variables.items()]
        words = [*(["env", *given] if given else []), *self.command, "hook", event]
        return shlex.join(words)


def find_place(scope: Scope) -> Place:
    """Return the place for this user and the current directory. `ExitWith` for a user without a home."""
    home = os.environ.get("CLAUDEMESH_HOME")
    variables = {"CLAUDEMESH_HOME": str(Path(home).absolute())} if home else {}
    return Place(scope, user_home(), Path.cwd(), _command(), variables)


def _command() -> list[str]:
    """Return the command by the path that stays when the program is replaced by a newer one."""
    found = shutil.which("claudemesh")
    if found is not None and Path(found).resolve() == Path(sys.argv[0]).resolve():
        return [str(Path(found).absolute())]
    return program()
