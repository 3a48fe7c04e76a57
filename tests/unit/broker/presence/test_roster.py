"""The roster: all that it tells, put together, is the list of the online members."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from claudemesh.broker.presence.roster import Change, Roster
from claudemesh.broker.store.types import Lease

MEMBERS = st.sampled_from(["ada", "bob", "cleo", "dan"])
BROKERS = st.sampled_from(["two", "three"])


def test_coming_and_going_between_two_calls_is_no_change() -> None:
    """A link that broke for a moment is not worth a word."""
    roster = Roster("one")
    roster.arrive("ada", visible=True)
    assert roster.take() == Change(online=("ada",))
    roster.leave("ada")
    roster.arrive("ada", visible=True)
    assert roster.take() == Change()


def test_an_invisible_member_is_offline_until_it_shows_itself() -> None:
    """Wherever it is connected, and however often."""
    roster = Roster("one")
    roster.arrive("ada", visible=False)
    roster.apply("two", [Lease("two", "ada", False)], [])
    assert (roster.take(), roster.online()) == (Change(), set())
    roster.show("ada", visible=True)
    assert (roster.take(), roster.online()) == (Change(online=("ada",)), {"ada"})
    roster.show("ada", visible=False)
    assert roster.take() == Change(offline=("ada",))


def test_a_member_is_online_until_its_last_broker_says_that_it_has_gone() -> None:
    """Three brokers: what one of them says concerns its own connections only."""
    roster = Roster("one")
    roster.apply("two", [Lease("two", "ada", True)], [])
    roster.apply("three", [Lease("three", "ada", True)], [])
    roster.take()
    roster.apply("two", [], ["ada"])
    assert roster.take() == Change()
    roster.apply("three", [], ["ada"])
    assert roster.take() == Change(offline=("ada",))


def test_a_broker_that_died_is_noticed_by_a_read() -> None:
    """It says nothing more; its leases end. The own connections are not the database's to end."""
    roster = Roster("one")
    roster.arrive("bob", visible=True)
    roster.apply("two", [Lease("two", "ada", True)], [])
    roster.take()
    roster.begin_read()
    roster.read([])
    assert roster.take() == Change(offline=("ada",))


def test_what_is_heard_during_a_read_is_newer_than_the_read() -> None:
    """Else a member that went meanwhile would be back for two seconds."""
    roster = Roster("one")
    roster.apply("two", [Lease("two", "ada", True)], [])
    roster.begin_read()
    roster.apply("two", [], ["ada"])
    roster.apply("two", [Lease("two", "bob", True)], [])
    roster.read([Lease("two", "ada", True)])
    assert roster.take() == Change(online=("bob",))


def test_other_brokers_hear_of_the_own_connections_only() -> None:
    """And of the invisible ones too, so that they know whom to hide."""
    roster = Roster("one")
    roster.arrive("ada", visible=True)
    roster.arrive("bob", visible=False)
    roster.apply("two", [Lease("two", "cleo", True)], [])
    assert roster.take_unpublished() == ([Lease("one", "ada", True), Lease("one", "bob", False)], [])
    roster.leave("ada")
    assert roster.take_unpublished() == ([], ["ada"])
    assert not roster.has_unpublished


class Replay(RuleBasedStateMachine):
    """For any order of events: a reader that has the first event and each change knows the complete state."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster("one")
        self.places: dict[str, set[str]] = {}
        self.hidden: set[str] = set()
        # Listeners, each with what it believes; another begins with each `join`.
        self.believed: list[set[str]] = [set()]

    def truth(self) -> set[str]:
        """Return the members that are online."""
        return {member for member, places in self.places.items() if places} - self.hidden

    @rule(member=MEMBERS, visible=st.booleans())
    def arrive(self, member: str, visible: bool) -> None:
        """A connection here."""
        self.roster.arrive(member, visible=visible)
        self.places.setdefault(member, set()).add("one")
        self._hide(member, visible)

    @rule(member=MEMBERS)
    def leave(self, member: str) -> None:
        """The last connection here ends."""
        self.roster.leave(member)
        self._gone("one", member)

    @rule(member=MEMBERS, visible=st.booleans())
    def show(self, member: str, visible: bool) -> None:
        """The profile changes."""
        self.roster.show(member, visible=visible)
        if "one" in self.places.get(member, ()):
            self._hide(member, visible)

    @rule(broker=BROKERS, member=MEMBERS, visible=st.booleans())
    def elsewhere(self, broker: str, member: str, visible: bool) -> None:
        """A connection at another broker."""
        self.roster.apply(broker, [Lease(broker, member, visible)], [])
        self.places.setdefault(member, set()).add(broker)
        self._hide(member, visible)

    @rule(broker=BROKERS, member=MEMBERS)
    def gone(self, broker: str, member: str) -> None:
        """It ends."""
        self.roster.apply(broker, [], [member])
        self._gone(broker, member)

    @rule(broker=BROKERS)
    def died(self, broker: str) -> None:
        """A broker's leases are over, and a read finds that."""
        leases = [
            Lease(place, member, member not in self.hidden)
            for member, places in self.places.items()
            for place in places - {broker}
        ]
        self.roster.begin_read()
        self.roster.read(leases)
        for member in list(self.places):
            self._gone(broker, member)

    @rule()
    def join(self) -> None:
        """A newcomer begins with what was told so far."""
        self.believed.append(set(self.roster.announced))

    @rule()
    def tell(self) -> None:
        """Send the changes to all readers, which then know the true state."""
        change = self.roster.take()
        assert not set(change.online) & set(change.offline)
        for believed in self.believed:
            assert not believed & set(change.online), "nobody is told what it knows"
            assert set(change.offline) <= believed
            believed |= set(change.online)
            believed -= set(change.offline)
            assert believed == self.truth()

    @invariant()
    def asked(self) -> None:
        """A reader that asks gets the newest known state."""
        assert self.roster.online() == self.truth()

    def _hide(self, member: str, visible: bool) -> None:
        if visible:
            self.hidden.discard(member)
        else:
            self.hidden.add(member)

    def _gone(self, broker: str, member: str) -> None:
        self.places.get(member, set()).discard(broker)
        if not self.places.get(member):
            self.hidden.discard(member)


TestReplay = Replay.TestCase
TestReplay.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
