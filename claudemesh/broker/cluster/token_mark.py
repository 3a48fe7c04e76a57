"""One admin token for all brokers of a database: each holds a mark of its token there, and sees the others.

A join proves its keys to a key that is made of the admin token, so it fails when one broker gives that key
and another gets the proof. The mark is 31 bits of a keyed hash, held as an advisory lock of the session that
listens for signals. It goes with its broker, so the token can be replaced while no broker runs.
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
REFUSED = f"another broker on this database runs with another admin token. {_REMEDY}"
DEGRADED = (
    "Another broker on this database runs with another admin token, so a join fails that meets both of them. "
    f"{_REMEDY}"
)


def mark_of(admin_token: bytes) -> int:
    """Return the mark of a token; the token cannot be told from it."""
    return int.from_bytes(hmac.digest(admin_token, _PURPOSE, "sha256")[:4], "big") >> 1


async def require_one_token(differs: Callable[[], Awaitable[bool]]) -> None:
    """`ExitWith` 78 when a broker with another token runs on the database, and does not go within 3 s."""
    for look in range(_LOOKS):
        if not await differs():
            return
        if look + 1 < _LOOKS:
            await asyncio.sleep(_PAUSE_S)
    raise ExitWith(CONFIGURATION, CONDITION, REFUSED)
