"""Health routes: liveness, readiness with its reasons, and metrics."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

import claudemesh
from claudemesh.broker.context import Context
from claudemesh.broker.http.replies import JsonAnswer
from claudemesh.runtime.bucket import Bucket
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.metrics import CONTENT_TYPE

# Making the page costs some milliseconds, and whoever reaches the broker can ask for it.
_RENDERS_PER_S, _RENDERS_BURST = 5.0, 50.0


class Health:
    """Three routes without a body; none of them tells anything about a member."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._renders = Bucket(_RENDERS_PER_S, _RENDERS_BURST)
        self._page = b""

    async def healthz(self, request: Request) -> Response:
        """Answer 200 as long as the process answers at all."""
        return JsonAnswer(200, {"status": "ok", "version": claudemesh.__version__})

    async def readyz(self, request: Request) -> Response:
        """Answer 200 when the broker serves members, else 503 and why. Both within about 2 s.

        `degraded` lists what does not work, also while the broker is ready; `reasons` why it is not.
        """
        context = self._context
        if context.state.draining:
            return self._not_ready("broker_draining", "this broker is going away: use another")
        if not await context.pulse.check():
            return self._not_ready("storage_unavailable", "the broker's database does not answer")
        if not context.degraded.serving:
            return self._not_ready("broker_degraded", "a part of this broker does not work: see the reasons")
        degraded = context.degraded.conditions.items()
        return JsonAnswer(
            200,
            {"ready": True, "status": "ready", "limiter": context.limiter.kind, "degraded": degraded},
        )

    async def metrics(self, request: Request) -> Response:
        """Answer with everything counted so far, for Prometheus; with the last page when asked too often."""
        if not self._page or not self._renders.take(asyncio.get_running_loop().time()):
            self._page = self._context.metrics.render()
        return Response(self._page, headers={"content-type": CONTENT_TYPE})

    def _not_ready(self, error: str, message: str) -> Response:
        reasons = self._context.degraded.conditions.items()
        if not reasons:
            now = iso_ms(self._context.clock.wall_ms())
            reasons = [{"code": error, "since": now, "message": message}]
        return JsonAnswer(503, {"ready": False, "error": error, "message": message, "reasons": reasons})
