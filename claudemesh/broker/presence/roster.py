"""The roster of a mesh: which members are online, and what of it has not been told to the others yet.

A state machine without I/O. Whatever happens between two calls of `take` is one change: a member that went
and came back in between has not gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from claudemesh.broker.store.types import Lease


@dataclass(frozen=True, slots=True)
class Change:
    """Members that are online now and were not before, and the other way round."""

    online: tuple[str, ...] = ()
    offline: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.online or self.offline)


class Roster:
    """One mesh, as one broker sees it: its own connections, and those that other brokers hold.

    A member that is not visible is offline for all others, wherever it is connected.
    """

    def __init__(self, broker_id: str) -> None:
        self._own = broker_id
        # The brokers at which a member is connected.
        self._places: dict[str, set[str]] = {}
        self._hidden: set[str] = set()
        self._told: set[str] = set()
        # Members whose state may be another than what was told.
        self._open: set[str] = set()
        # Members of this broker whose state the other brokers have not heard of.
        self._unsaid: set[str] = set()
        # Members that were heard of during a read of the database, which is older than what was heard.
        self._heard: set[str] | None = None

    @property
    def told(self) -> Set[str]:
        """Members that are online as far as it was told: the state in which a newcomer begins."""
        return self._told

    @property
    def is_changed(self) -> bool:
        """Whether there may be something to tell."""
        return bool(self._open)

    @property
    def is_unsaid(self) -> bool:
        """Whether there may be something that other brokers have to hear."""
        return bool(self._unsaid)

    def online(self) -> Set[str]:
        """Return the members that others see as online, by the newest that is known."""
        return self._places.keys() - self._hidden

    # What happens at this broker.

    def arrive(self, member_id: str, *, visible: bool) -> None:
        """A member is connected here."""
        self._note(member_id)
        self._set_hidden(member_id, hidden=not visible)
        self._put(self._own, member_id)
        self._unsaid.add(member_id)

    def leave(self, member_id: str) -> None:
        """A member's last connection here has gone."""
        if self._own in self._places.get(member_id, ()):
            self._note(member_id)
            self._drop(self._own, member_id)
            self._unsaid.add(member_id)

    def show(self, member_id: str, *, visible: bool) -> None:
        """A member that is connected here has changed whether it is seen."""
        if self._own in self._places.get(member_id, ()):
            self._note(member_id)
            self._set_hidden(member_id, hidden=not visible)
            self._unsaid.add(member_id)

    # What is heard of other brokers.

    def hear(self, broker_id: str, leases: Iterable[Lease], gone: Iterable[str]) -> None:
        """Another broker says who came or is seen otherwise than before, and who went."""
        for lease in leases:
            self._note(lease.member_id)
            self._set_hidden(lease.member_id, hidden=not lease.visible)
            self._put(broker_id, lease.member_id)
        for member_id in gone:
            self._note(member_id)
            self._drop(broker_id, member_id)

    def moves(self, broker_id: str, member_id: str) -> None:
        """A member's connection here is replaced by one at another broker."""
        self._note(member_id)
        self._put(broker_id, member_id)

    def begin_read(self) -> None:
        """The leases are about to be read: what is heard from now on is newer."""
        self._heard = set()

    def read(self, leases: Sequence[Lease]) -> None:
        """Take over what the database says about other brokers, and who wants to be seen."""
        newer, self._heard = self._heard or set(), None
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

    # What is told.

    def take(self) -> Change:
        """Return what has changed since the last call; it counts as told."""
        online, offline = [], []
        for member_id in self._open:
            shown = self._shows(member_id)
            if shown and member_id not in self._told:
                online.append(member_id)
            elif not shown and member_id in self._told:
                offline.append(member_id)
        self._told.update(online)
        self._told.difference_update(offline)
        self._open.clear()
        return Change(tuple(sorted(online)), tuple(sorted(offline)))

    def take_unsaid(self) -> tuple[Sequence[Lease], Sequence[str]]:
        """Return what other brokers have to hear of this one: who is here, and who has gone."""
        unsaid, self._unsaid = sorted(self._unsaid), set()
        here = [
            Lease(self._own, member_id, member_id not in self._hidden)
            for member_id in unsaid
            if self._own in self._places.get(member_id, ())
        ]
        present = {lease.member_id for lease in here}
        return here, [member_id for member_id in unsaid if member_id not in present]

    def _shows(self, member_id: str) -> bool:
        return member_id in self._places and member_id not in self._hidden

    def _note(self, member_id: str) -> None:
        if self._heard is not None:
            self._heard.add(member_id)

    def _put(self, broker_id: str, member_id: str) -> None:
        places = self._places.setdefault(member_id, set())
        if broker_id not in places:
            places.add(broker_id)
            self._open.add(member_id)

    def _drop(self, broker_id: str, member_id: str) -> None:
        places = self._places.get(member_id)
        if places is None or broker_id not in places:
            return
        places.discard(broker_id)
        self._open.add(member_id)
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
        self._open.add(member_id)
