"""Assembly of the part that rotates this member's keys."""

from __future__ import annotations

from claudemesh.daemon.identity.rotation import KeyRotation, RotationParts
from claudemesh.daemon.link.link import Link
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.parts import Base, Stores


def key_rotation(base: Base, stores: Stores, link: Link, config: LiveConfig) -> KeyRotation:
    """Return the part, with the parts of the daemon that it needs."""
    parts = RotationParts(
        mesh_id=base.membership.mesh_id,
        address=base.address,
        keyring=base.keyring,
        ask=link.call,
        is_connected=lambda: link.connected,
        clock=base.clock,
        lived=stores.lived,
        conditions=base.conditions,
        tasks=base.tasks,
        backoff=base.backoff,
        grace_days=lambda: config.settings.key_grace_period_days,
        force_expired=base.metrics.archive_force_expired,
    )
    return KeyRotation(parts)
