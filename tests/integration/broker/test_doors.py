"""HTTP of a broker: the admin token has a brake, and web pages are kept out."""

from __future__ import annotations

import pytest

from claudemesh.broker.http.admin_auth import BURST, EACH_S
from tests.support.broker import create_mesh, running_broker
from tests.support.clock import ManualClock
from tests.support.wspeer import http_request, invite_fields, make_invite

LIST = ("GET", "/v1/admin/meshes")
WRONG = "x" * 43


async def test_guesses_of_the_admin_token_are_braked_and_the_right_one_works_again() -> None:
    """Ten at once, then one each six seconds; while it is braked, not even the right one is compared."""
    clock = ManualClock()
    async with running_broker(clock=clock) as broker:

        async def guess(token: str, **headers: str) -> tuple[int, str]:
            status, body = await http_request(broker.url, *LIST, token=token, headers=headers)
            return status, body.get("error", "")

        assert {await guess(WRONG) for _ in range(BURST)} == {(401, "unauthenticated")}
        assert await guess(WRONG) == (429, "too_many_guesses")
        assert await guess(broker.admin_token) == (429, "too_many_guesses")
        status, body = await http_request(broker.url, *LIST, token=WRONG)
        assert (status, body["retry_after_ms"]) == (429, 6000)
        clock.advance(seconds=EACH_S)
        assert (await guess(broker.admin_token))[0] == 200
        assert await guess(WRONG) == (401, "unauthenticated")
        assert await guess(WRONG) == (429, "too_many_guesses")


async def test_guesses_through_a_proxy_do_not_keep_the_operator_on_the_host_out() -> None:
    async with running_broker(clock=ManualClock()) as broker:
        through_proxy = {"x-forwarded-for": "203.0.113.7"}
        found = [
            (await http_request(broker.url, *LIST, token=WRONG, headers=through_proxy))[0]
            for _ in range(BURST + 1)
        ]
        assert found == [401] * BURST + [429]
        assert (await http_request(broker.url, *LIST, token=broker.admin_token))[0] == 200


async def test_requests_without_a_token_are_no_guesses() -> None:
    async with running_broker(clock=ManualClock()) as broker:
        for _ in range(BURST * 2):
            assert (await http_request(broker.url, *LIST))[0] == 401
        assert (await http_request(broker.url, *LIST, token=broker.admin_token))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:7900"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/v1/admin/meshes", "/v1/join/challenge", "/no"])
async def test_a_web_page_may_not_ask_a_broker(path: str, headers: dict[str, str]) -> None:
    async with running_broker() as broker:
        status, body = await http_request(broker.url, "GET", path, token=broker.admin_token, headers=headers)
    assert (status, body["error"]) == (403, "origin_not_allowed")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7900", "localhost@evil", "", "[::1", "a b"])
async def test_a_name_that_was_pointed_at_the_loopback_gets_nothing(host: str) -> None:
    """DNS rebinding: such a page is of the same origin, and names no other."""
    async with running_broker() as broker:
        for path in ("/metrics", "/v1/join/challenge"):
            status, body = await http_request(broker.url, "GET", path, headers={"host": host})
            assert (status, body["error"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "localhost:7900", "127.0.0.1:1", "[::1]:7900", "10.0.0.7"])
async def test_addresses_and_localhost_are_answered(host: str) -> None:
    async with running_broker() as broker:
        assert (await http_request(broker.url, "GET", "/healthz", headers={"host": host}))[0] == 200


async def test_behind_a_proxy_any_name_is_answered() -> None:
    """A proxy may put a name of its own into the header."""
    async with running_broker(public_url=("wss://mesh.example.org",)) as broker:
        assert (await http_request(broker.url, "GET", "/healthz", headers={"host": "upstream"}))[0] == 200


@pytest.mark.parametrize("limit", ["9" * 5000, "0", "-1", "1001", "\u0663", "1e3", ""])
async def test_a_wrong_limit_is_named_however_long_it_is(limit: str) -> None:
    async with running_broker() as broker:
        await create_mesh(broker)
        path = f"/v1/admin/audit?mesh=home&limit={limit.encode().hex() if not limit.isascii() else limit}"
        status, body = await http_request(broker.url, "GET", path, token=broker.admin_token)
    assert (status, body["error"]) == (400, "invalid_limit")


async def test_an_invite_that_the_broker_never_saw_is_revoked_before_its_first_use() -> None:
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        link = make_invite(ada)
        body = {"mesh": "home", "invite_id": invite_fields(link)["invite_id"]}
        token = broker.admin_token
        status, answer = await http_request(broker.url, "POST", "/v1/admin/invites/revoke", body, token=token)
        assert (status, answer["status"]) == (200, "revoked")
        listed = await http_request(broker.url, "GET", "/v1/admin/invites?mesh=home", token=token)
        [item] = listed[1]["items"]
        assert (item["invite_id"], item["role"], item["created_by"]) == (body["invite_id"], None, None)
        wrong = {"mesh": "home", "invite_id": "no-such-invite"}
        refused = await http_request(broker.url, "POST", "/v1/admin/invites/revoke", wrong, token=token)
        assert (refused[0], refused[1]["error"]) == (400, "invalid_ulid")
