"""Detection of a database that was exchanged under a running broker: another server process, or older data.

A cold copy of a database server that is started again is the same system, database and timeline, so the store
epoch stays. When the data may be older, the broker closes its connections: daemons ask about their sends as
they come back, and what the broker remembered of deliveries is dropped, because a restored database gives out
the same ids again.
"""

from __future__ import annotations

from claudemesh.broker.store.types import Life


def may_have_gone_back(before: Life | None, now: Life, accepted: int = 0) -> bool:
    """Return whether the data may be older than it was. A restart counts, because it may hide a restore.

    `accepted` is the newest history id that this broker has accepted before `now` was read.
    """
    if before is None:
        return False
    newest = max(before.newest_history, accepted)
    return before.server_started != now.server_started or now.newest_history < newest
