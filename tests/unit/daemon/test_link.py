"""The link goes on trying, whatever befalls it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from claudemesh.daemon import link as module
from claudemesh.daemon.identity.keyring import Membership
from claudemesh.daemon.link import Link, LinkHandlers
from claudemesh.runtime.backoff import Backoff
from tests.support.wspeer import make_identity


def _ignore(*_: Any) -> None:
    """A handler that nothing reaches."""


async def test_an_unforeseen_error_is_one_more_failed_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that closes at the wrong moment raises what no library promises."""
    attempts: asyncio.Queue[None] = asyncio.Queue(maxsize=100)

    def connect(*_: Any, **__: Any) -> Any:
        attempts.put_nowait(None)
        raise RuntimeError("unable to perform operation on a closed transport")

    monkeypatch.setattr(module, "connect", connect)
    link = Link(
        Membership("m", "demo", "ws://127.0.0.1:1", "id", "alice", "member", None),
        make_identity(),
        Backoff(initial_s=0.001, cap_s=0.001),
        LinkHandlers(_ignore, _ignore, _ignore, _ignore, _ignore),
        instance_id="one",
        host_fingerprint="",
    )
    running = asyncio.create_task(link.run())
    for _ in range(3):
        await asyncio.wait_for(attempts.get(), 5)
    assert not running.done()
    assert "RuntimeError" in (link.last_error or "")
    running.cancel()
