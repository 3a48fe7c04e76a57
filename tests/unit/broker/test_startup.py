"""Opening of a broker's data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.broker.settings import BrokerSettings
from claudemesh.broker.startup import kept_id, make_store
from claudemesh.runtime.errors import StorageCorrupt


def test_a_kill_while_the_database_is_made_again_is_no_damage(tmp_path: Path) -> None:
    """An operator has moved the file away, and SQLite begins with one that has no byte."""
    settings = BrokerSettings(data_dir=tmp_path)
    (tmp_path / "broker.db").touch()
    make_store(settings, lambda error: None)
    kept_id(tmp_path, "first")
    with pytest.raises(StorageCorrupt, match="lost its content"):
        make_store(settings, lambda error: None)
    (tmp_path / "broker.db").unlink()
    make_store(settings, lambda error: None)
    (tmp_path / "broker.db").touch()
    make_store(settings, lambda error: None)
