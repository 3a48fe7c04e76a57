"""The state of a running broker that several parts read and change."""

from __future__ import annotations

from msgspec import Struct


class BrokerState(Struct):
    """The store epoch, which names one life of the database (docs/spec/protocol.md, hello_ack), and counters.

    `newest_history` is the newest history id that this broker has accepted in this epoch, 0 before the first.
    """

    store_epoch: str
    draining: bool = False
    handshakes: int = 0
    newest_history: int = 0

    def accepted(self, history_id: int) -> None:
        """Note an accepted message."""
        if history_id > self.newest_history:
            self.newest_history = history_id
