"""The address of the broker while the mesh moves: which one is dialled next, and when a new one is kept."""

from __future__ import annotations

from claudemesh.daemon.address import BrokerAddress, Move

OLD, NEW = "ws://old.lan", "wss://new.lan"
MOVE = Move(NEW, 7)


def made(kept: list[Move]) -> BrokerAddress:
    """An address that writes its moves into a list."""
    return BrokerAddress(OLD, keep=kept.append)


async def test_a_new_address_is_kept_when_a_session_has_opened_there() -> None:
    """Before that it is only tried."""
    kept: list[Move] = []
    address = made(kept)
    outcome = address.propose(MOVE)
    assert (address.begin(), address.dialled, address.url, kept) == (True, NEW, OLD, [])
    address.opened()
    assert (address.url, address.moved_at_ms, kept, await outcome) == (NEW, 7, [MOVE], None)
    assert (address.begin(), address.dialled) == (False, NEW)


async def test_a_new_address_that_fails_is_left_for_the_present_one() -> None:
    """Once: a link that opens at the present one stays there until the new one is proposed again."""
    kept: list[Move] = []
    address = made(kept)
    outcome = address.propose(MOVE)
    assert address.begin()
    address.failed("nobody answers")
    assert await outcome == "nobody answers"
    assert (address.begin(), address.dialled) == (False, OLD)
    address.opened()
    assert (address.begin(), address.dialled, kept) == (False, OLD, [])


async def test_the_new_address_is_tried_in_turn_when_the_present_one_has_gone() -> None:
    """A host that was told of the new address finds it although the old one is switched off."""
    kept: list[Move] = []
    address = made(kept)
    address.remember(MOVE)
    dialled = []
    for _ in range(4):
        address.begin()
        dialled.append(address.dialled)
        address.failed("nobody answers")
    assert dialled == [OLD, NEW, OLD, NEW]
    address.begin()
    address.failed("nobody answers")
    assert address.begin()
    address.opened()
    assert kept == [MOVE]


async def test_a_proposal_during_an_attempt_is_for_the_next_one() -> None:
    """The session that opens belongs to the address that was dialled."""
    kept: list[Move] = []
    address = made(kept)
    assert not address.begin()
    address.propose(MOVE)
    assert address.dialled == OLD
    address.opened()
    assert (address.url, kept) == (OLD, [])


async def test_a_newer_proposal_ends_the_wait_for_an_older_one() -> None:
    """Nothing waits for an address that is not tried any more."""
    address = made([])
    first = address.propose(MOVE)
    address.propose(Move("wss://newer.lan", 8))
    assert await first == "another address was stated meanwhile"
    assert address.begin()
    assert address.dialled == "wss://newer.lan"
