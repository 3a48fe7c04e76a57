"""The address at which this host dials its broker, and the authorities that it trusts there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """The URL of the broker. The authorities of `ca_file`, which may be missing, are trusted there too."""

    url: str
    ca_file: Path | None = None
