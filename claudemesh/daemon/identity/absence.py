"""The absence of a member, in words."""

from __future__ import annotations

from collections.abc import Callable

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.presence import Presence
from claudemesh.runtime.clock import iso_ms


async def absence(
    directory: Directory,
    presence: Presence,
    is_linked: Callable[[], bool],
    pubkey: str,
    needs_session: bool,
) -> str | None:
    """Return a clause that says why a member comes no further with a message now, None without a reason.

    `needs_session`: a session has to show the message.
    """
    peer = directory.by_key(pubkey)
    if peer is None:
        return "the recipient is no member of the mesh any more"
    if peer.status != "active":
        return f"{peer.name} is no active member of the mesh any more"
    if not is_linked():
        return "this host is not connected to the broker"
    if presence.is_online(peer.member_id):
        without = needs_session and not peer.sessions
        return f"the host of {peer.name} shows no session" if without else None
    await presence.learn_seen([peer])
    seen = presence.last_seen_ms(peer)
    return f"the host of {peer.name} is offline" + ("" if seen is None else f" since {iso_ms(seen)}")
