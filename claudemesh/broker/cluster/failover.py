"""A database that may have been exchanged under a running broker: another server process, or older data.

A cold copy of a cluster that is started again is the same system, database and timeline, so the epoch stays.
The broker then closes its connections. Daemons ask about their sends as they come back, and what the broker
remembered of deliveries is dropped: a restored database gives out the same ids again.
"""

from __future__ import annotations

from claudemesh.broker.store.types import Life


def may_have_gone_back(before: Life | None, now: Life, accepted: int = 0) -> bool:
    """Whether the data may be older than it was. A restart counts: it may hide a restore.

    `accepted` is the newest history id that was accepted in this life before it was asked for `now`.
    """
    if before is None:
        return False
    newest = max(before.newest_history, accepted)
    return before.server_started != now.server_started or now.newest_history < newest
