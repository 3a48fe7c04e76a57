"""Leases: last-seen entries that are merged, and leases of other brokers that a new connection replaces."""

from __future__ import annotations

from claudemesh.broker.connections.clone_policy import CloneVerdict
from claudemesh.broker.presence.leases import Elsewhere, newest_of
from claudemesh.broker.store.types import PresenceRow, Seen


def test_the_newest_entry_of_a_member_keeps_the_newest_host_that_was_named() -> None:
    entries = [Seen("m", "ada", 1, b"x"), Seen("m", "bob", 2, None), Seen("m", "ada", 3, None)]
    assert newest_of(entries) == [Seen("m", "ada", 3, b"x"), Seen("m", "bob", 2, None)]
    assert newest_of([*entries, Seen("m", "ada", 4, b"y")])[0] == Seen("m", "ada", 4, b"y")


def test_a_newcomer_replaces_all_or_the_rest_of_its_own_instance() -> None:
    rows = tuple(PresenceRow(f"c{n}", "ada", "m", "two", 1, 2, instance) for n, instance in enumerate("ab"))
    elsewhere = Elsewhere(rows, others=1)
    assert elsewhere.to_replace(CloneVerdict.REPLACE, "a") == rows
    assert elsewhere.to_replace(CloneVerdict.ADMIT, "a") == rows[:1]
    assert elsewhere.to_replace(CloneVerdict.ADMIT, "c") == ()
