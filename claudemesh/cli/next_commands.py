"""Commands that make sense after another one: the field `next` of JSON answers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

_DONE = "done"


def command(*words: str, mesh: str | None = None) -> str:
    """Return a command as it is typed in a shell; `mesh` is the mesh that its predecessor was told."""
    return shlex.join(["claudemesh", *words, *(["--mesh", mesh] if mesh else [])])


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
