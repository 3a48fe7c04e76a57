"""The link goes on trying, whatever befalls it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from claudemesh.daemon.calls import WrongReplies
from claudemesh.daemon.link import link as module
from claudemesh.daemon.link.link import Link, LinkHandlers
from claudemesh.home.membership import Membership
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.clock import SystemClock
from claudemesh.runtime.conditions import Conditions
from tests.support.wspeer import make_identity


def _ignore(*_: Any) -> None:
    """A handler that nothing reaches."""


async def test_an_unforeseen_error_is_one_more_failed_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that closes at the wrong moment raises what no library promises."""
    attempts: asyncio.Queue[None] = asyncio.Queue(maxsize=100)

    def connect(*_: Any, **__: Any) -> Any:
        attempts.put_nowait(None)
        raise RuntimeError("unable to perform operation on a closed transport")

    monkeypatch.setattr(module, "Dial", connect)
    link = Link(
        Membership("m", "demo", "ws://127.0.0.1:1", "id", "alice", "member", None),
        make_identity(),
        Backoff(initial_s=0.001, cap_s=0.001),
        LinkHandlers(_ignore, _ignore, _ignore, _ignore, _ignore),
        instance_id="one",
        host_fingerprint="",
        replies=WrongReplies(Conditions(SystemClock()), _ignore),
    )
    running = asyncio.create_task(link.run())
    for _ in range(3):
        await asyncio.wait_for(attempts.get(), 5)
    assert not running.done()
    assert "RuntimeError" in (link.last_error or "")
    running.cancel()


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 101 Switching", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"]
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_link_cut_during_the_upgrade_is_an_ordinary_failure(
    part: bytes, reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """At any byte of the answer, closed or reset: no traceback, and the next attempt follows."""
    attempts: asyncio.Queue[None] = asyncio.Queue(maxsize=100)

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(part)
        await writer.drain()
        if reset:
            link = writer.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        attempts.put_nowait(None)

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = Link(
        Membership("m", "demo", f"ws://127.0.0.1:{port}", "id", "alice", "member", None),
        make_identity(),
        Backoff(initial_s=0.001, cap_s=0.001),
        LinkHandlers(_ignore, _ignore, _ignore, _ignore, _ignore),
        instance_id="one",
        host_fingerprint="",
        replies=WrongReplies(Conditions(SystemClock()), _ignore),
    )
    running = asyncio.create_task(link.run())
    for _ in range(3):
        await asyncio.wait_for(attempts.get(), 10)
    assert not running.done()
    assert (link.last_error or "").startswith(f"cannot reach ws://127.0.0.1:{port}")
    running.cancel()
    server.close()
    assert not [record for record in caplog.records if record.exc_info]
    assert "link_error_unlisted" not in caplog.text
