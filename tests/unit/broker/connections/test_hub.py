"""Hub of connections: admission, leaving, and the events to other members."""

from __future__ import annotations

from dataclasses import dataclass, field

from claudemesh.broker.connections.clone_policy import CloneVerdict
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.connections.open_connection import Push
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.frames import encode_event


@dataclass(eq=False)
class Recorder:
    """A connection that only remembers what it was asked to do."""

    member_id: str
    instance_id: str = "i"
    connection_id: str = "c"
    mesh_id: str = "mesh"
    is_open: bool = True
    wants_presence: bool = True
    frames: list[str] = field(default_factory=list)
    pushed: list[int] = field(default_factory=list)
    closed: list[CloseCode] = field(default_factory=list)

    def put(self, frame: str) -> None:
        self.frames.append(frame)

    def refresh(self) -> None:
        self.frames.append("refresh")

    def push(self, push: Push) -> None:
        self.pushed.append(push.delivery_id)

    def close(self, code: CloseCode, detail: str = "") -> None:
        self.closed.append(code)


def test_prefer_newest_puts_the_older_out_at_once() -> None:
    """The older one is removed from the hub before its close is awaited."""
    hub = Hub(16)
    old, new = Recorder("ada", "one"), Recorder("ada", "two")
    hub.admit(old, "prefer_newest")
    admission = hub.admit(new, "prefer_newest")
    assert (admission.verdict, admission.others, admission.replaced) == (CloneVerdict.REPLACE, 1, (old,))
    assert hub.of_member("mesh", "ada") == (new,)
    assert len(hub) == 1


def test_prefer_oldest_keeps_the_older() -> None:
    """The newer one is not let in."""
    hub = Hub(16)
    old, new = Recorder("ada", "one"), Recorder("ada", "two")
    hub.admit(old, "prefer_oldest")
    assert hub.admit(new, "prefer_oldest").verdict is CloneVerdict.REFUSE
    assert hub.of_member("mesh", "ada") == (old,)
    assert not hub.leave(new)


def test_the_same_instance_replaces_its_own_broken_connection_under_every_policy() -> None:
    """A daemon that reconnects before the broker noticed the cut is no clone."""
    for policy in ("prefer_newest", "prefer_oldest", "allow_concurrent"):
        hub = Hub(16)
        broken, again = Recorder("ada", "same"), Recorder("ada", "same")
        hub.admit(broken, policy)
        admission = hub.admit(again, policy)
        assert (admission.verdict, admission.others) == (CloneVerdict.ADMIT, 0)
        assert admission.replaced == (broken,)
        assert hub.of_member("mesh", "ada") == (again,)


def test_allow_concurrent_delivers_to_both() -> None:
    """Each connection of a member receives every delivery."""
    hub = Hub(16)
    one, two = Recorder("ada", "one"), Recorder("ada", "two")
    hub.admit(one, "allow_concurrent")
    hub.admit(two, "allow_concurrent")
    hub.push("mesh", "ada", Push(7, 1, ""))
    assert one.pushed == two.pushed == [7]


def test_events_reach_open_connections_of_the_mesh_only() -> None:
    """Neither another mesh, nor the member it is about, nor one still in its handshake is told."""
    hub = Hub(16)
    told, about = Recorder("bob"), Recorder("ada")
    foreign, greeting = Recorder("eve", mesh_id="other"), Recorder("cleo", is_open=False)
    for link in (told, about, foreign, greeting):
        hub.admit(link, "prefer_newest")
    hub.broadcast("mesh", "peer_join", {"name": "ada"}, besides="ada")
    assert told.frames == [encode_event("peer_join", {"name": "ada"})]
    assert about.frames == foreign.frames == greeting.frames == []


def test_leaving_is_told_apart_from_having_been_replaced() -> None:
    """Only a connection that is still in the hub leaves it."""
    hub = Hub(16)
    link, other = Recorder("ada"), Recorder("bob")
    hub.admit(link, "prefer_newest")
    hub.admit(other, "prefer_newest")
    assert hub.online("mesh") == {"ada", "bob"}
    assert hub.leave(link)
    assert not hub.leave(link)
    assert (len(hub), list(hub), set(hub.online("mesh"))) == (1, [other], {"bob"})
    assert hub.leave(other)
    assert (len(hub), list(hub), set(hub.online("mesh"))) == (0, [], set())


def test_disconnect_closes_every_connection_of_one_member() -> None:
    """A revoked member loses all of its connections; other members keep theirs."""
    hub = Hub(16)
    one, two, other = Recorder("ada", "one"), Recorder("ada", "two"), Recorder("bob")
    for link in (one, two, other):
        hub.admit(link, "allow_concurrent")
    hub.disconnect("mesh", "ada", CloseCode.REVOKED)
    assert (one.closed, two.closed, other.closed) == ([CloseCode.REVOKED], [CloseCode.REVOKED], [])
