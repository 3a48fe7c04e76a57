"""Chains of automatic answers, as an agent's session counts them."""

from __future__ import annotations

from claudemesh.cli.mcp.chain import Chain


def test_an_answer_has_one_hop_more_than_its_message() -> None:
    """A message in no answer to anything is that of a person, unless messages were shown lately."""
    now = [0.0]
    chain = Chain(lambda: now[0])
    assert chain.hops(None) == 0
    assert chain.hops({"hops": 4}) == 5
    chain.shown([{"hops": 2}, {"hops": 0}])
    assert chain.hops(None) == 3
    assert chain.hops({"hops": 0}) == 1
    assert chain.hops({"hops": 255}) == 255
    now[0] = 601.0
    assert chain.hops(None) == 0
