"""Moves of the mesh: statements of owners that the broker is dialled at another address.

See docs/spec/lifecycle.md, Moving a mesh. The broker passes a statement on; its signature by an owner whose
key is pinned here makes it valid. The new address is asked first, then dialled, and kept when a session has
opened there. Attempts that fail are repeated at growing intervals, and the link at the present address stays.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from claudemesh.daemon.address import BrokerAddress, Move
from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import ACTIVE, Peer
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import MeshMoved, News
from claudemesh.protocol.replies import move_reply
from claudemesh.protocol.statements import MOVE, Statement
from claudemesh.runtime.backoff import Backoff, Pause
from claudemesh.runtime.brokerhttp import ask_broker
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.exchange import Redirected
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import words
from claudemesh.runtime.outward import by_proxy, certificate_trouble
from claudemesh.runtime.urls import audience_of, is_loopback, split_broker_url

log = get_logger("moving")

CONDITION = "mesh_move_waits"
_RETRY = Backoff(initial_s=5, cap_s=3600)
_DEADLINE_S = 10.0
_MOST_BYTES = 1 << 16


def judge(
    statement: Statement, *, mesh_id: str, url: str, moved_at_ms: int, signer: Peer | None
) -> Move | str | None:
    """Return the move to follow, the reason against it, or None for a statement that is not newer.

    `signer` is the member that this host has pinned under the key of the statement.
    """
    if statement.at_ms <= moved_at_ms:
        return None
    reason = _objection(statement, mesh_id, url, signer)
    if reason is None:
        return Move(statement.detail("to"), statement.at_ms)
    # A host that dials the address already has nothing to follow.
    is_there = statement.kind == MOVE and statement.detail("to") == url
    return None if is_there else reason


def _objection(statement: Statement, mesh_id: str, url: str, signer: Peer | None) -> str | None:
    if statement.kind != MOVE or statement.subject != mesh_id or not statement.verify(mesh_id):
        return "it is not a genuine statement about this mesh"
    if (
        signer is None
        or signer.pubkey != statement.signer
        or signer.status != ACTIVE
        or signer.role != "owner"
    ):
        return "its signer is not an owner of the mesh whose key this host knows"
    to = statement.detail("to")
    try:
        new, present = split_broker_url(to), split_broker_url(url)
    except ValueError:
        return "its address is malformed"
    if present.scheme == "wss" and new.scheme != "wss":
        return f"it leads from an encrypted address to an unencrypted one, {to}"
    if is_loopback(new.hostname or "") and not is_loopback(present.hostname or ""):
        return f"it leads to {to}, which is this machine itself"
    return None


class Mover:
    """Follows the newest statement that the broker has."""

    def __init__(
        self,
        mesh_id: str,
        address: BrokerAddress,
        directory: Directory,
        ask: Ask,
        redial: Callable[[], Awaitable[None]],
        conditions: Conditions,
    ) -> None:
        """`redial` closes the link, so that it opens at the address of the next attempt."""
        self._mesh_id = mesh_id
        self._address = address
        self._directory = directory
        self._ask = ask
        self._redial = redial
        self._conditions = conditions
        self._wanted = asyncio.Event()
        self._pause = Pause()

    def link_up(self) -> None:
        """Ask the broker for its statement."""
        self._wanted.set()

    def on_event(self, news: News) -> None:
        """Ask at once when an owner has made a new statement."""
        if isinstance(news, MeshMoved):
            self._wanted.set()
            self._pause.end()

    async def run(self) -> None:
        """Look at the statement of the broker whenever it may be new, until cancelled."""
        failures = 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            reason = await self._follow()
            if reason is None:
                failures = 0
                self._conditions.end(CONDITION)
                continue
            failures += 1
            self._conditions.begin(
                CONDITION,
                f"An owner has moved the mesh to another address, but {reason}. This host goes on at "
                f"{self._address.url}, and tries again by itself. `claudemesh daemon set-broker URL` changes "
                "the address by hand.",
            )
            await self._pause.rest(_RETRY.delay_s(failures))
            self._wanted.set()

    async def _follow(self) -> str | None:
        """Follow the newest statement; return why that was not possible, None when nothing is left to do."""
        try:
            statement = await self._ask("mesh_moved", {}, move_reply)
        except (ProtocolError, ConnectionError, TimeoutError):
            # Without a link, or from a broker of an earlier release. The next link asks again.
            return None
        if statement is None:
            return None
        address = self._address
        verdict = judge(
            statement,
            mesh_id=self._mesh_id,
            url=address.url,
            moved_at_ms=address.moved_at_ms,
            signer=self._directory.by_key(statement.signer),
        )
        if not isinstance(verdict, Move):
            return verdict
        if verdict.url == address.url:
            address.follow(verdict)
            return None
        return await self._try(verdict)

    async def _try(self, move: Move) -> str | None:
        refusal = await self._asked(move.url)
        if refusal is not None:
            self._address.remember(move)
            return refusal
        outcome = self._address.propose(move)
        await self._redial()
        failure = await outcome
        if failure is not None:
            return f"no session opens at {move.url}: {failure.rstrip('.')}"
        log.info("mesh_move_followed", broker_url=move.url)
        return None

    async def _asked(self, url: str) -> str | None:
        """Return why the new address cannot be dialled, None when a broker answers there as its own."""
        ask = partial(
            ask_broker, ca_file=self._address.ca_file, deadline_s=_DEADLINE_S, most_bytes=_MOST_BYTES
        )
        path = f"/v1/join/challenge?audience={quote(audience_of(url), safe='')}"
        try:
            answer = await asyncio.to_thread(ask, url, "GET", path)
        except (OSError, http.client.HTTPException, Redirected) as error:
            refused = certificate_trouble(error)
            return (
                f"no broker answers at {url}{by_proxy(url)} ({words(error)})"
                if refused is None
                else f"at {url} {refused}"
            )
        body: Any = answer.body
        if answer.status != 200 or not isinstance(body, dict) or body.get("accepted") is not True:
            return f"no broker at {urlsplit(url).netloc} knows this address for its own"
        return None
