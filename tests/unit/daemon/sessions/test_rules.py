"""Rules of sessions: their names, their ends, and the one that gets the messages for the host."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.sessions.state import (
    ProcessMark,
    Registration,
    Session,
    as_name,
    choose_name,
    has_ended,
    receiver,
    same_session,
)
from claudemesh.protocol.ids import SLUG


def about(**fields: Any) -> Registration:
    return Registration(**{"client": "claude-code", "reach": "pull", **fields})


def session(name: str = "api", **fields: Any) -> Session:
    given: dict[str, Any] = {"activity": "idle", "expires_at": 90.0, "active_at": 0.0, "about": about()}
    return Session(session_id=f"id-{name}", name=name, **{**given, **fields})


@given(st.text())
def test_each_text_becomes_a_valid_name_or_none(text: str) -> None:
    """Directories have names of any characters."""
    name = as_name(text)
    assert name == "" or SLUG.fullmatch(name)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"name": "web", "cwd": "/src/api"}, "web"),
        ({"cwd": "/src/My API/"}, "my-api"),
        ({"cwd": "/"}, "claude-code"),
        ({"client": "日本"}, "session"),
    ],
)
def test_a_session_is_named_by_its_project(fields: dict[str, Any], name: str) -> None:
    """The given name, else the directory's, else the client's."""
    assert choose_name(about(**fields), {}, []) == name


def test_a_name_returns_to_the_project_that_had_it_and_to_no_other() -> None:
    """Two projects with directories of the same name, whichever comes back first."""
    known = {"api": "/one/api", "api-2": "/two/api"}
    assert choose_name(about(cwd="/two/api"), known, []) == "api-2"
    assert choose_name(about(cwd="/one/api"), known, ["api-2"]) == "api"
    assert choose_name(about(cwd="/three/api"), known, []) == "api-3"
    assert choose_name(about(cwd="/one/api"), known, ["api"]) == "api-3"


@given(
    st.dictionaries(
        st.sampled_from(["a", *(f"a-{n}" for n in range(2, 9))]), st.sampled_from(["/a", "/b/a", None])
    ),
    st.data(),
)
def test_a_chosen_name_is_free(known: dict[str, str | None], data: st.DataObject) -> None:
    """It is in use by no live session, and kept for no other project."""
    live = data.draw(st.lists(st.sampled_from(sorted(known)), unique=True)) if known else []
    name = choose_name(about(cwd="/a"), known, live)
    assert name not in live
    assert known.get(name) in (None, "/a")
    assert choose_name(about(name="x" * 63, cwd="/a"), {"x" * 63: "/b"}, []) == "x" * 61 + "-2"


def test_a_session_ends_with_its_lease_or_its_process() -> None:
    """A session without a pid has its lease alone."""
    assert not has_ended(session(), 89.9, lambda process: False)
    assert has_ended(session(), 90.0, lambda process: True)
    one = session(about=about(process=ProcessMark(7, 100)))
    assert has_ended(one, 1.0, lambda process: False)
    assert not has_ended(one, 1.0, lambda process: True)


def test_a_session_that_registers_again_is_the_same_one() -> None:
    """By its process, else by the client's own id; a recycled pid is another process."""
    one = session(about=about(cwd="/a", process=ProcessMark(7, 100), client_session_id="x"))
    assert same_session([one], about(cwd="/a", process=ProcessMark(7, 100), client_session_id="y")) == one
    assert same_session([one], about(cwd="/a", process=ProcessMark(7, 101), client_session_id="x")) is None
    assert same_session([one], about(cwd="/a", client_session_id="x")) == one
    assert same_session([one], about(cwd="/b", client_session_id="x")) is None
    assert same_session([one], about(cwd="/a")) is None


def test_an_idle_session_with_the_best_reach_gets_the_messages_for_the_host() -> None:
    """Else the one that was active last. One that is away gets them only when it asks."""
    push = session("push", about=about(reach="push"), active_at=1.0)
    busy = session("busy", about=about(reach="push"), activity="working", active_at=3.0)
    pull = session("pull", active_at=2.0)
    other = session("other", active_at=1.5)
    away = session("away", activity="away", active_at=9.0)
    assert receiver([pull, push, busy], pull) == push
    assert receiver([pull, other, busy], other) == pull
    late = session("late", activity="working", active_at=4.0)
    assert receiver([busy, late], busy) == late
    assert receiver([busy, away], busy) == busy
    assert receiver([away], away) == away
