"""Loops: two agents that thank each other end by themselves."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.inbox.store import InboxRow
from claudemesh.daemon.outbox.request import parse_send
from claudemesh.daemon.sessions.loops import MAX_TURNS, WINDOW_S, LoopGuard, Turn, next_turn
from claudemesh.daemon.sessions.waking import MAX_HOPS, Waiting, hold_of
from tests.support.clock import ManualClock
from tests.support.daemon import Person, directory_of, new_ulid, person
from tests.support.inbox import inbox_row

ALICE, BOB = person("alice"), person("bob")


def received(sender: Person, hops: int, own: str = "web", other: str = "api") -> InboxRow:
    return inbox_row(
        sender_member_id=sender.member_id,
        sender_pubkey=sender.identity.ed25519_pubkey,
        sender_name=sender.name,
        from_session=other,
        to_session=own,
        hops=hops,
    )


def test_both_hosts_end_the_same_loop_at_the_same_message(tmp_path: Path) -> None:
    """Each counts what it sends and what it receives. The one beyond the limit is held, and both say so."""
    clock = ManualClock()
    directory = directory_of(tmp_path, ALICE, BOB)
    at_alice, at_bob = LoopGuard(clock.monotonic, directory), LoopGuard(clock.monotonic, directory)
    held = []
    for hops in range(1, MAX_TURNS + 2):
        if hops % 2:
            sent = parse_send({"to": "alice/web", "message": "t", "from_session": "api", "hops": hops})
            row = received(BOB, hops, "web", "api")
            found = (at_bob.sent(sent, row.client_message_id), at_alice.received([row])[0].in_loop)
        else:
            sent = parse_send({"to": "bob/api", "message": "t", "from_session": "web", "hops": hops})
            row = received(ALICE, hops, "api", "web")
            found = (at_alice.sent(sent, row.client_message_id), at_bob.received([row])[0].in_loop)
        held.append(found)
        clock.advance(seconds=1)
    assert held == [(False, False)] * MAX_TURNS + [(True, True)]
    clock.advance(seconds=WINDOW_S)
    assert not at_alice.received([received(BOB, 9)])[0].in_loop


def test_two_sessions_of_one_host_that_thank_each_other_end_by_themselves(tmp_path: Path) -> None:
    """A local message is received before its send is noted, and both see the same turn."""
    guard = LoopGuard(ManualClock().monotonic, directory_of(tmp_path, ALICE))
    held = []
    for hops in range(1, MAX_TURNS + 2):
        own, other = ("web", "api") if hops % 2 else ("api", "web")
        row = received(ALICE, hops, own, other)
        sent = parse_send({"to": f"alice/{own}", "message": "t", "from_session": other, "hops": hops})
        [marked] = guard.received([row])
        held.append((marked.in_loop, guard.sent(sent, row.client_message_id)))
    assert held == [(False, False)] * MAX_TURNS + [(True, True)]


def test_three_sessions_that_thank_each_other_in_a_ring_end_by_themselves(tmp_path: Path) -> None:
    """Each pair has its turns, and the hops are bounded over any number of sessions."""
    names = ("api", "web", "db")
    guard = LoopGuard(ManualClock().monotonic, directory_of(tmp_path, ALICE))
    woken = 0
    for hops in range(1, 60):
        row = received(ALICE, hops, names[hops % 3], names[(hops - 1) % 3])
        [marked] = guard.received([row])
        wakes = hold_of(Waiting(id="m", trust="wake", size=1, hops=hops, in_loop=marked.in_loop)) is None
        assert not wakes or woken == hops - 1
        woken += wakes
    assert woken == min(3 * MAX_TURNS, MAX_HOPS)


def test_messages_of_persons_and_of_other_sessions_are_not_counted(tmp_path: Path) -> None:
    """A person may write as often as she likes, and a loop of two sessions holds no third one."""
    guard = LoopGuard(ManualClock().monotonic, directory_of(tmp_path, ALICE, BOB))
    assert not any(row.in_loop for row in guard.received([received(BOB, 0)] * 20))
    assert guard.received([received(BOB, 1) for _ in range(MAX_TURNS + 1)])[-1].in_loop
    assert not guard.received([received(BOB, 0)])[0].in_loop
    assert not guard.received([received(BOB, 1, other="ops")])[0].in_loop


def test_a_repeated_delivery_is_no_further_turn(tmp_path: Path) -> None:
    """The broker repeats a delivery without an acknowledgement."""
    guard = LoopGuard(ManualClock().monotonic, directory_of(tmp_path, ALICE, BOB))
    row = received(BOB, 1)
    assert not any(one.in_loop for one in guard.received([row] * 20))
    again = msgspec.structs.replace(row, client_message_id=new_ulid())
    assert not guard.received([again])[0].in_loop


@given(gaps=st.lists(st.floats(0, 300), min_size=1, max_size=60))
def test_no_ten_minutes_have_more_than_six_turns(gaps: list[float]) -> None:
    """At any rate of messages; and what is kept of them is bounded."""
    now, turns, free = 0.0, list[Turn](), list[float]()
    for number, gap in enumerate(gaps):
        now += gap
        turns = list(next_turn(turns, str(number), now))
        if not turns[-1].is_beyond:
            free.append(now)
        assert len(turns) < 30
    for at in free:
        assert sum(at <= one < at + WINDOW_S for one in free) <= MAX_TURNS
