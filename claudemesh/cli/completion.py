"""`claudemesh completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from claudemesh.cli import output


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell. It completes commands, options and members' names.

    For bash and zsh, add the line to ~/.bashrc or ~/.zshrc. For fish, run it once.

    \b
    Examples:
      eval "$(claudemesh completion bash)"
      eval "$(claudemesh completion zsh)"
      claudemesh completion fish >~/.config/fish/completions/claudemesh.fish
    """
    # Imported here: the tree of commands imports this module by name.
    from claudemesh.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    # click would run bash to check its version; every bash in use today is new enough.
    source = made.source_template % made(cli, {}, "claudemesh", "_CLAUDEMESH_COMPLETE").source_vars()
    output.say(source)
