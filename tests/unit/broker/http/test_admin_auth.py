"""Authorization by the admin token: one header, and a rate limit of wrong tokens by address."""

from __future__ import annotations

from typing import Any

import pytest

from claudemesh.broker.http.admin_auth import BURST, EACH_S, AdminAuth
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.console.admission import CONSOLE_KEY, COOKIE_PREFIX, Admission, BrowserSession
from tests.support.clock import ManualClock

TOKEN = b"s3cret"


def scope(*headers: tuple[bytes, bytes], client: str = "10.0.0.1") -> dict[str, Any]:
    return {"type": "http", "path": "/v1/admin/meshes", "headers": list(headers), "client": (client, 1)}


def bearing(token: bytes, client: str = "10.0.0.1") -> dict[str, Any]:
    return scope((b"authorization", b"Bearer " + token), client=client)


def refusal(auth: AdminAuth, asked: dict[str, Any]) -> str:
    with pytest.raises(ProtocolError) as caught:
        auth.require(asked)
    assert caught.value.message.endswith(".")
    return caught.value.code


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer"])
def test_the_token_is_accepted(scheme: bytes) -> None:
    """The scheme's case does not matter."""
    AdminAuth(TOKEN, ManualClock(0)).require(scope((b"authorization", scheme + b" " + TOKEN)))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", TOKEN)],
        [(b"authorization", b"Basic " + TOKEN)],
        [(b"authorization", b"Bearer \xff")],
        [(b"authorization", b"Bearer " + b"x" * 4096)],
        [(b"authorization", b"Bearer " + TOKEN), (b"authorization", b"Bearer " + TOKEN)],
    ],
)
def test_anything_else_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    """401 for a wrong token, another scheme, two headers, or none."""
    assert refusal(AdminAuth(TOKEN, ManualClock(0)), scope(*headers)) == "unauthenticated"


def test_wrong_tokens_are_limited_by_address() -> None:
    """After ten, one in six seconds; another address is not affected."""
    clock = ManualClock(0)
    auth = AdminAuth(TOKEN, clock)
    for _ in range(BURST):
        assert refusal(auth, bearing(b"wrong")) == "unauthenticated"
    assert refusal(auth, bearing(TOKEN)) == "too_many_guesses"
    auth.require(bearing(TOKEN, client="10.0.0.2"))
    clock.advance(seconds=EACH_S)
    auth.require(bearing(TOKEN))


def test_guesses_through_a_proxy_do_not_lock_out_the_operator_beside_it() -> None:
    """Requests that a proxy has forwarded are counted apart."""
    auth = AdminAuth(TOKEN, ManualClock(0))
    wrong = (b"authorization", b"Bearer wrong")
    for _ in range(BURST + 1):
        refusal(auth, scope(wrong, (b"x-forwarded-for", b"1.2.3.4")))
    auth.require(bearing(TOKEN))


def browsing(session: BrowserSession, method: str, **other: bytes) -> dict[str, Any]:
    cookie = COOKIE_PREFIX + b"7900=" + other.get("cookie", session.cookie)
    headers = (b"cookie", cookie), (CONSOLE_KEY, other.get("key", session.key))
    return {**scope(*headers), "method": method}


def test_a_session_of_a_browser_reads_and_never_acts() -> None:
    sessions = Admission(lambda: 0)
    sessions.opened(7900, TOKEN)
    session = sessions.begin_session(sessions.make_code())
    assert session is not None
    auth = AdminAuth(TOKEN, ManualClock(0), sessions)
    for method in ("GET", "HEAD"):
        auth.require(browsing(session, method))
    for method in ("POST", "DELETE", "PUT"):
        assert refusal(auth, browsing(session, method)) == "unauthenticated"
    for wrong in ({"cookie": b"x"}, {"key": b"x"}, {"key": b""}):
        assert refusal(auth, browsing(session, "GET", **wrong)) == "unauthenticated"
    assert refusal(AdminAuth(TOKEN, ManualClock(0)), browsing(session, "GET")) == "unauthenticated"
    other = Admission(lambda: 0)
    other.opened(7900, b"another token")
    assert (
        refusal(AdminAuth(b"another token", ManualClock(0), other), browsing(session, "GET"))
        == "unauthenticated"
    )
