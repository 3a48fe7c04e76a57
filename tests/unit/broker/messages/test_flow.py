"""The flow of deliveries on one connection, as plain decisions."""

from __future__ import annotations

import random

from claudemesh.broker.connections.open_connection import Push
from claudemesh.broker.messages.flow import Flow
from claudemesh.protocol.frames import DeliverySender, deliver_tail

LOW, NORMAL, URGENT = 2, 1, 0


def push(delivery_id: int, priority: int = NORMAL, size: int = 10) -> Push:
    return Push(delivery_id, priority, "x" * size)


def caught_up(window: int = 256) -> Flow:
    flow = Flow(window)
    flow.open()
    assert flow.plan_read() == frozenset()
    flow.loaded([], complete=True)
    return flow


def take_all(flow: Flow) -> list[int]:
    taken = []
    while (item := flow.take()) is not None:
        taken.append(item.delivery_id)
    return taken


def test_nothing_is_read_before_the_connection_is_open() -> None:
    """Deliveries begin only after feature negotiation."""
    flow = Flow(256)
    flow.offer(push(1))
    assert flow.plan_read() is None
    assert take_all(flow) == []


def test_what_is_owed_is_read_first_and_only_once_at_a_time() -> None:
    """Opening asks for one read; another is not begun while it runs."""
    flow = Flow(256)
    flow.open()
    assert flow.plan_read() == frozenset()
    assert flow.plan_read() is None
    flow.loaded([push(1), push(2)], complete=True)
    assert take_all(flow) == [1, 2]
    assert flow.plan_read() is None


def test_a_live_push_needs_no_read() -> None:
    """A connection that is caught up gets what is committed from memory."""
    flow = caught_up()
    flow.offer(push(5))
    assert take_all(flow) == [5]
    assert flow.plan_read() is None


def test_the_window_bounds_what_is_unacknowledged() -> None:
    """At most 256 unacknowledged on a connection; an ack lets the next one go."""
    flow = caught_up(window=256)
    for number in range(300):
        flow.offer(push(number))
    assert take_all(flow) == list(range(256))
    flow.acknowledge((0, 1))
    assert take_all(flow) == [256, 257]


def test_urgent_deliveries_overtake_those_that_wait() -> None:
    """Oldest first within a priority, now before next before low."""
    flow = caught_up(window=1)
    flow.offer(push(1))
    assert take_all(flow) == [1]
    for number, priority in ((2, LOW), (3, NORMAL), (4, URGENT), (5, URGENT)):
        flow.offer(push(number, priority))
    order: list[int] = []
    for _ in range(4):
        flow.acknowledge([*order[-1:], 1])
        order += take_all(flow)
    assert order == [4, 5, 3, 2]


def test_memory_is_bounded_in_rows_and_the_rest_is_read_later() -> None:
    """Past its bound the memory is dropped; the store still has everything."""
    flow = caught_up(window=1)
    for number in range(1, 1100):
        flow.offer(push(number))
        take_all(flow) if number == 1 else None
    assert repr(flow) == "<Flow behind: 1 unacked, 0 queued>"
    assert flow.plan_read() is None, "there is no room in the window yet"
    flow.acknowledge((1,))
    assert flow.plan_read() == frozenset({1})


def test_memory_is_bounded_in_bytes() -> None:
    """A few large messages fill the memory as well."""
    flow = caught_up(window=1)
    for number in range(1, 9):
        flow.offer(push(number, size=1 << 20))
        take_all(flow) if number == 1 else None
    assert repr(flow).startswith("<Flow behind: 1 unacked")


def test_a_commit_during_a_read_is_not_lost() -> None:
    """No lost wake-up: what the read did not see is kept and sent after it."""
    flow = Flow(256)
    flow.open()
    flow.plan_read()
    flow.offer(push(2))
    flow.loaded([push(1)], complete=True)
    assert take_all(flow) == [1, 2]
    assert flow.plan_read() is None


def test_a_commit_that_a_read_saw_too_is_sent_once() -> None:
    """The read and the push may both bring a row."""
    flow = Flow(256)
    flow.open()
    flow.plan_read()
    flow.offer(push(1))
    flow.loaded([push(1)], complete=True)
    assert take_all(flow) == [1]


def test_an_incomplete_read_is_continued_when_its_rows_are_gone() -> None:
    """Reading goes on where it stopped, without the rows that are on their way."""
    flow = Flow(256)
    flow.open()
    flow.plan_read()
    flow.loaded([push(1), push(2)], complete=False)
    assert flow.plan_read() is None
    assert take_all(flow) == [1, 2]
    assert flow.plan_read() == frozenset({1, 2})


def test_rows_whose_ack_is_on_its_way_are_not_read_again() -> None:
    """Between an ack and its commit the row is still in the store, and is left out."""
    flow = caught_up(window=1)
    flow.offer(push(1))
    take_all(flow)
    flow.acknowledge((1,))
    flow.offer(push(1))
    assert take_all(flow) == []
    flow.settle((1,), committed=True)
    assert flow.acking == 0


def test_an_ack_that_failed_brings_the_delivery_back() -> None:
    """An ack that the store did not take is as if it had never come."""
    flow = caught_up()
    flow.offer(push(1))
    take_all(flow)
    flow.acknowledge((1,))
    flow.settle((1,), committed=False)
    assert flow.plan_read() == frozenset()
    flow.loaded([push(1)], complete=True)
    assert take_all(flow) == [1]


def test_an_ack_that_fails_during_a_read_makes_it_incomplete() -> None:
    """The read left the row out, so another one must follow."""
    flow = Flow(256)
    flow.open()
    flow.plan_read()
    flow.loaded([push(1)], complete=False)
    take_all(flow)
    flow.acknowledge((1,))
    flow.plan_read()
    flow.settle((1,), committed=False)
    flow.loaded([], complete=True)
    assert flow.plan_read() == frozenset()


def test_a_failed_read_is_repeated() -> None:
    """A store that did not answer is asked again."""
    flow = Flow(256)
    flow.open()
    flow.plan_read()
    flow.read_failed()
    assert flow.plan_read() == frozenset()


def test_every_row_is_sent_whatever_the_interleaving() -> None:
    """Random commits, reads, acks and failed acks: at the end everything was sent and acknowledged."""
    for seed in range(150):
        History(random.Random(seed)).run()


class History:
    """One connection against a model of the store: a set of owed ids."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.flow = Flow(window=chance.choice((1, 3, 8)))
        self.owed: dict[int, None] = {}
        self.sent: set[int] = set()
        self.unacked: list[int] = []
        self.acking: list[int] = []
        self.snapshot: list[Push] | None = None
        self.next_id = 1

    def run(self) -> None:
        self.flow.open()
        steps = (self.commit, self.commit, self.read, self.finish_read, self.ack, self.settle)
        for _ in range(300):
            self.chance.choice(steps)()
            self.send()
        for _ in range(400):
            for step in (self.read, self.finish_read, self.ack, self.settle_well):
                step()
                self.send()
        assert not self.owed
        assert self.sent == set(range(1, self.next_id))

    def commit(self) -> None:
        self.owed[self.next_id] = None
        self.flow.offer(push(self.next_id))
        self.next_id += 1

    def read(self) -> None:
        exclude = self.flow.plan_read()
        if exclude is not None:
            found = [push(number) for number in self.owed if number not in exclude]
            self.snapshot, self.complete = found[:4], len(found) < 4

    def finish_read(self) -> None:
        if self.snapshot is not None:
            self.flow.loaded(self.snapshot, self.complete)
            self.snapshot = None

    def send(self) -> None:
        for number in take_all(self.flow):
            assert number in self.owed
            self.sent.add(number)
            self.unacked.append(number)

    def ack(self) -> None:
        if self.unacked:
            number = self.unacked.pop(0)
            self.flow.acknowledge((number,))
            self.acking.append(number)

    def settle(self) -> None:
        if self.acking:
            self._settle(self.chance.random() < 0.8)

    def settle_well(self) -> None:
        if self.acking:
            self._settle(True)

    def _settle(self, committed: bool) -> None:
        number = self.acking.pop(0)
        if committed:
            self.owed.pop(number, None)
        self.flow.settle((number,), committed=committed)


def test_a_frame_carries_the_stored_envelope_byte_for_byte() -> None:
    """The envelope goes out as it was stored; only the delivery_id differs between recipients."""
    tail = deliver_tail(
        broker_message_id="01",
        history_id=3,
        sender=DeliverySender("m", "ada", "ab"),
        accepted_at=4,
        envelope=b'{"v": 1}',
    )
    assert Push(7, 0, tail).frame() == (
        '{"type":"deliver","delivery_id":7,"broker_message_id":"01","history_id":3,'
        '"sender":{"member_id":"m","name":"ada","pubkey":"ab"},"accepted_at":4,"envelope":{"v": 1}}'
    )
