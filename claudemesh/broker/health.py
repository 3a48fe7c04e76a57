"""Whether the process lives, whether it is ready for traffic, and what it has counted."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

import claudemesh
from claudemesh.broker.context import Context
from claudemesh.broker.web import JsonAnswer
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.metrics import CONTENT_TYPE


class Health:
    """Three routes without a body; none of them tells anything about a member."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def healthz(self, request: Request) -> Response:
        """Answer 200 as long as the process answers at all."""
        return JsonAnswer(200, {"status": "ok", "version": claudemesh.__version__})

    async def readyz(self, request: Request) -> Response:
        """Answer 200 when the database is reachable and the broker is not draining, else 503."""
        if self._context.state.draining:
            return _not_ready("broker_draining", "this broker is going away: use another")
        try:
            await self._context.store.ping()
        except StorageError:
            return _not_ready("storage_unavailable", "the broker's database does not answer")
        return JsonAnswer(200, {"status": "ready", "limiter": self._context.limiter.kind})

    async def metrics(self, request: Request) -> Response:
        """Answer with everything counted so far, for Prometheus."""
        return Response(self._context.metrics.render(), headers={"content-type": CONTENT_TYPE})


def _not_ready(error: str, message: str) -> Response:
    return JsonAnswer(503, {"error": error, "message": message})
