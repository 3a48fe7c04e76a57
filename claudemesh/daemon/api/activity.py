"""Routes about the last day of this daemon: counts of messages, runs of hooks, and origins of settings.

They are computed when they are asked for. A daemon without a reader keeps the last runs of hooks, and nothing
else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from msgspec import Struct

from claudemesh.daemon.api.schemas_activity import Activity, HookRunList, Origins
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.runtime.clock import Clock, iso_ms
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

# Quarters of an hour: the midnights of all time zones lie between two of them.
BUCKET_S: Final = 900
BUCKETS: Final = 96
# The bound of a count, and so of the time that one takes.
MOST_COUNTED: Final = 10_000

Count: TypeAlias = Callable[[Sequence[tuple[int, int]], int], Awaitable[list[int]]]


class DiskRoom(Protocol):
    """Use of disk and outbox, in percent of their budgets."""

    @property
    def disk_pct(self) -> float: ...
    @property
    def queue_pct(self) -> float: ...


class ActivityRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of the routes. `received` and `sent` count messages in spans of wall time."""

    clock: Clock
    config: LiveConfig
    received: Count
    sent: Count
    room: Callable[[], DiskRoom]
    hook_runs: Callable[[], Sequence[Mapping[str, Any]]]
    origins: Callable[[DaemonSettings], Mapping[str, Mapping[str, str | None]]]

    async def get_activity(self, request: Request) -> Reply:
        """Return counts of the last 24 hours, the oldest first; the last one is of the running quarter."""
        spans = spans_until(self.clock.wall_ms())
        received, sent = await self.received(spans, MOST_COUNTED), await self.sent(spans, MOST_COUNTED)
        room = self.room()
        return Reply(
            200,
            {
                "since": iso_ms(spans[0][0]),
                "bucket_s": BUCKET_S,
                "received": received,
                "sent": sent,
                "most_counted": MOST_COUNTED,
                "disk_pct": round(room.disk_pct, 1),
                "queue_pct": round(room.queue_pct, 1),
            },
        )

    async def list_hook_runs(self, request: Request) -> Reply:
        """Return the last runs of hooks since the start of the daemon, newest first."""
        return Reply(200, {"items": list(self.hook_runs()), "next": None})

    async def get_origins(self, request: Request) -> Reply:
        """Return where each setting in force comes from."""
        return Reply(200, {"origins": await asyncio.to_thread(self.origins, self.config.settings)})


def spans_until(now_ms: int) -> list[tuple[int, int]]:
    """Return the quarters of an hour of the last day, each as its first millisecond and that of the next."""
    step = BUCKET_S * 1000
    end = (now_ms // step + 1) * step
    return [(end - n * step, end - (n - 1) * step) for n in range(BUCKETS, 0, -1)]


ROUTES = (
    Route(
        "GET",
        "/v1/activity",
        "Counts of messages in the last 24 hours, and the use of disk and outbox",
        {200: Activity},
        ActivityRoutes.get_activity,
    ),
    Route(
        "GET",
        "/v1/hook_runs",
        "The last runs of hooks since the start of the daemon, newest first",
        {200: HookRunList},
        ActivityRoutes.list_hook_runs,
    ),
    Route(
        "GET",
        "/v1/config/origins",
        "The origin of each setting in force",
        {200: Origins},
        ActivityRoutes.get_origins,
    ),
)
