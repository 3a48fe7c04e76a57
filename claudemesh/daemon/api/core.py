"""The interface between the API and a running daemon; `daemon/core.py` implements it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from claudemesh.daemon.bus import Bus
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.presence import Presence
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.daemon.topics.known import KnownTopics
from claudemesh.daemon.topics.own import OwnTopics
from claudemesh.home.membership import Membership
from claudemesh.protocol.replies import Read
from claudemesh.runtime.clock import Clock

T = TypeVar("T")


class LinkLike(Protocol):
    """The link to the broker, as far as the API asks it something."""

    @property
    def broker_version(self) -> str | None:
        """The broker's version as last heard, None before that."""
        ...

    async def call(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        """Ask the broker, and return what `read` makes of its answer. `ProtocolError`: see `calls.Ask`."""
        ...


class CoreLike(Protocol):
    """A running daemon. Everything that changes something goes through its methods."""

    @property
    def membership(self) -> Membership: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def settings(self) -> DaemonSettings: ...
    @property
    def directory(self) -> Directory: ...
    @property
    def presence(self) -> Presence: ...
    @property
    def own_topics(self) -> OwnTopics: ...
    @property
    def bus(self) -> Bus: ...
    @property
    def outbox(self) -> OutboxStore: ...
    @property
    def inbox(self) -> InboxStore: ...
    @property
    def link(self) -> LinkLike: ...
    @property
    def topics(self) -> KnownTopics: ...

    def wall_of(self, lived_ms: int) -> int:
        """Return the Unix milliseconds at which the lived clock shows this, for people."""
        ...

    async def submit(self, request: SendRequest, *, wait_ms: int | None = None) -> Answer:
        """Accept a send durably, or answer what is known of its id."""
        ...

    async def requeue(
        self, key: str, *, new_client_message_id: str | None = None, patch: Mapping[str, Any] | None = None
    ) -> Answer:
        """Send a stuck row's message again, under a new id."""
        ...

    async def drop(self, key: str, by: str) -> Answer:
        """Retire a stuck row."""
        ...

    def reload(self) -> Mapping[str, Any]:
        """Take over config.toml as it is now, and return how that went."""
        ...

    def stop_soon(self) -> None:
        """End orderly, once the requests under way are answered."""
        ...

    async def health(self) -> Mapping[str, Any]:
        """Return what `/v1/health` shows."""
        ...

    async def render_metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        ...
