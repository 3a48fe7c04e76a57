"""`claudemesh completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from claudemesh.cli import output


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and members' names.

    \b
    eval "$(claudemesh completion bash)"                      in ~/.bashrc
    eval "$(claudemesh completion zsh)"                       in ~/.zshrc
    claudemesh completion fish > ~/.config/fish/completions/claudemesh.fish
    """
    # Imported here: the tree of commands imports this file.
    from claudemesh.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    # click asks bash for its version here; any bash that is used today is new enough.
    source = made.source_template % made(cli, {}, "claudemesh", "_CLAUDEMESH_COMPLETE").source_vars()
    output.say(source)
