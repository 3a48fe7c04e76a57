"""Admission of browsers: codes that begin one session each, and sessions of two parts."""

from __future__ import annotations

import pytest

from claudemesh.runtime.console.admission import (
    CODE_MS,
    COOKIE_PREFIX,
    SESSION_MS,
    Admission,
    BrowserSession,
    begin,
    is_session,
)

TOKEN = b"t" * 43
SESSION = begin(TOKEN, 1000, b"n" * 16)
COOKIES = COOKIE_PREFIX + b"7901=" + SESSION.cookie


class Hours:
    """A host-lived clock that a test moves."""

    ms = 1000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Hours:
    return Hours()


@pytest.fixture
def admission(clock: Hours) -> Admission:
    made = Admission(clock)
    made.opened(7901, TOKEN)
    return made


def entered(admission: Admission) -> BrowserSession:
    found = admission.begin_session(admission.make_code())
    assert found is not None
    return found


def admits(admission: Admission, session: BrowserSession) -> bool:
    return admission.is_session(COOKIE_PREFIX + b"7901=" + session.cookie, session.key)


def test_a_code_begins_one_session(admission: Admission) -> None:
    code = admission.make_code()
    assert admission.begin_session(code) is not None
    assert admission.begin_session(code) is None


def test_a_code_ends_after_a_minute(admission: Admission, clock: Hours) -> None:
    last, late = admission.make_code(), admission.make_code()
    clock.ms += CODE_MS - 1
    assert admission.begin_session(last) is not None
    clock.ms += 1
    assert admission.begin_session(late) is None


@pytest.mark.parametrize("code", ["", "x", "A" * 22])
def test_a_guess_begins_nothing(admission: Admission, code: str) -> None:
    admission.make_code()
    assert admission.begin_session(code) is None


def test_only_the_newest_codes_are_kept(admission: Admission) -> None:
    first, *others = [admission.make_code() for _ in range(17)]
    assert admission.begin_session(first) is None
    assert all(admission.begin_session(code) is not None for code in others)


def test_a_session_ends_after_twelve_hours(admission: Admission, clock: Hours) -> None:
    session = entered(admission)
    clock.ms += SESSION_MS - 1
    assert admits(admission, session)
    clock.ms += 1
    assert not admits(admission, session)


def test_all_sessions_end_with_the_token(admission: Admission) -> None:
    session = entered(admission)
    admission.rotated(b"u" * 43)
    assert not admits(admission, session)
    assert admits(admission, entered(admission))


def test_a_second_code_of_a_browser_leaves_its_first_page_signed_in(
    admission: Admission, clock: Hours
) -> None:
    """The browser keeps one cookie: the later one, which is good for the keys of both pages."""
    first = entered(admission)
    clock.ms += SESSION_MS // 2
    second = admission.begin_session(admission.make_code(), COOKIE_PREFIX + b"7901=" + first.cookie)
    assert second is not None
    clock.ms += SESSION_MS - 1
    assert admits(admission, BrowserSession(second.cookie, first.key))
    assert admits(admission, second)
    assert not admits(admission, first)


@pytest.mark.parametrize("token", [TOKEN, b"u" * 43], ids=["ended", "of-another-token"])
def test_a_cookie_that_is_good_for_nothing_is_not_prolonged(
    admission: Admission, clock: Hours, token: bytes
) -> None:
    first = begin(token, 1000, b"n" * 16)
    clock.ms += SESSION_MS if token == TOKEN else 1
    second = admission.begin_session(admission.make_code(), COOKIE_PREFIX + b"7901=" + first.cookie)
    assert second is not None and second.key != first.key


def test_a_session_outlives_a_restart_of_the_daemon(admission: Admission, clock: Hours) -> None:
    """Nothing of it is stored: the token and the host-lived time are."""
    session = entered(admission)
    again = Admission(clock)
    assert not admits(again, session)
    again.opened(7901, TOKEN)
    assert admits(again, session)


@pytest.mark.parametrize(
    ("cookies", "key"),
    [
        (COOKIES, b""),
        (COOKIES, b"0" * 64),
        (b"", SESSION.key),
        (b"session=" + SESSION.cookie, SESSION.key),
        (COOKIES[:-1] + b"0" * (COOKIES[-1:] != b"0") + b"1" * (COOKIES[-1:] == b"0"), SESSION.key),
        (COOKIES.replace(SESSION.cookie[:4], b"9999"), SESSION.key),
        (COOKIES, begin(TOKEN, 1000, b"m" * 16).key),
        (COOKIES, begin(b"u" * 43, 1000, b"n" * 16).key),
    ],
    ids=[
        "no-key",
        "wrong-key",
        "no-cookie",
        "other-name",
        "changed",
        "longer",
        "key-of-another",
        "other-token",
    ],
)
def test_a_request_needs_both_parts_of_one_session(cookies: bytes, key: bytes) -> None:
    assert is_session(TOKEN, COOKIES, SESSION.key, 1001)
    assert not is_session(TOKEN, cookies, key, 1001)


def test_a_session_is_found_among_the_cookies_of_other_ports() -> None:
    """Also behind many of them."""
    other = COOKIE_PREFIX + b"7902=" + begin(b"u" * 43, 1000, b"o" * 16).cookie
    assert is_session(TOKEN, (other + b"; theme=dark; ") * 40 + COOKIES, SESSION.key, 1001)
