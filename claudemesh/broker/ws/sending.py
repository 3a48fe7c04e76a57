"""Sends of one connection, from their frames to their results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from claudemesh.broker.messages import results
from claudemesh.broker.messages.accept import Acceptor
from claudemesh.broker.messages.results import SendAnswer
from claudemesh.broker.messages.sender import Sender
from claudemesh.broker.ws.unanswered import Unanswered
from claudemesh.protocol.fields import FrameId
from claudemesh.protocol.frames import (
    ErrorFrame,
    Frame,
    Send,
    SendResult,
    SendResults,
    Sends,
    encode_frame,
    encode_send_results,
)
from claudemesh.protocol.wire import BATCH_ITEMS

Put = Callable[[type[Frame], str], None]


class Sending:
    """Submits sends and writes their results.

    The results of one commit leave together when the peer takes frames with several items.
    """

    def __init__(
        self, acceptor: Acceptor, unanswered: Unanswered, put: Put, on_answer: Callable[[], None]
    ) -> None:
        self._acceptor = acceptor
        self._unanswered = unanswered
        self._put = put
        self._on_answer = on_answer
        self._answered: list[tuple[FrameId, SendAnswer]] = []
        # Whether the peer takes frames with several items.
        self.in_batches = False

    def take(self, sender: Sender, send: Send, size: int) -> None:
        """Submit one send; its frame has `size` characters."""
        self._unanswered.add(size)
        self._acceptor.submit(sender, send.envelope, partial(self._answer, send.id, size))

    def take_all(self, sender: Sender, sends: Sends, size: int) -> None:
        """Submit the sends of one frame, and answer those that are wrong."""
        share = size // (len(sends.items) + len(sends.refused))
        for send in sends.items:
            self.take(sender, send, share)
        for request_id, error in sends.refused:
            if request_id is None:
                self._put(ErrorFrame, encode_frame(ErrorFrame(error.code, error.message)))
            else:
                self._unanswered.add(share)
                self._answer(request_id, share, results.of_error(error))

    def flush(self) -> None:
        """Write the results that wait."""
        answered, self._answered = self._answered, []
        for first in range(0, len(answered), BATCH_ITEMS):
            batch = answered[first : first + BATCH_ITEMS]
            if len(batch) == 1:
                request_id, answer = batch[0]
                self._put(SendResult, answer.frame(request_id))
            else:
                told = [(request_id, answer.status, answer.fields) for request_id, answer in batch]
                self._put(SendResults, encode_send_results(told))

    def _answer(self, request_id: FrameId, size: int, answer: SendAnswer) -> None:
        self._unanswered.remove(size)
        if not self.in_batches:
            self._put(SendResult, answer.frame(request_id))
        else:
            if not self._answered:
                # Behind the answers to the other sends of this commit.
                asyncio.get_running_loop().call_soon(self.flush)
            self._answered.append((request_id, answer))
        self._on_answer()
