"""membership.json: what another version has written stays there."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from claudemesh.home.membership import Membership, change_address, load_membership, save_membership
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from tests.support.values import replace

ALICE = Membership(
    mesh_id="01899e2d-0000-7000-8000-000000000001",
    slug="demo",
    broker_url="ws://127.0.0.1:7900",
    member_id="01899e2d-0000-7000-8000-000000000002",
    name="alice",
    role="owner",
    inviter_pubkey=None,
)
NEWER = {"region": "eu", "proofs": [{"a": 1}], "others": 1}


def written(folder: Path, **more: Any) -> Path:
    path = folder / "membership.json"
    save_membership(path, ALICE)
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    return path


def test_every_rewrite_keeps_the_fields_of_a_newer_version(tmp_path: Path) -> None:
    """A field that it does not know may be what makes the membership what it is."""
    path = written(tmp_path, **NEWER)
    save_membership(path, replace(load_membership(path), name="alicia"))
    change_address(path, "wss://mesh.example.org", 7)
    kept = json.loads(path.read_text())
    assert {name: kept[name] for name in NEWER} == NEWER
    assert (kept["name"], kept["broker_url"], kept["schema_version"]) == (
        "alicia",
        "wss://mesh.example.org",
        1,
    )


def test_unknown_fields_are_not_shown(tmp_path: Path) -> None:
    """They may be secrets."""
    found = load_membership(written(tmp_path, **NEWER))
    assert not found.shown().keys() & NEWER.keys()
    assert "eu" not in repr(found)
    assert found == ALICE


def test_a_membership_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every field of it."""
    full = replace(
        ALICE, inviter_pubkey="ab" * 32, invite="claudemesh://join/x", ephemeral=True, moved_at_ms=9
    )
    assert all(getattr(full, one.name) != one.default for one in fields(full) if one.name != "others")
    save_membership(tmp_path / "membership.json", full)
    assert load_membership(tmp_path / "membership.json") == full


def test_a_file_of_a_newer_form_is_refused_and_stays(tmp_path: Path) -> None:
    path = written(tmp_path, schema_version=2)
    before = path.read_bytes()
    for use in (load_membership, lambda path: change_address(path, "ws://other", 1)):
        with pytest.raises(ExitWith) as caught:
            use(path)
        assert (caught.value.code, caught.value.error) == (CONFIGURATION, "schema_too_new")
    assert path.read_bytes() == before
