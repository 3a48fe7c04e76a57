"""Strangers give way to strangers, and never take a place of a member."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.runtime.crowd import Caps, Crowd, address_key

CAPS = Caps(members=10, strangers=6, strangers_per_address=3, settle_s=1.0)


def filled(*addresses: str, at: float = 0.0) -> Crowd[int]:
    crowd: Crowd[int] = Crowd(CAPS)
    for number, address in enumerate(addresses):
        assert not crowd.enter(number, address, at).refused
    return crowd


def test_an_address_that_is_full_lets_its_oldest_go() -> None:
    crowd = filled("a", "a", "a", "b")
    verdict = crowd.enter(9, "a", 2.0)
    assert (verdict.leaves, verdict.limit) == (0, "strangers_per_address")
    assert (crowd.of("a"), crowd.of("b")) == (3, 1)


def test_those_that_have_just_come_may_finish() -> None:
    """A storm of members behind one address: if each newcomer pushed one out, none would get in."""
    crowd = filled("a", "a", "a")
    assert crowd.enter(9, "a", 0.5).refused
    assert crowd.of("a") == 3


def test_a_full_house_lets_the_oldest_go_of_the_address_that_has_most() -> None:
    """However new it is: another address is not kept out by it."""
    crowd = filled("a", "a", "a", "b", "b", "c")
    verdict = crowd.enter(9, "d", 0.0)
    assert (verdict.leaves, verdict.limit) == (0, "strangers")
    assert crowd.of("d") == 1


def test_among_equals_the_oldest_goes_when_it_has_had_its_time() -> None:
    crowd = filled("a", "b", "c", "d", "e", "f")
    assert crowd.enter(9, "g", 0.5).refused
    assert crowd.enter(9, "g", 1.5).leaves is not None


def test_members_are_no_strangers() -> None:
    crowd = filled("a", "a", "a")
    for number in range(3):
        crowd.admit(number)
    assert (crowd.members, crowd.strangers) == (3, 0)
    assert not crowd.enter(9, "a", 0.0).refused
    crowd.leave(0)
    crowd.leave(9)
    assert (crowd.members, crowd.strangers) == (2, 0)


def test_a_connection_is_counted_under_the_address_that_its_proxy_names() -> None:
    crowd = filled("a", "a", "a", "proxy")
    assert crowd.move(3, "a", 0.0).refused
    assert crowd.strangers == 3
    crowd.enter(4, "proxy", 0.0)
    assert not crowd.move(4, "b", 0.0).refused
    assert (crowd.of("proxy"), crowd.of("b")) == (0, 1)


steps_of_a_crowd = st.tuples(
    st.sampled_from(["enter", "admit", "leave", "move"]), st.integers(0, 20), st.integers(0, 4)
)


@given(st.lists(steps_of_a_crowd, max_size=200))
def test_no_cap_is_ever_passed(steps: list[tuple[str, int, int]]) -> None:
    """For any order of events; connections that have left are removed."""
    crowd: Crowd[int] = Crowd(CAPS)
    inside: set[int] = set()
    for now, (step, number, address) in enumerate(steps):
        if step == "enter" and number not in inside:
            verdict = crowd.enter(number, str(address), now / 4)
            inside.discard(verdict.leaves)  # type: ignore[arg-type]
            if not verdict.refused:
                inside.add(number)
        elif step == "move" and number in inside:
            verdict = crowd.move(number, str(address), now / 4)
            inside.discard(verdict.leaves)  # type: ignore[arg-type]
            if verdict.refused:
                inside.discard(number)
        elif step == "admit":
            crowd.admit(number)
        elif step == "leave":
            crowd.leave(number)
            inside.discard(number)
        assert crowd.strangers <= CAPS.strangers
        assert all(crowd.of(str(each)) <= CAPS.strangers_per_address for each in range(5))
        assert crowd.strangers + crowd.members == len(inside)


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_an_ipv6_network_counts_as_one_address(host: str, key: str) -> None:
    assert address_key(host) == key


@given(st.integers(2, 20_000))
def test_caps_fit_into_the_descriptors_that_there_are(descriptors: int) -> None:
    caps = Caps().fitted(descriptors)
    assert caps.members + caps.strangers <= max(2, descriptors)
    assert 1 <= caps.strangers_per_address <= caps.strangers
    assert caps.members >= caps.strangers
