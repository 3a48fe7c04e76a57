from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from claudemesh.protocol.errors import CloseCode, ProtocolError
from claudemesh.protocol.frames import FRAME_TYPES, Frame, Send, UnknownFrame
from claudemesh.protocol.session import ANYTIME, TRANSITIONS, Session, SessionViolation, State
from claudemesh.protocol.wire import Side
from tests.support.frames import FRAMES

PAGE: Final = Path(__file__).parents[3] / "docs/spec/protocol.md"
KINDS: Final = {type(frame) for frame in FRAMES}
HANDSHAKE: Final = (
    ("broker", "challenge", State.CHALLENGED),
    ("daemon", "hello", State.PROVING),
    ("broker", "hello_ack", State.AUTHENTICATED),
    ("daemon", "feature_negotiation_request", State.NEGOTIATING),
    ("broker", "feature_negotiation_response", State.OPEN),
)
TRAFFIC: Final = {
    "daemon": {"send", "sends", "deliver_ack", "call"},
    "broker": {"send_result", "send_results", "deliver", "delivers", "reply", "event"},
}
# Written out by hand, independent of the table under test.
ALLOWED: Final = {
    (State.CONNECTED if index == 0 else HANDSHAKE[index - 1][2], speaker, frame): following
    for index, (speaker, frame, following) in enumerate(HANDSHAKE)
} | {(State.OPEN, speaker, frame): State.OPEN for speaker, frames in TRAFFIC.items() for frame in frames}
ALLOWED[(State.PROVING, "broker", "revoked")] = State.PROVING

PAIRS: Final = [(state, kind) for state in State for kind in sorted(KINDS, key=lambda kind: kind.__name__)]
OTHER: Final[dict[Side, Side]] = {"daemon": "broker", "broker": "daemon"}


def name_of(kind: type[Frame]) -> str:
    return kind.__name__ if kind is UnknownFrame else kind.TYPE  # type: ignore[union-attr]


def session_in(state: State, side: Side) -> Session:
    session = Session(side)
    session.state = state
    return session


def test_the_samples_have_every_type_of_frame() -> None:
    """17 types and the unknown one."""
    assert len(KINDS) == len(FRAME_TYPES) + 1
    assert UnknownFrame in KINDS


@pytest.mark.parametrize("speaker", ["daemon", "broker"])
@pytest.mark.parametrize(("state", "kind"), PAIRS, ids=lambda value: getattr(value, "__name__", value))
def test_one_step_from_every_state_with_every_frame(state: State, kind: type[Frame], speaker: Side) -> None:
    """Both sides agree on each state, frame and sender; a frame that is not allowed changes nothing."""
    following = state if kind in ANYTIME else ALLOWED.get((state, speaker, name_of(kind)))
    sender, receiver = session_in(state, speaker), session_in(state, OTHER[speaker])
    for session, step in ((sender, sender.send), (receiver, receiver.receive)):
        if following is None:
            with pytest.raises(SessionViolation) as caught:
                step(kind)
            assert f"frame of type {name_of(kind)} in the state {state.value}" in caught.value.message
            assert session.state is state
        else:
            step(kind)
            assert session.state is following


def test_two_sides_open_together() -> None:
    """Both are open after the last frame of the handshake, and not before."""
    daemon, broker = Session("daemon"), Session("broker")
    by_name = {name_of(kind): kind for kind in KINDS}
    for speaker, name, following in HANDSHAKE:
        assert not daemon.is_open
        if speaker == "broker":
            broker.send(by_name[name])
            daemon.receive(by_name[name])
        else:
            daemon.send(by_name[name])
            broker.receive(by_name[name])
        assert daemon.state is broker.state is following
    assert daemon.is_open
    assert broker.is_open


def test_violation_is_a_protocol_error_that_closes_with_4000() -> None:
    """The connection ends."""
    with pytest.raises(ProtocolError) as caught:
        Session("broker").receive(Send)
    assert isinstance(caught.value, SessionViolation)
    assert caught.value.code == "protocol_error"
    assert caught.value.close_code is CloseCode.PROTOCOL_ERROR


def edges() -> set[tuple[str, str, str, str]]:
    """The table as state, frame, side and following state."""
    return {
        (state.value, name_of(kind), side, following.value)
        for side, states in TRANSITIONS.items()
        for state, steps in states.items()
        for kind, following in steps.items()
    }


def section() -> str:
    """The part of the page that describes the states."""
    return PAGE.read_text().partition("\n### Session states\n")[2].partition("\n### ")[0]


def test_the_page_lists_the_table() -> None:
    """docs/spec/protocol.md, Session states: each row is a set of edges."""
    rows = re.findall(r"^\| `(\w+)` \| (`.+`) \| (\w+) \| `(\w+)` \|$", section(), re.MULTILINE)
    listed = {
        (state, frame, side, following)
        for state, names, side, following in rows
        for frame in re.findall(r"`(\w+)`", names)
    }
    assert listed == edges()


def test_the_diagram_of_the_page_draws_the_table() -> None:
    """The labels of an arrow are the frames, with the side that sends them."""
    block = section().partition("```mermaid\nstateDiagram-v2\n")[2].partition("```")[0]
    arrows = re.findall(r"^ *(\w+) --> (\w+): (.+) \((daemon|broker)\)$", block, re.MULTILINE)
    drawn = {
        (state, frame, side, following)
        for state, following, names, side in arrows
        for frame in names.split(", ")
    }
    assert drawn == edges()
    assert "[*] --> connected" in block
