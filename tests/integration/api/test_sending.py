"""POST /v1/send and /v1/topic/post over the socket, against the real outbox."""

from __future__ import annotations

from pathlib import Path

from tests.integration.api.served import served


async def test_a_send_is_accepted_and_its_row_is_there(tmp_path: Path) -> None:
    """202 means that the row is written."""
    async with served(tmp_path) as daemon:
        answer = await daemon.send({"to": "bob", "message": "hi", "client_message_id": "one"})
        assert answer.status == 202
        assert answer.json == {"status": "queued", "client_message_id": "one"}
        assert [row["client_message_id"] for row in await daemon.rows()] == ["one"]
