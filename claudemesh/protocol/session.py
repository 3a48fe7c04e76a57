"""The session table: the order of frames on one connection (docs/spec/protocol.md, Session states).

During the handshake the sides take turns: each state allows one frame, from one side. In the state `open`
each side sends its frames at any time. `error` frames and frames of unknown types are allowed from both sides
in every state and do not change it. The table is the only rule: both sides look up every frame in it, those
that they send and those that they receive, during the handshake and after it.
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
    Delivers,
    ErrorFrame,
    Event,
    FeatureRequest,
    FeatureResponse,
    Frame,
    Hello,
    HelloAck,
    Reply,
    Revoked,
    Send,
    SendResult,
    SendResults,
    Sends,
    UnknownFrame,
)
from claudemesh.protocol.wire import Side


class State(Enum):
    """States of a connection, in the order in which it passes through them."""

    CONNECTED = "connected"
    CHALLENGED = "challenged"
    PROVING = "proving"
    AUTHENTICATED = "authenticated"
    NEGOTIATING = "negotiating"
    OPEN = "open"


_Steps: TypeAlias = Mapping[type[Frame], State]

# Allowed from both sides in every state.
ANYTIME: Final[frozenset[type[Frame]]] = frozenset((ErrorFrame, UnknownFrame))

_NOTHING: Final[_Steps] = MappingProxyType({})

TRANSITIONS: Final[Mapping[Side, Mapping[State, _Steps]]] = MappingProxyType(
    {
        "broker": {
            State.CONNECTED: {Challenge: State.CHALLENGED},
            State.CHALLENGED: _NOTHING,
            State.PROVING: {HelloAck: State.AUTHENTICATED, Revoked: State.PROVING},
            State.AUTHENTICATED: _NOTHING,
            State.NEGOTIATING: {FeatureResponse: State.OPEN},
            State.OPEN: {
                SendResult: State.OPEN,
                SendResults: State.OPEN,
                Deliver: State.OPEN,
                Delivers: State.OPEN,
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
            State.OPEN: {
                Send: State.OPEN,
                Sends: State.OPEN,
                DeliverAck: State.OPEN,
                Call: State.OPEN,
            },
        },
    }
)


class SessionViolation(ProtocolError):
    """A frame that the table does not allow; the connection is closed with 4000."""

    close_code = CloseCode.PROTOCOL_ERROR

    def __init__(self, message: str) -> None:
        super().__init__("protocol_error", message)


class Session:
    """The state of one connection, as one side sees it.

    `send` and `receive` take the type of a frame, because frames on the hot path are encoded without a value.
    """

    __slots__ = ("_mine", "_theirs", "side", "state")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.state = State.CONNECTED
        self._mine = TRANSITIONS[side]
        self._theirs = TRANSITIONS["daemon" if side == "broker" else "broker"]

    @property
    def is_open(self) -> bool:
        """Whether the handshake is complete."""
        return self.state is State.OPEN

    def send(self, kind: type[Frame]) -> None:
        """Move to the state that follows when this side sends a frame. `SessionViolation`: no change."""
        self._step(self._mine, kind, "send")

    def receive(self, kind: type[Frame]) -> None:
        """Move to the state that follows when the other side sends a frame. `SessionViolation`: no change."""
        self._step(self._theirs, kind, "receive")

    def _step(self, table: Mapping[State, _Steps], kind: type[Frame], verb: str) -> None:
        following = table[self.state].get(kind)
        if following is not None:
            self.state = following
        elif kind not in ANYTIME:
            name = getattr(kind, "TYPE", kind.__name__)
            raise SessionViolation(
                f"The {self.side} may not {verb} a frame of type {name} in the state {self.state.value}."
            )
