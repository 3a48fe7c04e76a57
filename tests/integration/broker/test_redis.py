"""A broker that limits rates with Redis, and one whose Redis goes away."""

from __future__ import annotations

from claudemesh.broker.settings import Limits
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.redis import redis_server
from tests.support.wspeer import http_request


async def test_a_broker_counts_in_redis_and_outlives_it() -> None:
    """Without Redis everything goes on, and /readyz says so."""
    # One that answers late on a loaded machine is not away.
    limits = Limits(redis_s=30.0)
    with redis_server() as server:
        async with running_broker(redis_url=server.url, limits=limits) as broker:
            owner = await create_mesh(broker, rate_limit_per_minute=12)
            bob = await join_mesh(owner, "bob")
            async with owner.connect() as link:
                statuses = [(await link.request(owner.envelope(bob)))["status"] for _ in range(4)]
                assert statuses == [201, 201, 201, 429]
                assert (await http_request(broker.url, "GET", "/readyz"))[1]["limiter"] == "redis"
                server.stop()
                assert (await link.request(owner.envelope(bob)))["status"] == 201
            status, body = await http_request(broker.url, "GET", "/readyz")
            assert (status, body["limiter"]) == (200, "open")
