"""The roster of a mesh: the members that are online, and the changes that are not announced yet.

A state machine without I/O. Changes between two calls of `take` are coalesced: a member that went and came
back in between has not gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from msgspec import Struct

from claudemesh.broker.store.types import Lease


class Change(Struct, frozen=True):
    """The members that came online, and those that went offline."""

    online: tuple[str, ...] = ()
    offline: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.online or self.offline)


class Roster:
    """One mesh as one broker sees it: its own connections, and the leases of other brokers.

    An invisible member is offline for all others, wherever it is connected.
    """

    def __init__(self, broker_id: str) -> None:
        self._own = broker_id
        # The brokers at which a member is connected.
        self._places: dict[str, set[str]] = {}
        self._hidden: set[str] = set()
        self._announced: set[str] = set()
        # Members whose state may differ from what was announced.
        self._dirty: set[str] = set()
        # Members of this broker whose state is not published to other brokers.
        self._unpublished: set[str] = set()
        # Members with signals during a read of the database: the signals are newer than the read.
        self._signalled: set[str] | None = None

    @property
    def announced(self) -> Set[str]:
        """The members that are online by what was announced: the state in which a newcomer begins."""
        return self._announced

    @property
    def has_unannounced(self) -> bool:
        """Whether there may be something to announce."""
        return bool(self._dirty)

    @property
    def has_unpublished(self) -> bool:
        """Whether there may be something to publish to other brokers."""
        return bool(self._unpublished)

    def online(self) -> Set[str]:
        """Return the members that others see as online, by the newest state."""
        return self._places.keys() - self._hidden

    # Changes at this broker.

    def arrive(self, member_id: str, *, visible: bool) -> None:
        """Note that a member is connected here."""
        self._note(member_id)
        self._set_hidden(member_id, hidden=not visible)
        self._put(self._own, member_id)
        self._unpublished.add(member_id)

    def leave(self, member_id: str) -> None:
        """Note that the last connection of a member here has ended."""
        if self._own in self._places.get(member_id, ()):
            self._note(member_id)
            self._drop(self._own, member_id)
            self._unpublished.add(member_id)

    def show(self, member_id: str, *, visible: bool) -> None:
        """Note whether a member that is connected here wants to be visible."""
        if self._own in self._places.get(member_id, ()):
            self._note(member_id)
            self._set_hidden(member_id, hidden=not visible)
            self._unpublished.add(member_id)

    # Changes at other brokers.

    def apply(self, broker_id: str, leases: Iterable[Lease], gone: Iterable[str]) -> None:
        """Apply a signal of another broker: members that came or changed visibility, and ones that went."""
        for lease in leases:
            self._note(lease.member_id)
            self._set_hidden(lease.member_id, hidden=not lease.visible)
            self._put(broker_id, lease.member_id)
        for member_id in gone:
            self._note(member_id)
            self._drop(broker_id, member_id)

    def move(self, broker_id: str, member_id: str) -> None:
        """Note that a member's connection here is replaced by one at another broker."""
        self._note(member_id)
        self._put(broker_id, member_id)

    def begin_read(self) -> None:
        """Begin a read of the leases: signals from now on are newer than it."""
        self._signalled = set()

    def read(self, leases: Sequence[Lease]) -> None:
        """Apply the leases of the database: those of other brokers, and the visibility of all members."""
        newer, self._signalled = self._signalled or set(), None
        found = {(lease.broker_id, lease.member_id) for lease in leases}
        for member_id, places in list(self._places.items()):
            for broker_id in places - {self._own}:
                if (broker_id, member_id) not in found and member_id not in newer:
                    self._drop(broker_id, member_id)
        for lease in leases:
            if lease.member_id in newer:
                continue
            self._set_hidden(lease.member_id, hidden=not lease.visible)
            if lease.broker_id != self._own:
                self._put(lease.broker_id, lease.member_id)

    # Announced changes.

    def take(self) -> Change:
        """Return the changes since the last call; they count as announced."""
        online, offline = [], []
        for member_id in self._dirty:
            shown = self._shows(member_id)
            if shown and member_id not in self._announced:
                online.append(member_id)
            elif not shown and member_id in self._announced:
                offline.append(member_id)
        self._announced.update(online)
        self._announced.difference_update(offline)
        self._dirty.clear()
        return Change(tuple(sorted(online)), tuple(sorted(offline)))

    def take_unpublished(self) -> tuple[Sequence[Lease], Sequence[str]]:
        """Return the changes here since the last call: leases of members, and members that went."""
        unpublished, self._unpublished = sorted(self._unpublished), set()
        here = [
            Lease(self._own, member_id, member_id not in self._hidden)
            for member_id in unpublished
            if self._own in self._places.get(member_id, ())
        ]
        present = {lease.member_id for lease in here}
        return here, [member_id for member_id in unpublished if member_id not in present]

    def _shows(self, member_id: str) -> bool:
        return member_id in self._places and member_id not in self._hidden

    def _note(self, member_id: str) -> None:
        if self._signalled is not None:
            self._signalled.add(member_id)

    def _put(self, broker_id: str, member_id: str) -> None:
        places = self._places.setdefault(member_id, set())
        if broker_id not in places:
            places.add(broker_id)
            self._dirty.add(member_id)

    def _drop(self, broker_id: str, member_id: str) -> None:
        places = self._places.get(member_id)
        if places is None or broker_id not in places:
            return
        places.discard(broker_id)
        self._dirty.add(member_id)
        if not places:
            del self._places[member_id]
            self._hidden.discard(member_id)

    def _set_hidden(self, member_id: str, *, hidden: bool) -> None:
        if hidden == (member_id in self._hidden):
            return
        if hidden:
            self._hidden.add(member_id)
        else:
            self._hidden.discard(member_id)
        self._dirty.add(member_id)
