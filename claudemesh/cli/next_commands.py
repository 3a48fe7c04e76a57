"""Commands that make sense after another one: the field `next` of JSON answers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

E = TypeVar("E", bound=Exception)

# Set in the context of a command that takes the certificate of an authority, and was given none.
NAMES_NO_AUTHORITY = "claudemesh.names_no_authority"
_DONE = "done"


def command(*words: str, mesh: str | None = None) -> str:
    """Return a command as it is typed in a shell; `mesh` is the mesh that its predecessor was told."""
    return shlex.join(["claudemesh", *words, *(["--mesh", mesh] if mesh else [])])


def again(arguments: Sequence[str], *options: str) -> str:
    """Return the command of these arguments with more options.

    An invite, which admits its reader, is not repeated.
    """
    words = ["LINK" if "claudemesh://" in word else word for word in arguments]
    at = words.index("--") if "--" in words else len(words)
    return command(*words[:at], *options, *words[at:])


def advised(error: E, hint: str) -> E:
    """Return an error of click with the command that helps, in place of the help page."""
    error.next_command = hint  # type: ignore[attr-defined]
    return error


def needed(slug: str) -> str | None:
    """Return the mesh that a command has to name: None for the one that it takes by itself."""
    # Imported here: an answer to a send needs no look at the meshes.
    from claudemesh.client.errors import WrongHome
    from claudemesh.client.meshes import choose_mesh

    try:
        return None if choose_mesh(None) == slug else slug
    except WrongHome:
        return slug


def after_send(answer: Mapping[str, Any], mesh: str | None) -> list[str]:
    """Return the commands after a send: until the broker has the message, the one that waits for that.

    `fast_send.py` prints the same.
    """
    if answer["status"] == _DONE:
        return []
    return [command("wait", "--for", f"message={answer['client_message_id']}", mesh=mesh)]
