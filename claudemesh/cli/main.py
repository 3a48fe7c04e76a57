"""The tree of commands, and the entry point that runs one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from claudemesh.cli import output
from claudemesh.cli.display import display, display_options, take_colour
from claudemesh.cli.errors import explain, report
from claudemesh.cli.lazy_group import LazyGroup
from claudemesh.cli.next_commands import NAMES_NO_AUTHORITY, again
from claudemesh.cli.streams import discard_stdout, flush_stderr, flush_stdout, prepare_streams
from claudemesh.runtime.exits import INTERRUPTED, OK, USAGE

COMMANDS = {
    "Messages": {
        "send": ("send", "send", "Send a message to a member, a topic or a queue."),
        "inbox": ("inbox", "inbox", "Show the newest received messages."),
        "history": ("history", "history", "Show messages that the broker keeps, received and sent."),
        "listen": ("listen", "listen", "Print each message as a line of JSON as it arrives."),
        "request": ("request", "request", "Send a message and print the reply to it."),
        "reply": ("reply", "reply", "Reply to a received message."),
        "file": ("file", "file", "Send, fetch, list and delete files."),
        "outbox": ("daemon.outbox", "outbox", "List, requeue, drop and prune sends."),
        "topic": ("topic", "topic", "Create, list, use and delete topics and queues."),
    },
    "Mesh": {
        "whoami": ("whoami", "whoami", "Show this host's member: name, mesh, role and key."),
        "peers": ("peers", "peers", "List the members of the mesh."),
        "verify": ("verify", "verify", "Show digits by which two people verify each other's keys."),
        "sessions": ("sessions", "sessions", "List the sessions of this host."),
        "mcp": ("mcp.command", "mcp", "Serve the tools of the mesh to an agent (MCP)."),
        "integrate": (
            "integrate.command",
            "integrate",
            "Add the tools of the mesh to an agent's client, or remove them.",
        ),
        "hook": ("hook.command", "hook", "Answer a hook of an agent's client with facts of this host."),
        "profile": ("profile", "profile", "Show or change the profile of this member."),
        "member": ("member", "member", "List members, give roles and revoke members."),
        "ping": ("ping", "ping", "Check whether a member is online."),
        "join": ("join", "join", "Join a mesh by an invite."),
        "invite": ("invite", "invite", "Create, list and revoke invites."),
        "leave": ("leave", "leave", "Leave the mesh, and delete what this host keeps of it."),
        "mesh": ("mesh", "mesh", "Create, list, choose and move meshes."),
        "run": ("run", "run", "Run a command as an ephemeral member, for CI jobs."),
    },
    "Daemon": {
        "up": ("daemon.up", "up", "Start the daemon."),
        "down": ("daemon.down", "down", "Stop the daemon."),
        "restart": ("daemon.restart", "restart", "Stop the daemon and start it again in the background."),
        "status": (
            "daemon.status",
            "status",
            "Show the state of the daemon, or with ID how far a send has come.",
        ),
        "ps": ("daemon.ps", "ps", "List the daemons of this host, running or not."),
        "web": ("web", "web", "Open the console of the daemon in a browser."),
        "logs": ("daemon.logs", "logs", "Show the log of the daemon."),
        "daemon": ("daemon", "daemon", "Manage the daemon of this host."),
    },
    "Scripts": {
        "wait": ("wait", "wait", "Wait for the link, a member or a message."),
        "events": ("events", "events", "Print each event as a line of JSON as it happens."),
        "describe": (
            "describe",
            "describe",
            "Describe commands for programs: arguments, options, fields of the answers and exit codes.",
        ),
        "sdk": ("sdk", "sdk", "Print the SDK of a language, one file to copy into a program."),
        "completion": ("completion", "completion", "Print the completion script for a shell."),
    },
    "Diagnosis": {
        "doctor": ("doctor", "doctor", "Check this host for common faults."),
        "bugreport": ("bugreport", "bugreport", "Print a report for a bug, without secrets or messages."),
        "config": ("config", "config", "Check the configuration files, and show the settings of the daemon."),
        "paths": ("paths", "paths", "Show the paths of all files."),
        "version": (
            "version",
            "version",
            "Show the version, its commit, the platform, the Python, and how it is installed.",
        ),
        "help": ("help", "show_help", "Show the help of a command, or the list of exit codes."),
    },
    "Broker": {
        "broker": ("broker", "broker", "Run and administer a broker."),
    },
}


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value:
        return
    # Imported here: only this option needs it.
    from claudemesh.cli.version import say_version

    say_version()
    ctx.exit()


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def cli() -> None:
    """Durable, end-to-end encrypted messages between AI sessions, servers and CI jobs.

    \b
    First steps, on one machine:
      claudemesh up -d --with-broker --name me
      claudemesh send me 'hello'
      claudemesh inbox

    \b
    Exit codes (`claudemesh help exit-codes` explains them):
      0   done                          73   a file cannot be created
      64  wrong arguments               75   try again later
      69  a service is unavailable      77   permission denied
      70  internal error                78   wrong configuration
      130 interrupted
    """


cli.params += display_options(hidden=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. A failure is reported as a message, never as a traceback."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    prepare_streams()
    display.reset()
    code = _run(argv)
    failed = flush_stdout()
    if failed is not None and code == OK and not isinstance(failed, BrokenPipeError):
        code = report(explain(output.OutputFailed(failed)), as_json=False)
    flush_stderr()
    return code


def _run(argv: list[str]) -> int:
    try:
        _check_encoding(argv)
        result = _invoke(argv)
    except click.exceptions.NoArgsIsHelpError as error:
        # A group without a command: its help is shown.
        output.page(error.message)
        return USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        discard_stdout()
        return OK
    except (KeyboardInterrupt, click.exceptions.Abort):
        # Abort is a prompt that was interrupted.
        return INTERRUPTED
    except Exception as error:
        take_colour(argv)
        failed = flush_stdout()
        if isinstance(error, output.OutputFailed) or failed is not None:
            # Neither the result nor a JSON error can be written to stdout.
            cause = error if failed is None else output.OutputFailed(failed)
            return report(explain(cause), as_json=False)
        return report(explain(error), as_json="--json" in argv)
    return result if isinstance(result, int) else OK


def _invoke(argv: list[str]) -> Any:
    """Parse the arguments and run the command.

    `cli.main` serves completion only: it would catch interrupts and broken pipes itself, with exit codes and
    messages of its own.
    """
    if "_CLAUDEMESH_COMPLETE" in os.environ:
        return cli.main(argv, prog_name="claudemesh", standalone_mode=False)
    with cli.make_context("claudemesh", argv) as context:
        try:
            return cli.invoke(context)
        except Exception as error:
            if getattr(error, "needs_authority", False) and context.meta.get(NAMES_NO_AUTHORITY):
                error.next = again(argv, "--ca-file", "FILE")  # type: ignore[attr-defined]
            raise


def _check_encoding(argv: Sequence[str]) -> None:
    """Refuse an argument that is not valid in the encoding of the locale: no message can carry it."""
    for number, argument in enumerate(argv, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding().upper()
            text = f"Argument {number} is not valid {encoding}: {argument}. Name a file by a link that is."
            raise click.UsageError(text) from None


if __name__ == "__main__":
    sys.exit(main())
