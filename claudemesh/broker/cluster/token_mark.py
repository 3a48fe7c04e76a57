"""Detection of brokers on one database with different admin tokens.

A join proves its keys to a challenge key that is derived from the admin token, so it fails when one broker
gives out that key and another one gets the proof. Each broker holds a mark of its token as an advisory lock
of the session that listens for signals, and sees the marks of others. The mark is 31 bits of a keyed hash. It
is released with its broker, so that the token can be replaced while no broker runs.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable

from claudemesh.runtime.exits import CONFIGURATION, ExitWith

CONDITION = "admin_token_differs"
_PURPOSE = b"claudemesh admin token mark"
_LOOKS = 4
_PAUSE_S = 1.0
_REMEDY = (
    "Give all of them the same (CLAUDEMESH_BROKER_ADMIN_TOKEN, or the file admin_token in each data dir). "
    "To replace the token, stop all brokers first."
)
REFUSED = f"Another broker on this database runs with another admin token. {_REMEDY}"
DEGRADED = (
    "Another broker on this database runs with another admin token, so a join fails that meets both of them. "
    f"{_REMEDY}"
)


def mark_of(admin_token: bytes) -> int:
    """Return the mark of a token. The token cannot be derived from it."""
    return int.from_bytes(hmac.digest(admin_token, _PURPOSE, "sha256")[:4], "big") >> 1


async def require_one_token(differs: Callable[[], Awaitable[bool]]) -> None:
    """Raise `ExitWith` 78 when a broker with another token runs on the database for longer than 3 s."""
    for look in range(_LOOKS):
        if not await differs():
            return
        if look + 1 < _LOOKS:
            await asyncio.sleep(_PAUSE_S)
    raise ExitWith(CONFIGURATION, CONDITION, REFUSED)
