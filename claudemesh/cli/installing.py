"""Installation of the completion script, and of a launcher, for the user's own shell.

A launcher names the interpreter, so that no script such as that of pyenv or asdf looks for one at each start.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from claudemesh.runtime.exits import CANNOT_CREATE, ExitWith
from claudemesh.runtime.files import write_atomic
from claudemesh.runtime.homes import user_home

SHELLS = ("bash", "zsh", "fish")
# The lines of a file that belong to this program stand between them.
_BEGIN, _END = "# >>> claudemesh completion >>>", "# <<< claudemesh completion <<<"
_LAUNCHER_MARK = "# Made by `claudemesh completion --install`."
_READABLE, _EXECUTABLE = 0o644, 0o755


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of a user in which shells look for files."""

    home: Path
    data: Path
    config: Path

    @classmethod
    def of_environment(cls) -> Places:
        """Return the folders by HOME, XDG_DATA_HOME and XDG_CONFIG_HOME."""
        home = user_home()
        data, config = os.environ.get("XDG_DATA_HOME"), os.environ.get("XDG_CONFIG_HOME")
        return cls(
            home,
            Path(data) if data else home / ".local" / "share",
            Path(config) if config else home / ".config",
        )

    @property
    def launcher(self) -> Path:
        """The launcher of this user."""
        return self.home / ".local" / "bin" / "claudemesh"

    def script(self, shell: str) -> Path:
        """Return where the completion script of a shell goes."""
        if shell == "fish":
            return self.config / "fish" / "completions" / "claudemesh.fish"
        return self.data / "claudemesh" / f"completion.{shell}"

    def startup_file(self, shell: str) -> Path | None:
        """Return the file that has to read the script; fish finds it by itself."""
        if shell == "zsh":
            return Path(os.environ.get("ZDOTDIR") or self.home) / ".zshrc"
        return self.home / ".bashrc" if shell == "bash" else None


def install_script(places: Places, shell: str, source: str) -> list[Path]:
    """Write the script of a shell, and let its start-up file read it. Return the files that are written."""
    script = places.script(shell)
    written = [_write(script, source, _READABLE)]
    startup = places.startup_file(shell)
    if startup is not None:
        before = _read(startup)
        after = with_block(before, _reading(shell, script))
        if after != before:
            written.append(_write(startup, after, _mode_of(startup)))
    return written


def with_block(text: str, block: str) -> str:
    """Return the text of a start-up file with our block, once: it is replaced where it stands already."""
    made = f"{_BEGIN}\n{block}\n{_END}\n"
    head, begin, rest = text.partition(f"{_BEGIN}\n")
    _, end, tail = rest.partition(f"{_END}\n")
    if begin and end:
        return f"{head}{made}{tail}"
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{made}"


def _reading(shell: str, script: Path) -> str:
    quoted = shlex.quote(str(script))
    read = f"[ -r {quoted} ] && . {quoted}"
    if shell != "zsh":
        return read
    return f"(( ${{+functions[compdef]}} )) || {{ autoload -Uz compinit && compinit; }}\n{read}"


def install_launcher(places: Places, interpreter: str, archive: Path) -> Path:
    """Write the launcher. `ExitWith` when another program has its place."""
    path = places.launcher
    if os.path.lexists(path) and _LAUNCHER_MARK not in _read(path):
        raise ExitWith(
            CANNOT_CREATE,
            "launcher_taken",
            f"{path} exists and was not made by this command. It was left as it is. Move it away to install "
            "the launcher.",
        )
    return _write(path, launcher_text(interpreter, archive), _EXECUTABLE)


def launcher_text(interpreter: str, archive: Path) -> str:
    """Return the launcher of an archive."""
    command = shlex.join([interpreter, "-IS", str(archive)])
    return f'#!/bin/sh\n{_LAUNCHER_MARK}\nexec {command} "$@"\n'


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def _mode_of(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return _READABLE


def _write(path: Path, text: str, mode: int) -> Path:
    # A start-up file may be a link into a folder of its own.
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, text.encode(errors="surrogateescape"), mode)
    return path
