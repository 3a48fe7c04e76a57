"""The rate limit of warnings about suspected clones. A member can cause them at will, by connecting."""

from __future__ import annotations

from claudemesh.runtime.clock import Clock
from claudemesh.runtime.rate_limit import TokenBuckets

# About one member: one warning in five minutes, as long as the audit merges events.
_MEMBER_PER_S, _MEMBER_BURST = 1 / 300, 1
# About all members of a mesh.
_MESH_PER_S, _MESH_BURST = 0.2, 64


class CloneWarnings:
    """The warnings that may be sent, for each member and for each mesh."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._members = TokenBuckets(_MEMBER_PER_S, _MEMBER_BURST)
        self._meshes = TokenBuckets(_MESH_PER_S, _MESH_BURST)

    def take(self, mesh_id: str, member_id: str) -> bool:
        """Return whether owners and admins are warned of this member now."""
        now = self._clock.monotonic()
        if self._members.of(f"{mesh_id} {member_id}").take(now) > 0:
            return False
        return self._meshes.of(mesh_id).take(now) == 0
