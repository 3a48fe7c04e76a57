"""Health routes: liveness, readiness with its reasons, and metrics."""

from __future__ import annotations

import asyncio

import claudemesh
from claudemesh.broker.context import Context
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.metrics import CONTENT_TYPE
from claudemesh.runtime.rate_limit import TokenBucket
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

# Rate limit of rendering the metrics, which takes milliseconds and needs no token.
_RENDERS_PER_S, _RENDERS_BURST = 5.0, 50.0


class HealthRoutes:
    """Handlers of the three routes. None of them tells anything about a member."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._renders = TokenBucket(_RENDERS_PER_S, _RENDERS_BURST)
        self._page = b""

    async def healthz(self, request: Request) -> Reply:
        """Return 200 while the process answers at all."""
        return Reply(200, {"status": "ok", "version": claudemesh.__version__})

    async def readyz(self, request: Request) -> Reply:
        """Return 200 when the broker serves members, else 503; both within about 2 s.

        `degraded` lists the conditions that hold while the broker is ready, `reasons` why it is not ready.
        """
        context = self._context
        if context.state.draining:
            return self._not_ready("broker_draining", "This broker is shutting down. Use another one.")
        if not await context.pulse.check():
            return self._not_ready("storage_unavailable", "The broker's database does not answer.")
        if not context.degraded.serving:
            return self._not_ready("broker_degraded", "A part of this broker does not work. See the reasons.")
        degraded = context.degraded.conditions.items()
        return Reply(
            200,
            {"ready": True, "status": "ready", "limiter": context.limiter.kind, "degraded": degraded},
        )

    async def metrics(self, request: Request) -> Reply:
        """Return the metrics in Prometheus text format; the last page again past the rate limit."""
        if not self._page or not self._renders.take(asyncio.get_running_loop().time()):
            self._page = self._context.metrics.render()
        return Reply(200, self._page, content_type=CONTENT_TYPE.encode())

    def _not_ready(self, error: str, message: str) -> Reply:
        reasons = self._context.degraded.conditions.items()
        if not reasons:
            now = iso_ms(self._context.clock.wall_ms())
            reasons = [{"code": error, "since": now, "message": message}]
        return Reply(503, {"ready": False, "error": error, "message": message, "reasons": reasons})


# A probe may add a query of its own, which is ignored.
ROUTES = (
    Route("GET", "/healthz", "Liveness", handler=HealthRoutes.healthz, query=None),
    Route("GET", "/readyz", "Readiness", handler=HealthRoutes.readyz, query=None),
    Route("GET", "/metrics", "Metrics", handler=HealthRoutes.metrics, query=None),
)
