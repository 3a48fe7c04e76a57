"""Loop guard: ends an exchange of two hosts whose hooks answer each other (docs/spec/daemon.md, Hooks).

Each answer of a hook holds in its sealed meta the number of hook answers that led to it. For a peer that
leaves the number out, a rate limit applies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from claudemesh.daemon.outbox.request import meta_fields
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.jsontext import JsonText

HOPS = "claudemesh_hook_hops"
MAX_HOPS = 4
PER_MINUTE = 30
_WINDOW_S = 60.0
_SENDERS = 4096


class LoopGuard:
    """Limits the answers of hooks by a hop count, and by a rate for each peer."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._windows: dict[str, tuple[float, int]] = {}

    def admit(self, event: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the meta of an answer, as fields of its `SendRequest`. Raise `ProtocolError` hook_loop."""
        hops = hops_of(event.get("meta")) + 1
        if hops > MAX_HOPS:
            raise ProtocolError(
                "hook_loop", f"{MAX_HOPS} answers of hooks led to this message: it gets no other."
            )
        if self._count(str(event.get("sender_member_id"))) > PER_MINUTE:
            raise ProtocolError(
                "hook_loop", f"Hooks have sent this peer {PER_MINUTE} answers within a minute: try later."
            )
        counted = {**(meta or {}), HOPS: hops}
        return meta_fields(counted)

    def _count(self, sender: str) -> int:
        now = self._now()
        begun, count = self._windows.get(sender, (now, 0))
        if now - begun >= _WINDOW_S:
            begun, count = now, 0
        if len(self._windows) >= _SENDERS:
            self._windows = {
                key: window for key, window in self._windows.items() if now - window[0] < _WINDOW_S
            }
        self._windows[sender] = (begun, count + 1)
        return count + 1


def hops_of(meta: object) -> int:
    """Return the number of hook answers that led to a message. A malformed count is 0."""
    if isinstance(meta, JsonText):
        meta = meta.value() if HOPS in meta.text else None
    value = meta.get(HOPS) if isinstance(meta, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
