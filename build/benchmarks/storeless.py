"""A daemon that does everything for a send but store it: `storeless.py daemon up`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from claudemesh.cli.main import main
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.submit import Submitter
from claudemesh.daemon.outbox.types import Submission


async def _without_store(
    self: Submitter, submission: Submission, on_queued: Callable[[], None] | None
) -> Answer:
    return Answer(202, {"status": "queued", "client_message_id": submission.client_message_id})


if __name__ == "__main__":
    Submitter._write = _without_store  # type: ignore[method-assign]
    sys.exit(main())
