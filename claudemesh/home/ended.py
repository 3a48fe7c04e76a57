"""The end of a membership on this host: ended.json, which keeps a daemon of a former member from starting.

It is written when the broker or another member ends the membership, and before anything is deleted. So a host
that is killed in between says at its next start that it is no member any more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import orjson

from claudemesh.home.json_files import malformed, read_object
from claudemesh.runtime.exits import PERMISSION, ExitWith
from claudemesh.runtime.files import write_atomic

Reason: TypeAlias = Literal["revoked", "left"]
REVOKED: Final = "revoked"
LEFT: Final = "left"


@dataclass(frozen=True, slots=True)
class Ended:
    """The reason for the end, and the key of the member that has revoked this one, if a member did."""

    reason: Reason
    by: str | None = None

    def exit(self, slug: str) -> ExitWith:
        """Return the exit of a daemon that may not run any more."""
        remedy = f"`claudemesh leave --mesh {slug}` removes what it keeps here. To join again, ask an owner"
        if self.reason == LEFT:
            text = f"This host has left mesh {slug}. {remedy} for a new invite."
        else:
            unknown = "an owner, an admin or the operator of the broker"
            who = unknown if self.by is None else f"the member with the key {self.by}"
            text = (
                f"The membership of this host in mesh {slug} was revoked by {who}, so its daemon does not "
                f"run any more. {remedy} of the mesh for a new invite."
            )
        return ExitWith(PERMISSION, self.reason, text, next=f"claudemesh leave --mesh {slug}")


def load_ended(path: Path) -> Ended | None:
    """Return the end of the membership, None while it lasts. `ExitWith` for a damaged file."""
    if not path.exists():
        return None
    data = read_object(path, "start again")
    reason, by = data.get("reason"), data.get("by")
    if reason == "revoked" or reason == "left":
        return Ended(reason, by if isinstance(by, str) else None)
    raise malformed(path, TypeError("reason"))


def save_ended(path: Path, ended: Ended) -> None:
    """Write the end of the membership; it is on the disk when this returns. `OSError`."""
    write_atomic(path, orjson.dumps({"schema_version": 1, **asdict(ended)}))
