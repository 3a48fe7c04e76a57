"""A broker killed while it makes an epoch or adds wraps: each is there whole, or not at all."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration.broker import test_topic_keys as keys
from tests.support.broker import create_mesh, join_mesh
from tests.support.postgres import empty_database
from tests.support.processes import Broker
from tests.support.wspeer import Peer

TOKEN = "the-token-of-the-broker-that-is-killed"
both = pytest.mark.parametrize("engine", ["sqlite", "postgres"])


@asynccontextmanager
async def killed_at(engine: str, folder: Path, failpoint: str) -> AsyncGenerator[tuple[Broker, Peer, Peer]]:
    """A broker that dies at a failpoint, and two members of a mesh."""
    if engine == "postgres":
        async with empty_database() as url, _killed_at(Broker(folder, url), failpoint) as made:
            yield made
    else:
        async with _killed_at(Broker(folder), failpoint) as made:
            yield made


@asynccontextmanager
async def _killed_at(broker: Broker, failpoint: str) -> AsyncGenerator[tuple[Broker, Peer, Peer]]:
    broker.environment["CLAUDEMESH_BROKER_ADMIN_TOKEN"] = TOKEN
    broker.start(f"{failpoint}=kill@1")
    try:
        broker.ready()
        address: Any = SimpleNamespace(url=broker.url, admin_token=TOKEN)
        ada = await create_mesh(address)
        yield broker, ada, await join_mesh(ada, "bob")
    finally:
        if broker.running:
            broker.kill()


def again(broker: Broker) -> None:
    """Wait for its end, and start it without failpoints."""
    broker.wait_killed()
    broker.start()
    broker.ready()


@both
@pytest.mark.parametrize("step", ["after_insert", "before_commit", "after_commit"])
async def test_an_epoch_of_a_broker_that_is_killed_is_whole_or_not_there(
    engine: str, step: str, tmp_path: Path
) -> None:
    """The maker repeats its call in both cases, and the epoch has its wraps then."""
    async with killed_at(engine, tmp_path, f"topic_epoch.{step}") as (broker, ada, bob):
        key = keys.TopicKey("all", 1, bytes(range(32)))
        epoch = keys.sign_epoch(ada.identity, ada.mesh_id, key).to_dict()
        wraps = [keys.wrap(key, ada, one) for one in (ada, bob)]
        params: dict[str, Any] = {"topic": "all", "expected": 0, "epoch": epoch, "wraps": wraps}
        with pytest.raises(ConnectionClosed):
            async with ada.connect() as one:
                await one.call("topic_epoch_create", **params)
        again(broker)
        async with ada.connect() as one, bob.connect() as two:
            found = await keys.keys_of(two)
            if step == "after_commit":
                assert found.current is not None
                assert (len(found.wraps), found.missing) == (1, ())
            else:
                assert (found.current, found.wraps) == (None, ())
            assert (await one.call("topic_epoch_create", **params))["ok"] == {"key_epoch": 1}
            found = await keys.keys_of(two)
            assert (len(found.wraps), found.missing) == (1, ())
            assert (await one.request(keys.sealed(ada, key, b"text")))["status"] == 201


@both
async def test_wraps_of_a_broker_that_is_killed_are_added_once_more(engine: str, tmp_path: Path) -> None:
    """None of them was there, so the member is still listed as without a key."""
    async with killed_at(engine, tmp_path, "topic_wraps.before_commit") as (broker, ada, bob):
        with pytest.raises(ConnectionClosed):
            async with ada.connect() as one:
                key, _ = await keys.make(one, ada)
                params: dict[str, Any] = {"topic": "all", "key_epoch": 1, "wraps": [keys.wrap(key, ada, bob)]}
                await one.call("topic_wrap_add", **params)
        again(broker)
        async with ada.connect() as one:
            assert [each.name for each in (await keys.keys_of(one)).missing] == ["bob"]
            assert (await one.call("topic_wrap_add", **params))["ok"] == {"added": 1}
            assert (await keys.keys_of(one)).missing == ()
