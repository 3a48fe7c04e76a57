"""broker_features.json: the features last negotiated, and the epoch under which sends were accepted."""

from __future__ import annotations

from pathlib import Path

import orjson

from claudemesh.protocol.features import Features
from claudemesh.runtime.files import UnsafeFile, read_own, write_atomic
from claudemesh.runtime.logs import get_logger

log = get_logger("daemon")


class BrokerNotes:
    """The file. It is a hint: without it the broker is asked more than it had to be."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def epoch(self) -> str | None:
        """Return the epoch as last noted; None when nothing was noted."""
        try:
            epoch = orjson.loads(read_own(self._path)).get("epoch")
        except (OSError, UnsafeFile, orjson.JSONDecodeError, AttributeError):
            return None
        return epoch if isinstance(epoch, str) else None

    def note(self, features: Features, epoch: str | None) -> None:
        """Keep what was negotiated. A failure is logged and costs the next link a longer question."""
        try:
            write_atomic(self._path, orjson.dumps({**features.to_dict(), "epoch": epoch}))
        except OSError as error:
            log.warning("broker_features_not_saved", path=str(self._path), error=str(error))
