"""Rows of the inbox: a direct message of another member, in which a test changes what it is about."""

from __future__ import annotations

from typing import Any

import msgspec

from claudemesh.daemon.inbox.store import InboxRow
from tests.support.daemon import NOW, new_ulid


def inbox_row(**changes: Any) -> InboxRow:
    """Return a row with ids of its own."""
    row = InboxRow(
        id=new_ulid(),
        client_message_id=new_ulid(),
        sender_member_id="01899e2d-0000-7000-8000-0000000000aa",
        broker_message_id=new_ulid(),
        history_id=1,
        mesh="demo",
        kind="dm",
        topic=None,
        sender_pubkey="ab" * 32,
        sender_name="alice",
        body="hello",
        meta=None,
        priority="next",
        received_at=NOW,
        reply_to_id=None,
    )
    return msgspec.structs.replace(row, **changes)
