"""State that changes while a broker runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class BrokerState:
    """`store_epoch` names this life of the database (docs/spec/protocol.md, hello_ack).

    `newest_history` is the newest message that this broker has accepted in it, 0 before the first.
    """

    store_epoch: str
    draining: bool = False
    handshakes: int = 0
    newest_history: int = 0

    def accepted(self, history_id: int) -> None:
        """Note that a message was accepted."""
        if history_id > self.newest_history:
            self.newest_history = history_id
