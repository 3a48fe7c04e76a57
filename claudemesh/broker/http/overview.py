"""Admin routes that show what a broker does now: its state, and its connections."""

from __future__ import annotations

from dataclasses import replace

import claudemesh
from claudemesh.broker.context import Context
from claudemesh.broker.http.admin import MAX_PAGE, mesh_named
from claudemesh.runtime.web.query import Parameter, cursor, whole_number
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

# A count of all deliveries may read a large table.
_COUNTED_FOR_S = 10.0
_LONGEST_CURSOR = 100


class OverviewRoutes:
    """Handlers of the routes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._started_s = context.clock.monotonic()
        self._owed = 0
        self._counted_s: float | None = None

    async def get_state(self, request: Request) -> Reply:
        """Return the state of this broker. The deliveries owed are counted every 10 s at most."""
        context, now_s = self._context, self._context.clock.monotonic()
        if self._counted_s is None or now_s - self._counted_s >= _COUNTED_FOR_S:
            self._counted_s = now_s
            self._owed = await context.store.messages.deliveries_pending()
        return Reply(
            200,
            {
                "version": claudemesh.__version__,
                "broker_id": context.env.broker_id,
                "uptime_s": int(now_s - self._started_s),
                "store": "sqlite" if context.settings.database_url is None else "postgres",
                "limiter": context.limiter.kind,
                "draining": context.state.draining,
                "connections": len(context.hub),
                "deliveries_owed": self._owed,
                "degraded": context.degraded.conditions.items(),
            },
        )

    async def list_connections(self, request: Request) -> Reply:
        """Return the connections of a mesh to this broker, the oldest first."""
        mesh = await mesh_named(self._context, request.query["mesh"])
        after, limit = request.query["after"], request.query["limit"]
        found = sorted(
            (one for one in self._context.hub.of_mesh(mesh.id) if one.connection_id > after),
            key=lambda one: one.connection_id,
        )
        items = [one.account() for one in found[:limit]]
        return Reply(
            200, {"items": items, "next": found[limit - 1].connection_id if len(found) > limit else None}
        )


def _cursor(text: str) -> str:
    if len(text) > _LONGEST_CURSOR or not text.isalnum():
        raise ValueError
    return text


ROUTES = (
    Route("GET", "/v1/admin/state", "Show the state", handler=OverviewRoutes.get_state, admin=True),
    Route(
        "GET",
        "/v1/admin/connections",
        "List connections",
        handler=OverviewRoutes.list_connections,
        query=(
            Parameter("mesh", {"type": "string"}, "a mesh's slug", str),
            replace(cursor(_cursor, code="invalid_after"), default=""),
            whole_number("limit", 1, MAX_PAGE, MAX_PAGE, code="invalid_limit"),
        ),
        admin=True,
    ),
)
