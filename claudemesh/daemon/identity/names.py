"""Names of members as this host knows them: pins, and the members that bear the names now.

The first persistent member that is seen with a name is pinned under it. The pin outlives a rename and the end
of the member, so that a message to a name never goes to another member unnoticed. Ephemeral members are not
pinned: their names go to the next one. All names are in lower case here.
"""

from __future__ import annotations

from collections.abc import Iterable

# Pins of one member. A member that renames itself more often loses the oldest.
MAX_PINS = 64


class Names:
    """The pins, and for each name the active member that the broker lists under it."""

    def __init__(self) -> None:
        self._pinned: dict[str, str] = {}
        self._bearers: dict[str, str] = {}
        self._last: dict[str, str] = {}

    def note(self, member_id: str, name: str, pins: Iterable[str], *, is_active: bool) -> None:
        """Note the name and the pins of a member."""
        for pin in pins:
            self._pinned[pin] = member_id
        self._last[name] = member_id
        if is_active:
            self._bearers[name] = member_id

    def forget(self, member_id: str, name: str, pins: Iterable[str]) -> None:
        """Forget what was noted of a member, before it is noted again."""
        for pin in pins:
            if self._pinned.get(pin) == member_id:
                del self._pinned[pin]
        if self._bearers.get(name) == member_id:
            del self._bearers[name]

    def drop(self, member_id: str, name: str, pins: Iterable[str]) -> None:
        """Forget a member for good."""
        self.forget(member_id, name, pins)
        if self._last.get(name) == member_id:
            del self._last[name]

    def pinned(self, name: str) -> str | None:
        """Return the id of the member that is pinned under a name, or None."""
        return self._pinned.get(name)

    def find(self, name: str) -> str | None:
        """Return the id of the member that a name means here: the pinned one, else its last bearer."""
        return self._pinned.get(name) or self._bearers.get(name) or self._last.get(name)

    def other_bearer(self, name: str) -> str | None:
        """Return the id of the active member that has the name of another, pinned one, or None."""
        bearer = self._bearers.get(name)
        return bearer if bearer is not None and self._pinned.get(name, bearer) != bearer else None


def pins_after(pins: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Return the pins of a member with one more."""
    return pins if name in pins else (*pins, name)[-MAX_PINS:]
