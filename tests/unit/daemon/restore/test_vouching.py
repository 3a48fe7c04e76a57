"""Members that a restored broker shows as active again although this host knows them as revoked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.restore.vouching import Vouching
from claudemesh.protocol.replies import Read
from claudemesh.runtime.services import TaskOwner
from tests.support.daemon import MESH_ID, person

ALICE, BOB = person("alice"), person("bob")


@pytest.mark.parametrize(
    ("role", "status", "asked"),
    [("owner", "revoked", ["revoked"]), ("admin", "revoked", ["revoked"]), ("member", "active", [])],
)
async def test_owners_and_admins_have_a_revoked_member_revoked_again(
    tmp_path: Path, role: str, status: str, asked: list[str]
) -> None:
    """Another member may not revoke; it takes over the broker's word."""
    calls: list[Mapping[str, Any]] = []

    async def ask(method: str, params: Mapping[str, Any], read: Read[Any]) -> Any:
        assert method == "member_vouch"
        calls.append(params)
        return read({})

    directory, tasks = Directory(tmp_path / "peers.json", MESH_ID), TaskOwner()
    Vouching(directory, ALICE.member_id, ask, tasks)
    directory.apply([ALICE.listed(role=role), BOB.listed(status="revoked")])
    directory.apply([BOB.listed()])
    await tasks.join()
    bob = directory.by_id(BOB.member_id)
    assert bob is not None
    assert (bob.status, [call["status"] for call in calls]) == (status, asked)
