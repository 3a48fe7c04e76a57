"""Status routes: health, version, compatibility and heartbeat."""

from __future__ import annotations

import claudemesh
from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Reply, not_found
from claudemesh.daemon.api.routes import Operation, Request
from claudemesh.daemon.api.schemas import Compat, Config, EmptyBody, Health, Heartbeat, Stopping, Version
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.metrics import CONTENT_TYPE

API_VERSION = "v1"
PROTOCOL_VERSION = 1


async def health(core: CoreLike, request: Request) -> Reply:
    """How this daemon is."""
    return Reply(200, await core.health())


async def version(core: CoreLike, request: Request) -> Reply:
    """Who answers here: cheap, touches no disk, so that a command can find its daemon by it."""
    membership = core.membership
    return Reply(
        200,
        {
            "daemon_version": claudemesh.__version__,
            "api_version": API_VERSION,
            "mesh": membership.slug,
            "name": membership.name,
            "member_id": membership.member_id,
        },
    )


async def compat(core: CoreLike, request: Request) -> Reply:
    """What this daemon speaks, and what it asks of a broker."""
    return Reply(
        200,
        {
            "api_versions": [API_VERSION],
            "protocol_versions": [PROTOCOL_VERSION],
            "features_required": list(core.settings.required_features),
            "features_optional": list(core.settings.features_optional),
            "broker_version": core.link.broker_version,
        },
    )


async def metrics(core: CoreLike, request: Request) -> Reply:
    """Prometheus text, unless the settings forbid it."""
    if not core.settings.prometheus_enabled:
        raise not_found()
    return Reply(200, await core.render_metrics(), content_type=CONTENT_TYPE.encode())


async def heartbeat(core: CoreLike, request: Request) -> Reply:
    """The daemon answers."""
    return Reply(200, {"status": "ok", "now": iso_ms(core.clock.wall_ms())})


async def reload(core: CoreLike, request: Request) -> Reply:
    """Read config.toml and hooks.toml anew; `error` names a wrong value, which changes nothing."""
    return Reply(200, core.reload())


async def shutdown(core: CoreLike, request: Request) -> Reply:
    """End the daemon orderly; this answer is the last one."""
    core.stop_soon()
    return Reply(202, {"status": "stopping"})


OPERATIONS = (
    Operation("GET", "/v1/health", "How this daemon is", {200: Health}, health, public=True),
    Operation("GET", "/v1/version", "Who answers here", {200: Version}, version),
    Operation("GET", "/v1/compat", "What this daemon speaks", {200: Compat}, compat),
    Operation(
        "GET", "/v1/metrics", "Metrics in Prometheus text", {200: None}, metrics, content_type="text/plain"
    ),
    Operation(
        "POST",
        "/v1/heartbeat",
        "Ask whether the daemon answers",
        {200: Heartbeat},
        heartbeat,
        body=EmptyBody,
        body_required=False,
    ),
    Operation(
        "POST",
        "/v1/reload",
        "Take over config.toml as it is now; on the unix socket alone",
        {200: Config},
        reload,
        body=EmptyBody,
        body_required=False,
        socket_only=True,
    ),
    Operation(
        "POST",
        "/v1/shutdown",
        "Stop the daemon; on the unix socket alone",
        {202: Stopping},
        shutdown,
        body=EmptyBody,
        body_required=False,
        socket_only=True,
    ),
)
