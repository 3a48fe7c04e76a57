"""The plan of a run: the same seed gives the same schedule, and each kind has its turn."""

from __future__ import annotations

from itertools import combinations

import pytest

from tortures.plan import BROKERS, KINDS, SERVER, Fault, Shape, plan

EMBEDDED = Shape(("alice", "bob", "carol"), ("broker1",), postgres=False)
SEVERAL = Shape(("alice", "bob", "carol"), ("broker1", "broker2"), postgres=True)
SEEDS = range(40)


@pytest.mark.parametrize("shape", [EMBEDDED, SEVERAL])
def test_a_seed_replays_its_schedule(shape: Shape) -> None:
    """In any order of the named kinds."""
    kinds = list(KINDS)
    for seed in SEEDS:
        assert plan(seed, 5, kinds, shape) == plan(seed, 5, kinds[::-1], shape)


def test_seeds_differ() -> None:
    """Another seed is another schedule."""
    assert len({plan(seed, 5, list(KINDS), SEVERAL) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("shape", [EMBEDDED, SEVERAL])
def test_every_kind_has_its_turn_before_any_has_its_second(shape: Shape) -> None:
    """A kind without a target in this cluster is left out."""
    possible = set(KINDS) - (set() if shape.postgres else {"postgres"})
    for seed in SEEDS:
        names = [fault.kind for fault in plan(seed, 10, list(KINDS), shape)]
        assert set(names[: len(possible)]) == possible


@pytest.mark.parametrize("shape", [EMBEDDED, SEVERAL])
def test_a_schedule_is_in_order_within_its_time_and_never_strikes_a_target_twice_at_once(
    shape: Shape,
) -> None:
    """Faults of all brokers exclude those of one of them."""
    for seed in SEEDS:
        faults = plan(seed, 5, list(KINDS), shape)
        assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
        assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
        for one, two in combinations(faults, 2):
            if _same(one, two, shape):
                assert two.at_s >= one.at_s + one.length_s, (seed, one, two)


def _same(one: Fault, two: Fault, shape: Shape) -> bool:
    whole = {BROKERS, SERVER}
    ours = whole | set(shape.brokers)
    both = {one.target, two.target}
    return one.target == two.target or (both <= ours and bool(both & whole))


def test_no_disk_of_a_broker_on_postgres_is_failed() -> None:
    """It has no data of its own."""
    for seed in SEEDS:
        struck = {fault.target for fault in plan(seed, 5, ["disk_full", "eio"], SEVERAL)}
        assert struck <= set(SEVERAL.daemons)


def test_only_what_was_asked_for_is_drawn() -> None:
    """`--only` makes a finding attributable."""
    for seed in SEEDS:
        assert {fault.kind for fault in plan(seed, 3, ["kill", "pause"], EMBEDDED)} == {"kill", "pause"}
    assert plan(1, 3, [], EMBEDDED) == ()
    assert plan(1, 3, ["postgres"], EMBEDDED) == ()
