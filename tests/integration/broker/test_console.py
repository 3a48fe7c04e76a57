"""The routes behind the console of a broker (docs/spec/broker.md, Console)."""

from __future__ import annotations

from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.wspeer import http_request


async def test_the_state_and_the_connections_of_a_broker_are_told() -> None:
    """By the admin token. A page of connections ends at its limit, and the next one goes on behind it."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link:
            await link.request(ada.envelope(bob))
            async with bob.connect() as receiving:
                await receiving.deliveries(1)
                found = []
                after = ""
                for _ in range(2):
                    path = f"/v1/admin/connections?mesh=home&limit=1{after}"
                    status, page = await http_request(broker.url, "GET", path, token=broker.admin_token)
                    assert status == 200
                    found += page["items"]
                    after = f"&after={page['next']}"
                assert page["next"] is None
                state = await http_request(broker.url, "GET", "/v1/admin/state", token=broker.admin_token)
    assert [(one["name"], one["unacknowledged"]) for one in found] == [("owner", 0), ("bob", 1)]
    assert state[0] == 200
    assert {name: state[1][name] for name in ("connections", "deliveries_owed", "degraded", "store")} == {
        "connections": 2,
        "deliveries_owed": 1,
        "degraded": [],
        "store": "sqlite",
    }


async def test_a_broker_without_the_console_serves_neither_page_nor_codes() -> None:
    async with running_broker(console=False) as broker:
        for method, path in (
            ("GET", "/console"),
            ("GET", "/console/app.js"),
            ("POST", "/v1/admin/console/code"),
            ("POST", "/v1/console/session"),
        ):
            status, _ = await http_request(broker.url, method, path, token=broker.admin_token)
            assert status == 404, path
