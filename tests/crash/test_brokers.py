"""Three brokers on one Postgres behind a balancer, restarted in turn and killed in the middle of traffic."""

from __future__ import annotations

import threading
from collections.abc import Generator
from itertools import count

import pytest

from tests.support.audit import assert_contract
from tests.support.fleet import Fleet, fleet
from tests.support.processes import until

CALLERS = 4


@pytest.fixture(scope="module", name="fleet")
def three_brokers() -> Generator[Fleet]:
    """Alice, bob and carol, connected to whichever of the three answered."""
    with fleet(3, "alice", "bob", "carol") as made:
        yield made


class Traffic:
    """Callers that send all the time, dms and posts, and remember what was acknowledged."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._alice = fleet.mesh.daemons["alice"]
        self._name = name
        self._stop = threading.Event()
        self.ids: list[list[str]] = [[] for _ in range(CALLERS)]
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CALLERS)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def sent(self) -> list[str]:
        return [client_message_id for ids in self.ids for client_message_id in ids]

    def _send(self, caller: int) -> None:
        for number in count():
            client_message_id = f"{self._name}-{caller}-{number}"
            send = self._alice.post if number % 4 == 0 else self._alice.send
            status, _ = send("all" if number % 4 == 0 else "bob", "text", client_message_id=client_message_id)
            assert status in (200, 202)
            self.ids[caller].append(client_message_id)
            # As long as the restarts take, more slowly when they take long.
            if self._stop.wait(0.02 if number < 400 else 0.2):
                return


def test_three_brokers_restarted_in_turn_lose_and_double_nothing(fleet: Fleet) -> None:
    """SIGTERM drains each with 4006; its daemons go to another at once."""
    alice, bob = fleet.mesh.daemons["alice"], fleet.mesh.daemons["bob"]
    with Traffic(fleet, "rolling") as traffic:
        for broker in fleet.brokers:
            before = len(traffic.sent)
            assert broker.stop() == 0
            until(lambda before=before: len(traffic.sent) > before + 10, "sends go on")  # type: ignore[misc]
            broker.start()
            broker.ready()
    assert_contract(fleet.mesh, alice, [bob], traffic.sent)


def test_two_of_three_brokers_killed_in_traffic_lose_and_double_nothing(fleet: Fleet) -> None:
    """SIGKILL, one after the other: the third broker serves all members until they are back."""
    alice, bob = fleet.mesh.daemons["alice"], fleet.mesh.daemons["bob"]
    with Traffic(fleet, "killed") as traffic:
        for broker in fleet.brokers[:2]:
            before = len(traffic.sent)
            broker.kill()
            until(lambda before=before: len(traffic.sent) > before + 20, "sends go on")  # type: ignore[misc]
        for daemon in fleet.mesh.daemons.values():
            daemon.ready()
        for broker in fleet.brokers[:2]:
            broker.start()
            broker.ready()
    assert_contract(fleet.mesh, alice, [bob], traffic.sent)
