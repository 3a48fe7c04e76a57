"""Limits of connections of a broker's listener, and the file descriptors that they need."""

from __future__ import annotations

from dataclasses import replace

from claudemesh.broker.context import Context
from claudemesh.broker.settings import BrokerSettings, Limits
from claudemesh.runtime.crowd import Caps
from claudemesh.runtime.descriptors import raise_descriptors
from claudemesh.runtime.guarded import Guardroom
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.guard")

# Descriptors for databases, the log, and connections to other servers.
_OTHER_FILES = 256


def with_descriptors(settings: BrokerSettings) -> BrokerSettings:
    """Raise the limit of open files for the settings' limits of connections; return settings that fit it."""
    limits = settings.limits
    wanted = limits.connections + limits.strangers + _OTHER_FILES
    allowed = raise_descriptors(wanted)
    if allowed >= wanted:
        return settings
    caps = _caps(limits).fitted(max(2, allowed - _OTHER_FILES))
    log.warning(
        "few_descriptors",
        allowed=allowed,
        wanted=wanted,
        connections=caps.members,
        detail=f"This broker takes {caps.members} members at a time instead of {limits.connections}: "
        f"raise the hard limit of open files to {wanted} (ulimit -Hn, LimitNOFILE=).",
    )
    fitted = replace(
        limits,
        connections=caps.members,
        strangers=caps.strangers,
        strangers_per_address=caps.strangers_per_address,
    )
    return replace(settings, limits=fitted)


def guardroom(context: Context) -> Guardroom:
    """Return the limits of connections of a broker's listener."""
    settings, metrics = context.settings, context.metrics
    return Guardroom(
        _caps(settings.limits),
        count=metrics.limit_reached,
        trusted=settings.proxies,
        unread_s=settings.limits.unread_s,
        sign_in_s=settings.limits.sign_in_s,
    )


def _caps(limits: Limits) -> Caps:
    return Caps(limits.connections, limits.strangers, limits.strangers_per_address)
