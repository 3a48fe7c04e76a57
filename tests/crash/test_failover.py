"""The database's primary dies and a standby that lagged takes its place (docs/operating.md, Postgres)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.audit import assert_contract, broker_rows, wait_done, wait_received
from tests.support.postgres import SUPERUSER, Server, sql
from tests.support.processes import mesh, until

_DEDUPE = "SELECT client_message_id FROM client_message_dedupe"


@pytest.fixture
def servers() -> Generator[tuple[Server, Server]]:
    """A primary and its standby, both running."""
    made = [Server()]
    try:
        made[0].start()
        made.append(Server(made[0]))
        made[1].start()
        yield made[0], made[1]
    finally:
        for server in made:
            server.remove()


def test_sends_that_the_new_primary_never_saw_are_offered_again(servers: tuple[Server, Server]) -> None:
    """The new primary is on another timeline, so the epoch differs: no message is missing, none arrives
    twice."""
    primary, standby = servers
    hosts = f"{primary.folder},{standby.folder}"
    url = f"postgresql://{SUPERUSER}@/postgres?host={hosts}&target_session_attrs=read-write"
    with mesh("alice", "bob", database_url=url) as pair:
        alice, bob = pair.daemons["alice"], pair.daemons["bob"]
        assert alice.send("bob", "before", client_message_id="before")[0] in (200, 202)
        wait_received(bob, ["before"])
        wait_done(alice, ["before"])
        until(lambda: replicated(standby) == 1, "the standby has followed")
        standby.stop()
        ids = [f"unseen-{number}" for number in range(10)]
        for client_message_id in ids:
            assert alice.send("bob", "text", client_message_id=client_message_id)[0] in (200, 202)
        assert alice.post("all", "text", client_message_id="unseen-post")[0] in (200, 202)
        everything = ["before", *ids, "unseen-post"]
        wait_received(bob, everything)
        wait_done(alice, everything)
        primary.stop(signal.SIGQUIT)
        standby.start()
        assert replicated(standby) == 1
        standby.promote()
        until(lambda: '"event":"reoffer_done"' in alice.log.read_text(), "alice has offered them again")
        assert {row[0] for row in broker_rows(pair, _DEDUPE)} == set(everything)
        assert_contract(pair, alice, [bob], everything)
        # And the mesh goes on.
        assert alice.send("bob", "after", client_message_id="after")[0] in (200, 202)
        wait_received(bob, ["after"])


def replicated(standby: Server) -> Any:
    """Return the number of messages on the standby."""
    return asyncio.run(sql(standby.url(), "SELECT count(*) FROM mesh.client_message_dedupe"))
