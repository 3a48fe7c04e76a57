"""The tree of commands, and the one place where an exception becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from claudemesh.cli import output
from claudemesh.cli.lazy_group import LazyGroup
from claudemesh.runtime.exits import INTERNAL, INTERRUPTED, OK, USAGE, ExitWith

# name -> (module, function, one line); a module is imported only when its command is asked for.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "send": ("send", "send", "Send a message to a member or topic."),
    "inbox": ("inbox", "inbox", "Show received messages."),
    "topic": ("topic", "topic", "Create, post to, subscribe to and list topics."),
    "peers": ("peers", "peers", "List the members of the mesh."),
    "events": ("events", "events", "Follow what happens, one JSON line each."),
    "mesh": ("mesh", "mesh", "Make a new mesh."),
    "invite": ("invite", "invite", "Invite another host."),
    "join": ("join", "join", "Join a mesh by an invite."),
    "daemon": ("daemon", "daemon", "Run this host's daemon and look after it."),
    "up": ("daemon.up", "up", "Start the daemon (daemon up)."),
    "down": ("daemon.down", "down", "Stop the daemon (daemon down)."),
    "status": ("daemon.status", "status", "Show how the daemon is (daemon status)."),
    "logs": ("daemon.logs", "logs", "Show the daemon's log (daemon logs)."),
    "doctor": ("doctor", "doctor", "Find out what is wrong, and what to do about it."),
    "bugreport": ("bugreport", "bugreport", "Print what a bug report needs, without secrets."),
    "paths": ("paths", "paths", "Show where everything is."),
    "wait": ("wait", "wait", "Wait until the daemon, a peer or a message is there."),
    "listen": ("listen", "listen", "Print each message as a JSON line as it arrives."),
    "request": ("request", "request", "Send a message and wait for the reply."),
    "reply": ("reply", "reply", "Answer a message."),
    "ping": ("ping", "ping", "See whether a peer is here."),
    "completion": ("completion", "completion", "Print shell completion."),
    "broker": ("broker", "broker", "Run a broker."),
    "version": ("version", "version", "Show versions."),
}


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A durable, sealed messaging mesh for AI sessions, servers and CI jobs.

    \b
    First steps:
      claudemesh daemon up -d --with-broker      a mesh on this machine
      claudemesh send '#all' 'hello'             send
      claudemesh inbox                           read

    \b
    Exit codes: 0 done, 64 wrong use, 69 nobody answers, 70 internal, 73 cannot create,
    75 try again later, 77 not permitted, 78 wrong configuration, 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never a traceback."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = _invoke(argv)
    except click.exceptions.NoArgsIsHelpError as error:
        # A group without a command: nothing is wrong with its words, there are none.
        click.echo(error.message, err=True)
        return USAGE
    except click.ClickException as error:
        return _tell(argv, "usage", error.format_message(), USAGE, getattr(error, "ctx", None))
    except ExitWith as error:
        return _tell(argv, error.error, error.message, error.code)
    except click.exceptions.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        output.discard_stdout()
        return OK
    except (KeyboardInterrupt, click.exceptions.Abort):
        # Abort is a prompt that was interrupted.
        return INTERRUPTED
    except Exception as error:
        return _unforeseen(argv, error)
    return result if isinstance(result, int) else OK


def _invoke(argv: list[str]) -> Any:
    """Parse the arguments and run the command.

    `cli.main` is for completion only: it would take interrupts and broken pipes for itself, with exit codes
    and words of its own.
    """
    if "_CLAUDEMESH_COMPLETE" in os.environ:
        return cli.main(argv, prog_name="claudemesh", standalone_mode=False)
    with cli.make_context("claudemesh", argv) as context:
        return cli.invoke(context)


def _unforeseen(argv: Sequence[str], error: Exception) -> int:
    # Imported here: none of these is needed by a command that succeeds.
    from claudemesh.client.errors import ClientError
    from claudemesh.protocol.errors import ProtocolError
    from claudemesh.runtime.files import UnsafeFile
    from claudemesh.runtime.oserrors import cannot

    if isinstance(error, ClientError):
        body = error.as_body()
        return _tell(argv, error.code, error.message, error.exit_code, body=body)
    if isinstance(error, ProtocolError):
        return _tell(argv, error.code, error.message, USAGE, body=error.as_body())
    if isinstance(error, UnsafeFile):
        return _tell(argv, "unsafe_file", str(error), 77)
    if isinstance(error, OSError):
        ending = cannot("use", error)
        return _tell(argv, ending.error, ending.message, ending.code)
    return _tell(argv, "internal_error", f"{type(error).__name__}: {error}", INTERNAL)


def _tell(
    argv: Sequence[str],
    code: str,
    message: str,
    exit_code: int,
    ctx: click.Context | None = None,
    body: Any = None,
) -> int:
    if "--json" in argv:
        output.print_json(body or {"error": code, "message": message})
    else:
        output.error(message)
        if ctx is not None:
            output.note(f"Try `{ctx.command_path} --help`.")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
