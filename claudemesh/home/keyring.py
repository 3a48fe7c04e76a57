"""Private keys of this host's member: keypair.json."""

from __future__ import annotations

from pathlib import Path

from claudemesh.home.json_files import malformed, read_object
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.keys import Identity


def load_identity(path: Path) -> Identity:
    """Read keypair.json. A damaged or missing key file is refused, never replaced by a new key."""
    data = read_object(path, "the member's keys are gone: restore them from a backup, or join again")
    try:
        return Identity.from_json(data)
    except (KeyError, TypeError, ValueError, ProtocolError) as error:
        raise malformed(path, error) from error
