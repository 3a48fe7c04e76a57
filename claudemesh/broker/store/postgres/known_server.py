"""The server process that a broker has compared its database with.

A database that is put back from a copy is served by a process that was started later. A send that another
process than the known one accepts could stand in older data: its member, still connected, would then not
ask whether its earlier sends are there. So the accept statement names the known process, and any other one
accepts nothing until the sweep has looked at the data and closed the connections.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct, field


class KnownServer(Struct):
    """When the known process was started, as `life` returns it; None before the first look.

    `differs` is set when another process has answered.
    """

    known: str | None = None
    differs: asyncio.Event = field(default_factory=asyncio.Event)
