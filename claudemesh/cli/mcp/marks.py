"""Marks of messages that the client has got, kept until the daemon has taken them.

A daemon may be down at the moment at which a client proves that its model has a text. The mark is not lost
then: it goes to the daemon before a message is read or pushed again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from claudemesh.cli.mcp.session import McpSession
from claudemesh.client.errors import ApiError

Mark: TypeAlias = Literal["notified", "shown"]
_Owed: TypeAlias = tuple[Sequence[str], Mark, int]
# The oldest is dropped beyond this number, and its messages are offered once more.
_KEPT: Final = 256
_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429


class Marks:
    """The marks of one session that are owed. Every method may be called by any thread."""

    def __init__(self, session: McpSession) -> None:
        self._session = session
        self._lock = threading.Lock()
        # Held while marks are on their way: those of many messages take a while.
        self._settling = threading.Lock()
        self._owed: deque[_Owed] = deque(maxlen=_KEPT)

    def owe(self, ids: Sequence[str], mark: Mark, through: int = 0) -> None:
        """Note a mark. `settle` takes it to the daemon.

        With `through`, the session was told of all its messages up to this seq.
        """
        with self._lock:
            self._owed.append((ids, mark, through))

    def settle(self, wait_s: float = -1) -> bool:
        """Take each mark to the daemon. Raise `ClientError` when it does not answer, and keep the mark.

        While another call does so, `wait_s` is the longest wait, without end by default. Return whether it is
        done: if not, that call takes the marks of this one too.
        """
        if not self._settling.acquire(timeout=wait_s):
            return False
        try:
            while (owed := self._oldest()) is not None:
                try:
                    self._mark(*owed)
                except ApiError as error:
                    # A daemon that cannot take it now is asked again. One that refuses it never takes it.
                    if error.status >= _SERVER_ERROR or error.status == _TOO_MANY:
                        raise
                self._drop(owed)
        finally:
            self._settling.release()
        return True

    def _oldest(self) -> _Owed | None:
        with self._lock:
            return self._owed[0] if self._owed else None

    def _drop(self, owed: _Owed) -> None:
        with self._lock:
            # It is gone already when many others have come since.
            if self._owed and self._owed[0] is owed:
                self._owed.popleft()

    def _mark(self, ids: Sequence[str], mark: Mark, through: int) -> None:
        try:
            self._post(ids, mark, through)
        except ApiError as error:
            if error.code != "session_not_found":
                raise
            self._session.forget()
            self._post(ids, mark, through)

    def _post(self, ids: Sequence[str], mark: Mark, through: int) -> None:
        client, session = self._session.client(), self._session
        if ids:
            client.post("/v1/inbox/ack", {"ids": list(ids), "as": mark, "session": session.name})
        if through:
            client.post(f"/v1/sessions/{session.id}/told", {"through": through})
