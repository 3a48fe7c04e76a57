"""Rotation of this member's keys: new keys, archive, broker, keypair.json, in this order.

The crash story stands in home/keyring.py. A rotation whose outcome is unknown goes on when the link opens:
the broker refuses a hello by the older key when it has committed, and takes the same request again otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from msgspec import Struct

from claudemesh.daemon.address import BrokerAddress
from claudemesh.daemon.calls import Ask, broker_unavailable
from claudemesh.home.key_archive import DAY_MS, Moment
from claudemesh.home.keyring import Keyring, NextKeys
from claudemesh.protocol import http_replies, replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import UlidFactory
from claudemesh.protocol.keys import Identity, new_identity
from claudemesh.protocol.possession import prove_possession
from claudemesh.protocol.rotation import PURPOSE, Rotation, make_rotation
from claudemesh.protocol.signing import sign_request
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.brokerhttp import ask_broker
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.exchange import Redirected
from claudemesh.runtime.exits import PERMISSION, ExitWith
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner

log = get_logger("keys")

PENDING: Final = "key_rotation_pending"
# Refusals of a rotation for good. After any other error the outcome may be unknown, so it goes on.
FINAL: Final = frozenset(
    {
        "bad_signature",
        "invalid_key_id",
        "invalid_params",
        "invalid_rotation",
        "invalid_signature",
        "key_rotated_out",
        "key_taken",
        "not_a_member",
        "not_authorized",
        "too_many_rotations",
        "unknown_field",
        "unknown_method",
    }
)
_DEADLINE_S = 30.0
_MAX_ANSWER = 1 << 16


class RotationOutcome(Struct, frozen=True):
    """The member's keys after a rotation; `is_pending`: the broker has not answered yet."""

    old_pubkey: str
    pubkey: str
    key_id: str
    is_pending: bool


class RotationParts(Struct, frozen=True, kw_only=True):
    """The parts that a rotation works with. `grace_days` returns the grace period of archived keys in days.

    `force_expired` counts archived keys that made room for another one.
    """

    mesh_id: str
    address: BrokerAddress
    keyring: Keyring
    ask: Ask
    is_connected: Callable[[], bool]
    clock: Clock
    lived: LivedClock
    conditions: Conditions
    tasks: TaskOwner
    backoff: Backoff
    grace_days: Callable[[], int]
    force_expired: Callable[[int], None]


class KeyRotation:
    """Rotates the keys of this member, one rotation at a time."""

    def __init__(self, parts: RotationParts) -> None:
        self._parts = parts
        self._keyring = parts.keyring
        self._lock = asyncio.Lock()
        self._show()

    async def rotate(self) -> RotationOutcome:
        """Replace both key pairs; one that is pending goes on instead. Raise the broker's `ProtocolError`.

        Without a link nothing changes. After a lost answer the outcome is pending.
        """
        if not self._parts.is_connected():
            raise broker_unavailable()
        old_pubkey = self._keyring.pubkey
        async with self._lock:
            if self._keyring.pubkey != old_pubkey:
                return self._outcome(old_pubkey)  # another caller's rotation has just ended
            if self._keyring.next is None:
                self._prepare()
            try:
                await self._finish()
            except ProtocolError as error:
                if error.code in FINAL:
                    raise
                log.warning("key_rotation_pending", error=error.code)
        return self._outcome(old_pubkey)

    def link_up(self) -> None:
        """Finish a rotation whose outcome is unknown. The broker knows the older key still."""
        if self._keyring.next is not None:
            self._parts.tasks.start(self._resume(), "key_rotation")

    def rotated_out(self) -> ExitWith | None:
        """React to a broker that knows a newer key of this member; return the reason to stop, if any.

        A pending rotation is finished: its keys are the newer ones.
        """
        if self._keyring.next is not None:
            self._install()
            return None
        return ExitWith(
            PERMISSION,
            "key_rotated_out",
            "The broker knows newer keys of this member: they were rotated after this host's copy of the "
            "keys was made, perhaps before a backup of it was restored. Restore a newer backup. Without one, "
            "`claudemesh daemon remint` makes new keys and a new member, or join again with a new invite.",
        )

    def expire(self) -> int:
        """Remove archived keys whose grace period has passed in lived time; return how many."""
        removed = self._keyring.expire(self._parts.lived.now_ms(), self._grace_ms)
        if removed:
            log.info("archived_keys_expired", count=removed)
        return removed

    @property
    def _grace_ms(self) -> int:
        return self._parts.grace_days() * DAY_MS

    def _prepare(self) -> None:
        old, mesh_id = self._keyring.current, self._parts.mesh_id
        new = new_identity(secrets.token_bytes, f"k_{self._new_ulid()}")
        statement = make_rotation(old, new, mesh_id=mesh_id, rotated_at_ms=self._parts.clock.wall_ms())
        statement = statement.with_older_key(old.x25519_pubkey, old.x25519_signature)
        self._keyring.prepare(NextKeys(new, statement))
        self._show()
        failpoint("rotate.after_next")

    def _new_ulid(self) -> str:
        return UlidFactory(self._parts.clock.wall_ms, secrets.token_bytes).new()

    async def _finish(self) -> None:
        """Archive, ask the broker, install. After a `ProtocolError` that is final it is rolled back."""
        following = self._keyring.next
        assert following is not None
        now = Moment(self._parts.clock.wall_ms(), self._parts.lived.now_ms())
        self._parts.force_expired(self._keyring.archive_current(now, self._grace_ms))
        failpoint("rotate.after_archive")
        try:
            params = await rotation_params(
                self._parts.mesh_id, self._parts.address, (following.statement,), following.identity
            )
            pubkey = await self._parts.ask("rotate_keys", params, replies.keys_rotated)
        except ProtocolError as error:
            if error.code in FINAL:
                self._keyring.roll_back()
                self._show()
                log.warning("key_rotation_refused", error=error.code)
            raise
        if pubkey != following.identity.ed25519_pubkey:
            raise replies.BadReply("rotate_keys.pubkey", "The broker answers with another key.")
        failpoint("rotate.after_broker")
        if self._keyring.next is following:
            self._install()

    def _install(self) -> None:
        old_pubkey = self._keyring.pubkey
        self._keyring.install_next()
        failpoint("rotate.after_keypair")
        self._keyring.forget_next()
        self._show()
        log.info("keys_rotated", old_pubkey=old_pubkey, pubkey=self._keyring.pubkey)

    async def _resume(self) -> None:
        async with self._lock:
            for attempt in range(1, 1_000_000):
                if self._keyring.next is None or not self._parts.is_connected():
                    return
                try:
                    await self._finish()
                except ProtocolError as error:
                    if error.code in FINAL:
                        return
                    log.info("key_rotation_pending", error=error.code)
                    await asyncio.sleep(self._parts.backoff.delay_s(attempt))

    def _outcome(self, old_pubkey: str) -> RotationOutcome:
        following = self._keyring.next
        shown = self._keyring.current if following is None else following.identity
        return RotationOutcome(old_pubkey, shown.ed25519_pubkey, shown.key_id, following is not None)

    def _show(self) -> None:
        text = None
        if self._keyring.next is not None:
            text = (
                "A rotation of this member's keys is not finished: the broker has not confirmed it yet. The "
                "daemon goes on with it by itself. Messages are sent and opened meanwhile."
            )
        self._parts.conditions.set(PENDING, text)


async def rotation_params(
    mesh_id: str, address: BrokerAddress, statements: tuple[Rotation, ...], new: Identity
) -> dict[str, Any]:
    """Return the parameters of `rotate_keys`. `ProtocolError` broker_unavailable when it gives no key."""
    proof = sign_request(new, purpose=PURPOSE, mesh_id=mesh_id, payload=statements[-1].signature)
    key = await asyncio.to_thread(_challenge_key, address)
    try:
        possession = prove_possession(new.x25519_privkey, key, new.ed25519_pubkey)
    except ValueError as error:
        raise replies.BadReply("join/challenge.challenge_key", str(error)) from error
    return {
        "rotations": [statement.to_dict() for statement in statements],
        "x25519_signature": base64.b64encode(new.x25519_signature).decode(),
        "key_id": new.key_id,
        "proof": base64.b64encode(proof).decode(),
        "x25519_proof": base64.b64encode(possession).decode(),
    }


def _challenge_key(address: BrokerAddress) -> str:
    ask = partial(ask_broker, ca_file=address.ca_file, deadline_s=_DEADLINE_S, most_bytes=_MAX_ANSWER)
    try:
        answer = ask(address.url, "GET", "/v1/join/challenge")
    except (OSError, http.client.HTTPException, Redirected) as error:
        raise broker_unavailable() from error
    if answer.status != 200:
        raise broker_unavailable()
    return http_replies.challenge(answer.body).key
