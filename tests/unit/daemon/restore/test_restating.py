"""Statements about members that a restored broker lacks are offered to it by owners and admins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.restore.restating import Restating
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.replies import Read
from claudemesh.protocol.statements import sign_statement
from claudemesh.runtime.services import TaskOwner
from tests.support.daemon import MESH_ID, person

ALICE, BOB, CLEO = person("alice"), person("bob"), person("cleo")
PROMOTION = sign_statement(
    ALICE.identity, "role", mesh_id=MESH_ID, subject=BOB.member_id, at_ms=1, role="admin"
)
REVOCATION = sign_statement(
    BOB.identity,
    "revocation",
    mesh_id=MESH_ID,
    subject=CLEO.member_id,
    at_ms=2,
    pubkey=CLEO.identity.ed25519_pubkey,
)
OWN = ALICE.listed(role="owner")
LISTED = [
    OWN,
    BOB.listed(role="admin", statements=[PROMOTION.to_dict()]),
    CLEO.listed(status="revoked", statements=[REVOCATION.to_dict()]),
]
WHOLE = replies.peers({"items": [], "gone": [], "next": None, "whole": True, "version": "1-a"})


class Host:
    """The part under test, and a broker that answers from a script: None, or the code of an error."""

    def __init__(self, folder: Path, answers: list[str | None], own: str = ALICE.member_id) -> None:
        self.directory = Directory(folder / "peers.json", MESH_ID)
        self.directory.apply(LISTED)
        self.tasks = TaskOwner()
        self.asked: list[int] = []
        self._answers = answers
        self.part = Restating(self.directory, own, self._ask, self.tasks)

    async def _ask(self, method: str, params: Mapping[str, Any], read: Read[Any]) -> Any:
        assert method == "member_restate"
        self.asked.append(params["statement"]["at_ms"])
        if error := self._answers.pop(0):
            raise ProtocolError(error, "Refused.")
        return read({})

    async def page(self) -> list[int]:
        """Apply the page of a restored broker; return the times of the statements that were offered."""
        self.asked.clear()
        self.directory.apply([OWN, BOB.listed(), CLEO.listed()])
        self.part.on_page(WHOLE)
        await self.tasks.join()
        return list(self.asked)


async def test_the_oldest_is_offered_first_and_each_once_for_a_list(tmp_path: Path) -> None:
    """The role that was given first makes the signer of the revocation an admin again."""
    host = Host(tmp_path, [None, None, None, None])
    assert await host.page() == [1, 2]
    assert await host.page() == [1, 2]
    host.directory.apply(LISTED)
    host.part.on_page(WHOLE)
    assert (host.directory.lost_statements(), host.asked) == ([], [1, 2])


async def test_a_refused_statement_is_offered_again_after_another_was_taken(tmp_path: Path) -> None:
    """Without progress it ends, and the next complete list begins again."""
    assert await Host(tmp_path, ["not_authorized", None, None]).page() == [1, 2, 1]
    assert await Host(tmp_path, ["not_authorized", "not_authorized"]).page() == [1, 2]


@pytest.mark.parametrize("error", ["broker_unavailable", "rate_limited"])
async def test_a_broker_that_cannot_answer_is_asked_at_the_next_page(tmp_path: Path, error: str) -> None:
    """A statement is given up by an answer only."""
    host = Host(tmp_path, [error, None, None])
    assert await host.page() == [1]
    assert await host.page() == [1, 2]


async def test_a_member_offers_none_and_asks_for_the_list_again_after_a_start(tmp_path: Path) -> None:
    """The list is not taken for complete while statements are missing in it."""
    host = Host(tmp_path, [], own=CLEO.member_id)
    host.directory.note_version("2-b")
    assert await host.page() == []
    host.directory.save()
    again = Directory(tmp_path / "peers.json", MESH_ID)
    again.load()
    assert again.version is None
