"""A daemon that does everything for a send but store it: `storeless.py daemon up`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from claudemesh.cli.main import main
from claudemesh.daemon.app import Daemon
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.types import Submission

_assemble_sending = Daemon._assemble_sending


def _without_store(self: Daemon, sealer: Any) -> None:
    _assemble_sending(self, sealer)
    loop = asyncio.get_running_loop()

    def accept(submission: Submission) -> asyncio.Future[Answer]:
        answer: asyncio.Future[Answer] = loop.create_future()
        body = {"status": "queued", "client_message_id": submission.client_message_id}
        answer.set_result(Answer(202, body))
        return answer

    self._submitter._enqueue = accept


if __name__ == "__main__":
    Daemon._assemble_sending = _without_store  # type: ignore[method-assign]
    sys.exit(main())
