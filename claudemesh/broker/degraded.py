"""Degraded: failures of the broker's parts as conditions, for `/readyz`, the metric `degraded` and the log.

An unreachable database is one condition for all operations. An operation that fails for another reason is a
condition of its own. A condition is logged when it begins and when it ends, not for each failure.

Conditions are shown without a token. So their sentences are made here, and the text of an error, which may
name hosts, users and statements, is in the log alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import (
    StorageBroken,
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageUnreachable,
)
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.degraded")

DATABASE_UNREACHABLE = "database_unreachable"
# A failure that is not repeated within this time is over.
QUIET_S = 15.0

# The effect of a failing operation for users. The operation's name is part of a condition's code.
_EFFECTS: Mapping[str, str] = {
    "accept": "Sends are not accepted",
    "quotas": "Stored bytes are not counted, so that quotas may be passed",
    "publish": "Members get what was accepted when they reconnect",
    "acknowledge": "Acknowledgements are not written, so that deliveries are repeated",
    "deliveries": "Members do not get what they are owed",
    "presence": "Members may look offline",
    "presence_renewal": "Members look offline to other brokers",
    "sweep": "Messages, revocations and leases of other brokers are not noticed",
    "listen": "Messages of other brokers arrive late",
    "signal": "Other brokers hear late of what this one does",
    "release": "Members may look online though they have left",
    "member_changes": "Members hear late of joins, profiles and revocations",
    "queue": "Messages of work queues wait",
    "audit": "Audit events are in the log only",
    "connection": "Members cannot connect",
    "request": "HTTP requests and calls are answered with an error",
    "blobs": "Files are not stored or not sent",
    "blob_sweep": "Files stay after their time",
    "clone_warning": "Owners and admins are not warned of a member on another host than before",
    "high_water": "A restore of the database may go unnoticed",
    "slow_consumers": "Members that do not read keep their connections",
    "message_sweep": "Old messages stay",
    "dedupe_sweep": "Old message ids stay",
    "ephemeral_reaper": "Ephemeral members that are gone stay members",
    "departed_sweep": "Ephemeral members that have left stay in the database",
    "audit_prune": "Old audit events stay",
    "topic_keys": "Members get keys of topics late, and old keys are not replaced",
    "stored_check": "The counts of stored bytes are not checked",
    "orphan_check": "The database is not checked",
}
# The reason of a failure, for users: of the first class that the error belongs to.
_REASONS: Sequence[tuple[type[BaseException], str]] = (
    (StorageFull, "the disk of the database is full. The broker goes on by itself when it has space"),
    (StorageBroken, "the database could not make a commit durable. See to its disk"),
    (StorageCorrupt, "the database is damaged. See to the database"),
    (StorageError, "the database did not do it. The broker tries again by itself; see to the database"),
    (BaseException, "the broker failed. It tries again by itself"),
)
_ANSWERS_AGAIN = (
    "The database answers again. Some connections to it may still be dead, so that a send waits for a new "
    "one. The condition ends by itself within seconds."
)
# Conditions that make the broker not ready. Only loops of its own report these, and loops end them: one that
# ends by traffic alone would keep away the traffic that it waits for.
_NOT_SERVING = frozenset({"sweep_failing", "presence_renewal_failing"})


class Degraded:
    """Takes reports of failures and keeps the conditions that follow from them."""

    def __init__(
        self, conditions: Conditions, clock: Clock, metrics: BrokerMetrics, answering_s: float = 5.0
    ) -> None:
        """An unreachable database that answers pings is one no more after `answering_s`: until then some
        connections to it may be dead."""
        self._answering_s = answering_s
        self.conditions = conditions
        self._clock = clock
        self._metrics = metrics
        self._failed_at: dict[str, float] = {}
        conditions.expect((DATABASE_UNREACHABLE, *(f"{operation}_failing" for operation in _EFFECTS)))
        for operation in _EFFECTS:
            metrics.store_errors.labels(operation)
        metrics.show(conditions)

    @property
    def serving(self) -> bool:
        """Whether members can be served: no condition that makes the broker not ready holds."""
        return not any(map(self.conditions.holds, _NOT_SERVING))

    def failed(self, operation: str, error: BaseException) -> None:
        """Report that an operation of `_EFFECTS` failed. It is tried again by its caller or by a daemon."""
        self._metrics.store_errors.labels(operation).inc()
        if isinstance(error, StorageUnreachable):
            self._unreachable(error)
            return
        code = f"{operation}_failing"
        self._failed_at[code] = self._clock.monotonic()
        if not isinstance(error, StorageError) and not self.conditions.holds(code):
            log.error("operation_failed", operation=operation, error=repr(error), exc_info=error)
        reason = next(text for kind, text in _REASONS if isinstance(error, kind))
        message = f"{_EFFECTS[operation]}: {reason}. The log of the broker has the error."
        self.conditions.begin(code, message, error=str(error))

    def worked(self, operation: str) -> None:
        """Report the success of an operation that a loop repeats."""
        self._end(f"{operation}_failing")

    def answered(self) -> None:
        """Report that the database answered just now; failures that have not come again are over."""
        now = self._clock.monotonic()
        for code, at in list(self._failed_at.items()):
            if now - at >= (self._answering_s if code == DATABASE_UNREACHABLE else QUIET_S):
                self._end(code)
            elif code == DATABASE_UNREACHABLE:
                self.conditions.reword(code, _ANSWERS_AGAIN)

    def _unreachable(self, error: BaseException) -> None:
        self._failed_at[DATABASE_UNREACHABLE] = self._clock.monotonic()
        self.conditions.begin(
            DATABASE_UNREACHABLE,
            "The broker accepts and delivers nothing: the database did not answer. It goes on by itself when "
            "the database answers; see to the server and the way to it. The log of the broker has the error.",
            error=str(error),
        )

    def _end(self, code: str) -> None:
        self._failed_at.pop(code, None)
        self.conditions.end(code)
