"""The short authentication string: the same on both hosts, another for any other key."""

from __future__ import annotations

import re

from claudemesh.protocol.comparing import ComparedKeys, short_string

MESH_ID = "01899e2d-0000-7000-8000-000000000001"
ALICE, BOB = ComparedKeys("a" * 64, "b" * 64), ComparedKeys("c" * 64, "d" * 64)


def test_both_members_see_the_same_twelve_digits() -> None:
    digits = short_string(MESH_ID, ALICE, BOB)
    assert digits == short_string(MESH_ID, BOB, ALICE)
    assert re.fullmatch(r"\d{4} \d{4} \d{4}", digits)


def test_every_key_and_the_mesh_change_the_digits() -> None:
    digits = short_string(MESH_ID, ALICE, BOB)
    others = [
        short_string("another", ALICE, BOB),
        short_string(MESH_ID, ALICE._replace(ed25519_pubkey="e" * 64), BOB),
        short_string(MESH_ID, ALICE._replace(x25519_pubkey="e" * 64), BOB),
        short_string(MESH_ID, ALICE, BOB._replace(ed25519_pubkey="e" * 64)),
        short_string(MESH_ID, ALICE, BOB._replace(x25519_pubkey="e" * 64)),
    ]
    assert len({digits, *others}) == 6


def test_the_digits_are_reproduced_by_every_implementation() -> None:
    assert short_string(MESH_ID, ALICE, BOB) == "6209 3356 9046"
