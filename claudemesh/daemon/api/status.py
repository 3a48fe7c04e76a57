"""Status routes: health, version, own member, compatibility, metrics, heartbeat, reload and shutdown."""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

import claudemesh
from claudemesh.daemon.address import BrokerAddress
from claudemesh.daemon.api.failures import not_found
from claudemesh.daemon.api.schemas import EmptyBody
from claudemesh.daemon.api.schemas_status import (
    Compat,
    Config,
    ConfigInForce,
    Health,
    Heartbeat,
    Stopping,
    Version,
    Whoami,
)
from claudemesh.daemon.files.store import Waiting
from claudemesh.daemon.inbox.sealed import WithoutText
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import Membership
from claudemesh.protocol.wire import PROTOCOL_VERSIONS
from claudemesh.runtime.clock import Clock, iso_ms
from claudemesh.runtime.metrics import CONTENT_TYPE
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

IPC_API = "v1"
# The local API v1 and the protocol 1 began with 0.1.0, and a version within them only adds.
COMPATIBLE = ">=0.1.0,<1"


class DaemonHealth(Protocol):
    """The state of the daemon; see `daemon/status.py`."""

    @property
    def membership(self) -> Membership: ...
    @property
    def keyring(self) -> Keyring: ...
    @property
    def address(self) -> BrokerAddress: ...
    @property
    def connected(self) -> bool: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def config(self) -> LiveConfig: ...
    @property
    def broker_version(self) -> str | None: ...
    @property
    def broker_features(self) -> Mapping[str, Any]: ...
    @property
    def schema_version(self) -> int: ...

    async def make(self) -> Mapping[str, Any]:
        """Return the JSON object of /v1/health."""
        ...


class MetricsPage(Protocol):
    """The daemon's metrics."""

    async def make(self) -> bytes:
        """Return them in Prometheus text format."""
        ...


class StatusRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of the routes about the daemon itself.

    `stop` ends the daemon in order, once the requests in progress are answered. `reload` puts config.toml in
    force; its outcome is in `health.config`. `unread` counts the messages that are not acknowledged,
    `without_text` those whose text this host cannot read, and `files_waiting` the files not shared yet.
    `served` lists the routes of the local API, each as "METHOD /path". `console_port` is the port of the
    console, None while the loopback is closed.
    """

    health: DaemonHealth
    page: MetricsPage
    reload: Callable[[], None]
    stop: Callable[[], None]
    unread: Callable[[], Awaitable[int]]
    without_text: Callable[[], Awaitable[WithoutText]]
    files_waiting: Callable[[], Awaitable[Waiting]]
    served: tuple[str, ...]
    console_port: Callable[[], int | None]

    async def get_health(self, request: Request) -> Reply:
        """Return the state of this daemon."""
        health, found = await self.health.make(), await self.without_text()
        since = None if found.since_ms is None else iso_ms(found.since_ms)
        sealed = {"waiting": found.waiting, "since": since, "unreadable": found.unreadable}
        port = self.console_port()
        url = None if port is None else f"http://127.0.0.1:{port}/"
        counted = {
            "unread": await self.unread(),
            "sealed": sealed,
            "files_waiting": sum((await self.files_waiting()).counts.values()),
        }
        return Reply(200, {**health, **counted, "console_url": url})

    async def get_version(self, request: Request) -> Reply:
        """Return versions and membership. It reads no disk, so that a command can find its daemon cheaply."""
        membership = self.health.membership
        return Reply(
            200,
            {
                "daemon_version": claudemesh.__version__,
                "ipc_api": IPC_API,
                "ipc_features": list(self.served),
                "schema_version": self.health.schema_version,
                "broker": {
                    "version": self.health.broker_version,
                    "features": self.health.broker_features,
                },
                "mesh": membership.slug,
                "name": membership.name,
                "member_id": membership.member_id,
            },
        )

    async def get_whoami(self, request: Request) -> Reply:
        """Return the member that this daemon is. It reads no disk."""
        membership = self.health.membership
        return Reply(
            200,
            {
                "name": membership.name,
                "mesh": membership.slug,
                "mesh_id": membership.mesh_id,
                "member_id": membership.member_id,
                "member_pubkey": self.health.keyring.pubkey,
                "role": membership.role,
                "host": platform.node(),
                "broker_url": self.health.address.url,
                "connected": self.health.connected,
            },
        )

    async def get_compat(self, request: Request) -> Reply:
        """Return the versions of other programs that this daemon works with, under the settings in force."""
        settings = self.health.config.settings
        return Reply(
            200,
            {
                "daemon": claudemesh.__version__,
                "protocol_versions": list(PROTOCOL_VERSIONS),
                "compatible_brokers": COMPATIBLE,
                "required_broker_features": list(settings.required_features),
                "optional_broker_features": list(settings.features_optional),
                "compatible_clis": COMPATIBLE,
                "compatible_sdks": {"python": COMPATIBLE, "typescript": COMPATIBLE, "go": COMPATIBLE},
            },
        )

    async def get_metrics(self, request: Request) -> Reply:
        """Return the metrics as Prometheus text; 404 when the settings turn them off."""
        if not self.health.config.settings.prometheus_enabled:
            raise not_found()
        return Reply(200, await self.page.make(), content_type=CONTENT_TYPE.encode())

    async def heartbeat(self, request: Request) -> Reply:
        """Confirm that the daemon answers."""
        return Reply(200, {"status": "ok", "now": iso_ms(self.health.clock.wall_ms())})

    async def reload_config(self, request: Request) -> Reply:
        """Reload config.toml and hooks.toml. A wrong value changes nothing, and `error` names it."""
        self.reload()
        return Reply(200, self.health.config.report())

    async def get_config(self, request: Request) -> Reply:
        """Return the settings in force. None of them is a secret."""
        config = self.health.config
        return Reply(200, {**config.report(), "settings": config.values()})

    async def shutdown(self, request: Request) -> Reply:
        """Stop the daemon in order; this reply is its last."""
        self.stop()
        return Reply(202, {"status": "stopping"})


ROUTES = (
    Route(
        "GET", "/v1/health", "The state of this daemon", {200: Health}, StatusRoutes.get_health, public=True
    ),
    Route("GET", "/v1/version", "Versions and membership", {200: Version}, StatusRoutes.get_version),
    Route("GET", "/v1/whoami", "The member that this daemon is", {200: Whoami}, StatusRoutes.get_whoami),
    Route("GET", "/v1/config", "The settings in force", {200: ConfigInForce}, StatusRoutes.get_config),
    Route("GET", "/v1/compat", "Supported and required features", {200: Compat}, StatusRoutes.get_compat),
    Route(
        "GET",
        "/v1/metrics",
        "Metrics in Prometheus text format",
        {200: None},
        StatusRoutes.get_metrics,
        content_type="text/plain",
    ),
    Route(
        "POST",
        "/v1/heartbeat",
        "Check that the daemon answers",
        {200: Heartbeat},
        StatusRoutes.heartbeat,
        body=EmptyBody,
        body_required=False,
    ),
    Route(
        "POST",
        "/v1/reload",
        "Reload config.toml and hooks.toml; on the unix socket only",
        {200: Config},
        StatusRoutes.reload_config,
        body=EmptyBody,
        body_required=False,
        socket_only=True,
    ),
    Route(
        "POST",
        "/v1/shutdown",
        "Stop the daemon; on the unix socket only",
        {202: Stopping},
        StatusRoutes.shutdown,
        body=EmptyBody,
        body_required=False,
        socket_only=True,
    ),
)
