"""What changes while a broker runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class State:
    """`epoch` names this life of the database (protocol.md, hello_ack)."""

    epoch: str
    draining: bool = False
    handshakes: int = 0
