"""Chains of rotations (docs/spec/protocol.md, Keys of members)."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.keys import Identity, new_identity
from claudemesh.protocol.rotation import MAX_STATEMENTS, Rotation, make_rotation, proven_chain
from tests.support.values import replace
from tests.support.wspeer import make_identity

MESH_ID = "01899e2d-0000-7000-8000-000000000001"
GOLDEN = Path(__file__).parents[2] / "vectors" / "rotation.json"


def chain_of(*identities: Identity) -> list[Rotation]:
    pairs = itertools.pairwise(identities)
    return [
        make_rotation(old, new, mesh_id=MESH_ID, rotated_at_ms=number)
        for number, (old, new) in enumerate(pairs)
    ]


def proven(statements: list[Rotation], last: Identity, mesh_id: str = MESH_ID) -> tuple[Rotation, ...]:
    keys = {"pubkey": last.ed25519_pubkey, "x25519_pubkey": last.x25519_pubkey}
    return proven_chain(statements, mesh_id=mesh_id, **keys)


ONE, TWO, THREE, STRANGER = (make_identity() for _ in range(4))


def test_a_whole_chain_is_proven_and_ends_in_the_present_keys() -> None:
    """Oldest first; another end or another mesh proves nothing."""
    chain = chain_of(ONE, TWO, THREE)
    assert proven(chain, THREE) == tuple(chain)
    assert proven([], THREE) == ()
    assert proven(chain, STRANGER) == ()
    assert proven(chain, THREE, "another-mesh") == ()
    assert proven(chain, replace(THREE, x25519_pubkey=STRANGER.x25519_pubkey)) == ()


def test_statements_before_a_gap_or_a_forged_one_do_not_count() -> None:
    """The newer statements count."""
    first, second = chain_of(ONE, TWO, THREE)
    forged = replace(first, old_pubkey=STRANGER.ed25519_pubkey)
    for older in ([forged], [replace(first, rotated_at_ms=7)], []):
        assert proven([*older, second], THREE) == (second,)
    assert proven([second, first], THREE) == ()


def test_a_chain_that_comes_back_to_a_key_ends_before_it() -> None:
    """No key is its own predecessor."""
    chain = chain_of(TWO, THREE, TWO, THREE)
    assert proven(chain, THREE) == (chain[2],)


def test_only_the_newest_statements_count() -> None:
    """Beyond the bound the oldest statement is left out."""
    identities = [make_identity() for _ in range(MAX_STATEMENTS + 2)]
    chain = chain_of(*identities)
    assert proven(chain, identities[-1]) == tuple(chain[1:])


@pytest.mark.parametrize("field", ["old_pubkey", "pubkey", "x25519_pubkey", "rotated_at_ms", "signature"])
def test_every_field_is_signed(field: str) -> None:
    """A statement with any changed field does not verify."""
    [statement] = chain_of(ONE, TWO)
    other: dict[str, Any] = {
        "old_pubkey": STRANGER.ed25519_pubkey,
        "pubkey": STRANGER.ed25519_pubkey,
        "x25519_pubkey": STRANGER.x25519_pubkey,
        "rotated_at_ms": 1,
        "signature": bytes(64),
    }
    assert statement.verify(MESH_ID)
    assert not replace(statement, **{field: other[field]}).verify(MESH_ID)


def test_a_statement_reads_back() -> None:
    """parse and to_dict are inverse."""
    [statement] = chain_of(ONE, TWO)
    assert Rotation.parse(json.loads(json.dumps(statement.to_dict()))) == statement


@pytest.mark.parametrize(
    "changes",
    [
        {"old_pubkey": "x"},
        {"pubkey": None},
        {"x25519_pubkey": "A" * 64},
        {"rotated_at_ms": -1},
        {"rotated_at_ms": True},
        {"rotated_at_ms": 1.5},
        {"signature": "AAAA"},
        {"signature": 5},
    ],
    ids=str,
)
def test_a_malformed_statement_is_refused(changes: dict[str, Any]) -> None:
    """The error names the wrong field."""
    [statement] = chain_of(ONE, TWO)
    with pytest.raises(InvalidField):
        Rotation.parse(statement.to_dict() | changes)
    for value in (None, [], "x"):
        with pytest.raises(InvalidField):
            Rotation.parse(value)


def test_the_golden_statements_are_reproduced_to_the_byte() -> None:
    """Every implementation of the protocol signs the same bytes."""
    for case in json.loads(GOLDEN.read_text())["cases"]:
        old, new = (
            new_identity(iter_bytes(case[name]), "k_01ARZ3NDEKTSV4RRFFQ69G5FAV") for name in ("old", "new")
        )
        made = make_rotation(old, new, mesh_id=case["mesh_id"], rotated_at_ms=case["rotated_at_ms"])
        assert made.to_dict() == case["statement"]
        assert made.verify(case["mesh_id"])


def iter_bytes(seeds: list[str]) -> Any:
    """Entropy that returns these bytes one after the other."""
    left = iter(seeds)
    return lambda length: bytes.fromhex(next(left))
