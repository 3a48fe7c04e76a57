"""Assembly of the parts that hold keys: of this member, and of topics."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection

from claudemesh.daemon.identity.rotation import KeyRotation, RotationParts
from claudemesh.daemon.link.link import Link
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.parts import Base, Stores
from claudemesh.daemon.topics.keys import TopicKeys
from claudemesh.daemon.topics.wrapping import Wrapping
from claudemesh.home.topic_keyring import TopicKeyring
from claudemesh.runtime.exits import PERMISSION, ExitWith
from claudemesh.runtime.files import UnsafeFile
from claudemesh.runtime.oserrors import cannot


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


def topic_keys(
    base: Base, stores: Stores, link: Link, know: Callable[[Collection[str]], Awaitable[None]]
) -> TopicKeys:
    """Return the keys of topics. `ExitWith` when their file cannot be read."""
    path, mesh_id = base.paths.topic_keys, base.membership.mesh_id
    try:
        held = TopicKeyring.load(path, mesh_id, base.clock.wall_ms())
    except UnsafeFile as error:
        raise ExitWith(PERMISSION, "unsafe_file", str(error)) from error
    except OSError as error:
        raise cannot("read", error, path) from error
    wrapping = Wrapping(base.keyring, mesh_id, stores.directory, know, secrets.token_bytes)
    return TopicKeys(held, wrapping, link.call, base.tasks)
