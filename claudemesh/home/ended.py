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
_WHEN_DAMAGED: Final = "move it away; if the membership has ended, the broker says so at the next start"


@dataclass(frozen=True, slots=True)
class Ended:
    """The reason for the end, and the member that has revoked this one: its key, name and role.

    That member is known when its signed statement was verified on this host.
    """

    reason: Reason
    by: str | None = None
    by_name: str | None = None
    by_role: str | None = None

    def exit(self, slug: str) -> ExitWith:
        """Return the exit of a daemon that may not run any more."""
        remedy = f"`claudemesh leave --mesh {slug}` removes what it keeps here. To join again, ask an owner"
        if self.reason == LEFT:
            text = f"This host has left mesh {slug}. {remedy} for a new invite."
        else:
            text = (
                f"The membership of this host in mesh {slug} was revoked by {self._revoker()}, so its daemon "
                f"does not run any more. {remedy} of the mesh for a new invite."
            )
        return ExitWith(PERMISSION, self.reason, text, next=f"claudemesh leave --mesh {slug}")

    def _revoker(self) -> str:
        if self.by is None:
            return "an owner, an admin or the operator of the broker (the broker has shown no statement)"
        if self.by_name is None:
            return f"the member with the key {self.by}"
        return f"{self.by_name} ({self.by_role}, key {self.by}), whose statement this host has verified"


def load_ended(path: Path) -> Ended | None:
    """Return the end of the membership, None while it lasts. `ExitWith` for a damaged file."""
    if not path.exists():
        return None
    data = read_object(path, "start again", _WHEN_DAMAGED)
    reason = data.get("reason")
    if reason == "revoked" or reason == "left":
        told = (data.get(name) for name in ("by", "by_name", "by_role"))
        return Ended(reason, *(one if isinstance(one, str) else None for one in told))
    raise malformed(path, TypeError("reason"), _WHEN_DAMAGED)


def save_ended(path: Path, ended: Ended) -> None:
    """Write the end of the membership; it is on the disk when this returns. `OSError`."""
    write_atomic(path, orjson.dumps({"schema_version": 1, **asdict(ended)}))
