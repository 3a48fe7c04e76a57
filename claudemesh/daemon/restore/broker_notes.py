"""broker_features.json: the features last negotiated, and the store epoch under which sends were accepted."""

from __future__ import annotations

from pathlib import Path

import orjson

from claudemesh.protocol.features import Features
from claudemesh.runtime.files import UnsafeFile, read_own, write_atomic
from claudemesh.runtime.sidefiles import WriteFile


class BrokerNotes:
    """The file broker_features.json. It is a hint: without it the daemon asks about more done sends."""

    def __init__(self, path: Path, write: WriteFile) -> None:
        self._path = path
        self._write = write

    def store_epoch(self) -> str | None:
        """Return the store epoch as last noted; None when nothing was noted."""
        try:
            store_epoch = orjson.loads(read_own(self._path)).get("epoch")
        except (OSError, UnsafeFile, orjson.JSONDecodeError, AttributeError):
            return None
        return store_epoch if isinstance(store_epoch, str) else None

    def note(self, features: Features, store_epoch: str | None) -> None:
        """Write the negotiated features and the store epoch. Without them a restart asks about more sends."""
        text = orjson.dumps({**features.to_dict(), "epoch": store_epoch})
        self._write(self._path.name, lambda: write_atomic(self._path, text))
