"""Health routes: liveness, readiness with its reasons, and metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

import claudemesh
from claudemesh.broker.context import Context
from claudemesh.broker.web import JsonAnswer
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.metrics import CONTENT_TYPE


class Health:
    """Three routes without a body; none of them tells anything about a member."""

    def __init__(self, context: Context) -> None:
        self._context = context

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
        """Answer with everything counted so far, for Prometheus."""
        return Response(self._context.metrics.render(), headers={"content-type": CONTENT_TYPE})

    def _not_ready(self, error: str, message: str) -> Response:
        reasons = self._context.degraded.conditions.items()
        if not reasons:
            now = iso_ms(self._context.clock.wall_ms())
            reasons = [{"code": error, "since": now, "message": message}]
        return JsonAnswer(503, {"ready": False, "error": error, "message": message, "reasons": reasons})
