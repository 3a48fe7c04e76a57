"""The order of frames on one connection, as a table for both roles (protocol.md, WebSocket).

Daemon and broker see the same sequence, one from each end, so one table serves both. While a
connection is made the sides take turns; each state names the one frame that may come next and
who says it. Once open, each side has the frames it may say at any time. `error` and types that
are not known may come from either side in every state and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

from claudemesh.protocol.errors import CloseCode, ProtocolError
from claudemesh.protocol.frames import (
    Call,
    Challenge,
    Deliver,
    DeliverAck,
    ErrorFrame,
    Event,
    FeatureRequest,
    FeatureResponse,
    Frame,
    Hello,
    HelloAck,
    Reply,
    Send,
    SendResult,
    UnknownFrame,
)
from claudemesh.protocol.wire import Side


class State(Enum):
    """How far a connection has come."""

    CONNECTED = "connected"
    CHALLENGED = "challenged"
    PROVING = "proving"
    AUTHENTICATED = "authenticated"
    NEGOTIATING = "negotiating"
    OPEN = "open"


_Steps: TypeAlias = Mapping[type[Frame], State]

ANYTIME: Final[frozenset[type[Frame]]] = frozenset((ErrorFrame, UnknownFrame))

_NOTHING: Final[_Steps] = MappingProxyType({})

TRANSITIONS: Final[Mapping[Side, Mapping[State, _Steps]]] = MappingProxyType(
    {
        "broker": {
            State.CONNECTED: {Challenge: State.CHALLENGED},
            State.CHALLENGED: _NOTHING,
            State.PROVING: {HelloAck: State.AUTHENTICATED},
            State.AUTHENTICATED: _NOTHING,
            State.NEGOTIATING: {FeatureResponse: State.OPEN},
            State.OPEN: {
                SendResult: State.OPEN,
                Deliver: State.OPEN,
                Reply: State.OPEN,
                Event: State.OPEN,
            },
        },
        "daemon": {
            State.CONNECTED: _NOTHING,
            State.CHALLENGED: {Hello: State.PROVING},
            State.PROVING: _NOTHING,
            State.AUTHENTICATED: {FeatureRequest: State.NEGOTIATING},
            State.NEGOTIATING: _NOTHING,
            State.OPEN: {Send: State.OPEN, DeliverAck: State.OPEN, Call: State.OPEN},
        },
    }
)


class SessionViolation(ProtocolError):
    """A frame that may not come now; the connection is closed with 4000."""

    close_code = CloseCode.PROTOCOL_ERROR

    def __init__(self, message: str) -> None:
        super().__init__("protocol_error", message)


class Session:
    """One end of one connection: says whether a frame may be sent or received now, and what follows."""

    __slots__ = ("_mine", "_theirs", "side", "state")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.state = State.CONNECTED
        self._mine = TRANSITIONS[side]
        self._theirs = TRANSITIONS["daemon" if side == "broker" else "broker"]

    @property
    def is_open(self) -> bool:
        """Whether the handshake is over and traffic may flow."""
        return self.state is State.OPEN

    def send(self, frame: Frame) -> None:
        """Note that this end says a frame. `SessionViolation`, and no change, when it may not."""
        self._step(self._mine, frame, "send")

    def receive(self, frame: Frame) -> None:
        """Note that the other end said a frame. `SessionViolation`, and no change, when it may not."""
        self._step(self._theirs, frame, "receive")

    def _step(self, table: Mapping[State, _Steps], frame: Frame, verb: str) -> None:
        kind = type(frame)
        following = table[self.state].get(kind)
        if following is not None:
            self.state = following
        elif kind not in ANYTIME:
            raise SessionViolation(f"A {self.side} may not {verb} {kind.__name__} while {self.state.value}.")
