"""Joining by an invite from an option or the environment, for `daemon up` and `run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from claudemesh.cli.options import default_name
from claudemesh.runtime.exits import USAGE, ExitWith

VARIABLE = "CLAUDEMESH_INVITE"
_RANDOM_CHARACTERS = 4
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_TRIES = 4
_HOST_CHARACTERS = 58


def take_invite(given: str | None) -> str | None:
    """Return the invite of the option, of standard input for `-`, or of CLAUDEMESH_INVITE.

    The variable is removed from the environment, so that no child process inherits the invite.
    """
    from_environment = os.environ.pop(VARIABLE, None)
    if given == "-":
        # Imported here: only this form reads a pasted text.
        from claudemesh.protocol.invites import MAX_PASTED_CHARACTERS

        return sys.stdin.read(MAX_PASTED_CHARACTERS)
    return given or from_environment or None


def require_invite(link: str | None) -> str:
    """Return the invite. `ExitWith` 64 when there is none."""
    if link is None:
        raise ExitWith(
            USAGE,
            "no_invite",
            f"An ephemeral member needs an invite, and there is none. Set {VARIABLE}, or use --invite.",
            next="claudemesh invite create --uses 1000 --expires 30d --ephemeral-only",
        )
    return link


def slug_of(link: str) -> str:
    """Return the mesh that an invite names. `ProtocolError` when the text holds no invite."""
    from claudemesh.protocol.invites import find_link, parse_link

    return parse_link(find_link(link)).slug


def join_as_ephemeral(
    link: str,
    name: str | None,
    home: Path,
    *,
    ttl_s: int | None,
    insecure: bool = False,
    ca_file: Path | None = None,
) -> str:
    """Join with the files of the member in `home`, which becomes CLAUDEMESH_HOME. Returns the mesh's slug."""
    from claudemesh.client.errors import ApiError
    from claudemesh.client.join import Life, join

    os.environ["CLAUDEMESH_HOME"] = str(home)
    life = Life(ephemeral=True, ttl_s=ttl_s)
    for left in reversed(range(_TRIES)):
        try:
            return str(join(link, name, random_name(), insecure=insecure, ca_file=ca_file, life=life)["slug"])
        except ApiError as error:
            if error.code != "name_taken" or name is not None or not left:
                raise
    raise AssertionError("the last try returns or raises")


def random_name() -> str:
    """Return the host name with four random characters: `build-7-x3f9`."""
    import secrets

    ending = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))
    return f"{default_name()[:_HOST_CHARACTERS]}-{ending}"
