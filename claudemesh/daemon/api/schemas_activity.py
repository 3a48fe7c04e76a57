"""JSON of the routes about the last day of this daemon (api/activity.py), as msgspec Structs."""

from __future__ import annotations

from msgspec import Struct

from claudemesh.daemon.api.schemas import Moment


class Activity(Struct):
    """Counts of messages in the last 24 hours, from `since` on, one for each `bucket_s` seconds.

    `received` counts messages that the inbox keeps, `sent` the sends that the outbox keeps. No count goes
    further than `most_counted`. `disk_pct` and `queue_pct` are the use of disk and outbox in percent of their
    budgets.
    """

    since: Moment
    bucket_s: int
    received: list[int]
    sent: list[int]
    most_counted: int
    disk_pct: float
    queue_pct: float


class HookRun(Struct):
    """A run of a hook that has ended, as the event `hook_executed` has it."""

    hook: str
    event_id: str
    exit: int | None
    outcome: str
    duration_ms: int
    replied: bool
    ended_at: Moment


class HookRunList(Struct):
    """The last 200 runs since the start of the daemon, newest first; all of them are one page."""

    items: list[HookRun]
    next: str | None


class Origins(Struct):
    """The origin of each setting in force by section and key: a line of config.toml, or `default`.

    It is null when the file, as it is now, gives another value, which a reload or a restart applies.
    """

    origins: dict[str, dict[str, str | None]]
