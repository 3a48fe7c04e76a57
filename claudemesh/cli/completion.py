"""`claudemesh completion`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from claudemesh.cli import answers, output
from claudemesh.cli.installing import SHELLS, Places, install_launcher, install_script
from claudemesh.cli.options import json_option


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--install", is_flag=True, help="Install the script for the shell of this user.")
@click.option(
    "--launcher/--no-launcher",
    default=None,
    help="With --install: also install ~/.local/bin/claudemesh, which names the Python. Default: ask.",
)
@json_option
@answers.action(status="string*", script="string*", files="array*", shell="string")  # noqa: S604
def completion(shell: str | None, install: bool, launcher: bool | None, as_json: bool) -> int:
    """Print the completion script for a shell. It completes commands, options and members' names.

    With --install the script is written where the shell reads it; for bash and zsh, a line in ~/.bashrc or
    ~/.zshrc is added once. SHELL is that of the variable SHELL unless it is given.

    The launcher starts claudemesh.pyz by the Python that runs it now. It is faster than a python3 that is a
    script of pyenv or asdf.

    \b
    Examples:
      claudemesh completion --install
      claudemesh completion zsh --install --launcher
      eval "$(claudemesh completion bash)"
    """
    chosen = shell or _own_shell()
    if not install:
        if launcher is not None:
            raise click.UsageError("--launcher goes with --install.")
        script = _script(chosen)
        return output.print_answer(as_json, {"shell": chosen, "script": script}, script, made=script)
    places, archive = Places.of_environment(), _archive()
    if launcher and archive is None:
        raise click.UsageError("There is no file claudemesh.pyz to launch: this program runs from elsewhere.")
    written = install_script(places, chosen, _script(chosen))
    if archive is not None and _wants_launcher(places, launcher):
        written.append(install_launcher(places, sys.executable, archive))
    files = [str(path) for path in written]
    answer = {"status": "installed", "shell": chosen, "files": files}
    output.print_answer(as_json, answer, "\n".join(f"wrote {path}" for path in files))
    if not as_json:
        output.note(f"Open a new {chosen} to use it.")
        if places.launcher in written and not _is_on_path(places.launcher.parent):
            output.note(f"Add {places.launcher.parent} to PATH, so that the launcher is found.")
    return 0


def _script(shell: str) -> str:
    # Imported here: the tree of commands imports this module by name.
    from claudemesh.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    # click would run bash to check its version; every bash in use today is new enough.
    variables = made(cli, {}, "claudemesh", "_CLAUDEMESH_COMPLETE").source_vars()
    source: str = made.source_template % variables
    return source


def _own_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise click.UsageError(f"The shell is not known. Name it: {', '.join(SHELLS)}.")
    return name


def _archive() -> Path | None:
    """Return the file claudemesh.pyz that runs, None when this program is installed otherwise."""
    # Imported here: only an installation needs it.
    import zipfile

    own = Path(sys.argv[0])
    return own.resolve() if zipfile.is_zipfile(own) else None


def _wants_launcher(places: Places, told: bool | None) -> bool:
    if told is not None:
        return told
    if not sys.stdin.isatty():
        return False
    return click.confirm(f"Install the launcher {places.launcher}?", err=True)


def _is_on_path(folder: Path) -> bool:
    return str(folder) in os.environ.get("PATH", "").split(os.pathsep)
