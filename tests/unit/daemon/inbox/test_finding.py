"""A message is found by any of its ids."""

from __future__ import annotations

from pathlib import Path

import msgspec

from claudemesh.daemon.inbox.store import InboxStore
from tests.support.clock import ManualClock
from tests.support.inbox import inbox_row

FIRST = inbox_row(client_message_id="deploy")


async def test_a_message_is_found_by_each_of_its_ids(tmp_path: Path) -> None:
    """Of two senders with the same id the newer message is meant; the order of their members is not."""
    members = ("carol", "alice", "bob")
    rows = [
        msgspec.structs.replace(
            FIRST, id=f"id{number}", sender_member_id=member, broker_message_id=f"broker{number}"
        )
        for number, member in enumerate(members, 1)
    ]
    store = await InboxStore.open(tmp_path / "inbox.db", ManualClock())
    try:
        assert await store.get("deploy") is None
        await store.insert(rows)
        for key, wanted in (("id1", "id1"), ("broker2", "id2"), ("3", "id3"), ("deploy", "id3")):
            found = await store.get(key)
            assert found is not None and found["id"] == wanted
        assert await store.get("another") is None
    finally:
        await store.close()
