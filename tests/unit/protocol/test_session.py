from __future__ import annotations

from typing import Final

import pytest

from claudemesh.protocol.errors import CloseCode, ProtocolError
from claudemesh.protocol.frames import FRAME_TYPES, Frame, Send, UnknownFrame
from claudemesh.protocol.session import ANYTIME, Session, SessionViolation, State
from claudemesh.protocol.wire import Side
from tests.support.frames import FRAMES

SAMPLES: Final = {type(frame): frame for frame in FRAMES}
HANDSHAKE: Final = (
    ("broker", "Challenge", State.CHALLENGED),
    ("daemon", "Hello", State.PROVING),
    ("broker", "HelloAck", State.AUTHENTICATED),
    ("daemon", "FeatureRequest", State.NEGOTIATING),
    ("broker", "FeatureResponse", State.OPEN),
)
TRAFFIC: Final = {
    "daemon": {"Send", "DeliverAck", "Call"},
    "broker": {"SendResult", "Deliver", "Reply", "Event"},
}
# Written out from the page, apart from the table under test.
LEGAL: Final = {
    (State.CONNECTED if index == 0 else HANDSHAKE[index - 1][2], speaker, frame): following
    for index, (speaker, frame, following) in enumerate(HANDSHAKE)
} | {(State.OPEN, speaker, frame): State.OPEN for speaker, frames in TRAFFIC.items() for frame in frames}

PAIRS: Final = [(state, kind) for state in State for kind in SAMPLES]


def session_in(state: State, side: Side) -> Session:
    session = Session(side)
    session.state = state
    return session


def test_walk_covers_every_frame_there_is() -> None:
    """13 types and the unknown one."""
    assert len(SAMPLES) == len(FRAME_TYPES) + 1
    assert UnknownFrame in SAMPLES


@pytest.mark.parametrize("speaker", ["daemon", "broker"])
@pytest.mark.parametrize(("state", "kind"), PAIRS, ids=lambda value: getattr(value, "__name__", value))
def test_every_state_takes_its_frames_and_no_others(state: State, kind: type[Frame], speaker: Side) -> None:
    """Both ends agree on each state, frame and speaker; what is illegal changes nothing."""
    listener: Side = "broker" if speaker == "daemon" else "daemon"
    says, hears = session_in(state, speaker), session_in(state, listener)
    frame = SAMPLES[kind]
    following = state if kind in ANYTIME else LEGAL.get((state, speaker, kind.__name__))
    for session, step in ((says, says.send), (hears, hears.receive)):
        if following is None:
            with pytest.raises(SessionViolation) as caught:
                step(frame)
            assert kind.__name__ in caught.value.message
            assert session.state is state
        else:
            step(frame)
            assert session.state is following


def test_two_ends_open_together() -> None:
    """challenge, hello, hello_ack, request, response; open after the last and not before."""
    daemon, broker = Session("daemon"), Session("broker")
    by_name = {kind.__name__: frame for kind, frame in SAMPLES.items()}
    for speaker, name, following in HANDSHAKE:
        assert not daemon.is_open
        frame = by_name[name]
        if speaker == "broker":
            broker.send(frame)
            daemon.receive(frame)
        else:
            daemon.send(frame)
            broker.receive(frame)
        assert daemon.state is broker.state is following
    assert daemon.is_open
    assert broker.is_open


def test_violation_is_a_protocol_error_that_closes_with_4000() -> None:
    """The connection does not survive it."""
    with pytest.raises(ProtocolError) as caught:
        Session("broker").receive(Send(1, {}))
    assert isinstance(caught.value, SessionViolation)
    assert caught.value.code == "protocol_error"
    assert caught.value.close_code is CloseCode.PROTOCOL_ERROR
