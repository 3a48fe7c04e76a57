"""A link that drops, doubles, delays and cuts on a named frame: the contract holds all the same."""

from __future__ import annotations

import json
import random
from collections.abc import Generator

import pytest

from tests.support.audit import assert_contract
from tests.support.processes import Daemon, Mesh, mesh
from tests.support.proxy import CUT, CUT_AFTER, DOUBLE, DROP, Rules, proxy

COUNT = 8


@pytest.fixture(scope="module")
def running() -> Generator[Mesh]:
    """A broker, alice and bob; each test puts a proxy into their way."""
    with mesh("alice", "bob", start=False, front=True) as made:
        yield made


def dial(daemon: Daemon, port: int) -> None:
    """Let a daemon reach its broker by another port."""
    path = daemon.root / "membership.json"
    membership = json.loads(path.read_text())
    path.write_text(json.dumps({**membership, "broker_url": f"ws://127.0.0.1:{port}"}))


def carry(running: Mesh, rules: Rules, label: str) -> None:
    """Send through the proxy and hold the outcome to the contract."""
    alice, bob = running.daemons.values()
    with proxy(running.broker.port, rules, running.broker.front_port) as port:
        for daemon in (alice, bob):
            dial(daemon, port)
            daemon.start()
        try:
            for daemon in (alice, bob):
                daemon.ready()
            ids = [f"{label}-{number}" for number in range(COUNT)]
            for client_message_id in ids:
                assert alice.send("bob", client_message_id, client_message_id=client_message_id)[0] == 202
            assert_contract(running, alice, [bob], ids)
        finally:
            for daemon in (alice, bob):
                daemon.kill()


FAULTS = [
    ("send", CUT),
    ("send", CUT_AFTER),
    ("send", DOUBLE),
    ("send_result", CUT),
    ("send_result", CUT_AFTER),
    ("send_result", DOUBLE),
    ("deliver", CUT),
    ("deliver", CUT_AFTER),
    ("deliver", DOUBLE),
    ("deliver_ack", CUT),
    ("deliver_ack", DOUBLE),
    ("hello", DROP),
    ("hello_ack", CUT),
    ("feature_negotiation_response", CUT),
]


@pytest.mark.parametrize(("kind", "action"), FAULTS)
def test_nothing_is_lost_or_doubled_when_a_frame_meets(running: Mesh, kind: str, action: str) -> None:
    """One fault on the first frame of a kind."""
    rules = Rules({(kind, 1): action})
    carry(running, rules, f"{kind}-{action}")
    assert rules.struck == [(kind, 1)]


def test_nothing_is_lost_or_doubled_by_a_seeded_sequence_of_faults(running: Mesh) -> None:
    """Several faults in one run; the seed is printed and replays it."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    kinds = ["send", "send_result", "deliver", "deliver_ack"]
    # The first frame of a kind always comes; later ones may have been put together.
    frames = [(chance.choice(kinds), 1), *((chance.choice(kinds), chance.randint(2, 6)) for _ in range(3))]
    rules = Rules({frame: chance.choice([CUT, CUT_AFTER]) for frame in frames})
    carry(running, rules, f"seed-{seed}")
    assert rules.struck
