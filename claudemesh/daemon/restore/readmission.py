"""Readmission: asks a broker that has lost this member to add it again (see broker/http/rejoin.py).

The broker closes with `not_a_member` when no member has this host's key. That may be the effect of a
restore from a copy older than this membership, so the daemon does not stop at once. It presents the invite
by which it joined and a proof of its keys, and waits until the daemon of an owner or admin confirms it.
Meanwhile it accepts sends.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
from functools import partial
from typing import Any

from msgspec import Struct

from claudemesh.daemon.address import BrokerAddress
from claudemesh.daemon.identity.rotation import rotation_params
from claudemesh.daemon.topics.own import OwnTopics
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import Membership
from claudemesh.protocol import http_replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.invites import parse_link
from claudemesh.protocol.signing import sign_join
from claudemesh.runtime.brokerhttp import ask_broker
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.exchange import Redirected
from claudemesh.runtime.exits import PERMISSION, ExitWith
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import words
from claudemesh.runtime.urls import audience_of

log = get_logger("restore")

_UNCONFIRMED = "membership_unconfirmed"
_DEADLINE_S = 30.0
_MAX_ANSWER = 1 << 16
# Statements that a broker takes at once (broker/http/rotate.py).
_MOST_LOST = 64
_KEPT = (
    "`claudemesh join LINK` with it keeps this member, its queued sends and its inbox, and dials the address "
    "in it from then on; then start the daemon again."
)


class NotYet(Struct, frozen=True):
    """The broker may add the member later; `message` states the condition for it."""

    message: str


async def ask_to_be_taken_back(
    membership: Membership, address: BrokerAddress, keyring: Keyring
) -> NotYet | ExitWith:
    """Ask once. `NotYet`: connect again later. `ExitWith` 77: the membership cannot be proven."""
    if membership.invite is None:
        made = membership.inviter_pubkey is None
        why = "this host made the mesh, so there is no invite" if made else "this host keeps no invite"
        return _forgotten(address.url, f"{why} that proves its membership")
    try:
        body = _body(membership, address, keyring, membership.invite)
    except (ProtocolError, ValueError):
        return _forgotten(address.url, "the invite kept in membership.json is damaged")
    try:
        ask = partial(ask_broker, ca_file=address.ca_file, deadline_s=_DEADLINE_S, most_bytes=_MAX_ANSWER)
        answer = await asyncio.to_thread(ask, address.url, "POST", "/v1/rejoin", body)
    except (OSError, http.client.HTTPException, Redirected) as error:
        return NotYet(f"{address.url} does not know this member, and cannot be asked: {words(error)}.")
    return _decide(address.url, answer.status, http_replies.refused(answer.body))


class Readmission:
    """Asks once per link that the broker refuses, and shows while the member is not confirmed."""

    def __init__(
        self,
        membership: Membership,
        address: BrokerAddress,
        keyring: Keyring,
        topics: OwnTopics,
        conditions: Conditions,
    ) -> None:
        self._membership = membership
        self._address = address
        self._keyring = keyring
        self._topics = topics
        self._conditions = conditions

    def link_up(self) -> None:
        """The broker knows this member."""
        self._conditions.end(_UNCONFIRMED)

    def membership_changed(self, membership: Membership) -> None:
        """Ask under another name from now on."""
        self._membership = membership

    async def _rotated_again(self) -> bool:
        done = await rotate_again(self._membership.mesh_id, self._address, self._keyring)
        if done:
            log.warning("rotations_made_again", pubkey=self._keyring.pubkey)
        return done

    async def ask(self) -> ExitWith | None:
        """Ask a broker that has lost this member to add it again; return the reason to stop if it refuses."""
        if self._membership.ephemeral:
            return _ended(self._membership.name)
        if await self._rotated_again():
            return None
        self._topics.member_lost()
        outcome = await ask_to_be_taken_back(self._membership, self._address, self._keyring)
        if isinstance(outcome, ExitWith):
            return outcome
        self._conditions.begin(_UNCONFIRMED, outcome.message)
        return None


async def rotate_again(mesh_id: str, address: BrokerAddress, keyring: Keyring) -> bool:
    """Show the broker the rotations that a restore may have taken from it; return whether it took them."""
    statements = keyring.rotations[-_MOST_LOST:]
    if not statements:
        return False
    try:
        params = await rotation_params(mesh_id, address, statements, keyring.current)
        ask = partial(ask_broker, ca_file=address.ca_file, deadline_s=_DEADLINE_S, most_bytes=_MAX_ANSWER)
        body = {"mesh_id": mesh_id, **params}
        answer = await asyncio.to_thread(ask, address.url, "POST", "/v1/rotate", body)
    except (ProtocolError, OSError, http.client.HTTPException, Redirected):
        return False
    return answer.status == 200


def _decide(url: str, status: int, refused: http_replies.RequestRefusal | None) -> NotYet | ExitWith:
    """Return the consequence of an answer. Only a refusal of this request ends the daemon."""
    if status == 200:
        return NotYet("The broker has added this member again.")
    if status in (400, 403, 404, 405, 409, 421) and refused is not None:
        reason = f"it refuses to add the member again ({refused.code}: {refused.message.rstrip('.')})"
        return _forgotten(url, reason)
    return NotYet(
        "The broker no longer knows this member: its database was restored from before this host joined. The "
        "daemon of an owner or admin of the mesh confirms the member as soon as it is connected; until then "
        "sends are accepted here and wait. If none of them knows this host, ask an owner for a new invite: "
        + _KEPT
    )


def _forgotten(url: str, reason: str) -> ExitWith:
    return ExitWith(
        PERMISSION,
        "not_a_member",
        f"The broker at {url} does not know this member, and {reason}. Either the mesh has moved to another "
        "address, or the member was removed, or the broker's database was restored from before this host "
        f"joined. Ask an owner of the mesh for a new invite: {_KEPT}",
    )


def _ended(name: str) -> ExitWith:
    return ExitWith(
        PERMISSION,
        "ephemeral_member_ended",
        f"The broker has ended the ephemeral member {name}: it was away for over two minutes, its --ttl is "
        "over, or the broker's database was restored. Sends that wait here are lost. Start it again with an "
        "invite to join as a new member.",
    )


def _body(membership: Membership, address: BrokerAddress, keyring: Keyring, link: str) -> dict[str, Any]:
    invite = parse_link(link)
    audience = audience_of(address.url)
    proof = sign_join(
        keyring.current,
        audience=audience,
        mesh_id=invite.mesh_id,
        invite_id=invite.invite_id,
        name=membership.name,
    )
    # The host may dial another address of the broker than the one in its invite.
    elsewhere = {} if audience == audience_of(invite.broker_url) else {"audience": audience}
    return {
        **elsewhere,
        "invite": link,
        "name": membership.name,
        "member_id": membership.member_id,
        **keyring.announced(),
        "proof": base64.b64encode(proof).decode(),
    }
