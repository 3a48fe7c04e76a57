"""Handshake of the daemon with its broker: challenge, hello, features (docs/spec/protocol.md, WebSocket)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from websockets.asyncio.client import ClientConnection

import claudemesh
from claudemesh.daemon.address import BrokerAddress
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import Membership
from claudemesh.protocol.errors import ProtocolError, close_reason
from claudemesh.protocol.features import OPTIONAL, REQUIRED, FeatureFailure, Features, negotiate
from claudemesh.protocol.fields import Json
from claudemesh.protocol.frames import (
    Challenge,
    ErrorFrame,
    FeatureRequest,
    FeatureResponse,
    Frame,
    Hello,
    HelloAck,
    Revoked,
    UnknownFrame,
    decode_frame,
    encode_frame,
)
from claudemesh.protocol.session import Session
from claudemesh.protocol.signing import sign_hello
from claudemesh.runtime import aside
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.urls import audience_of

log = get_logger("link")

F = TypeVar("F")


class Agreed(Struct, frozen=True):
    """Outcome of a handshake.

    `broker_wall_ms` is the broker's wall time in Unix milliseconds, for display. `offered` holds
    the parameters of the broker's features by name, as the broker stated them, for the features asked for.
    """

    hello: HelloAck
    broker_wall_ms: int
    features: Features
    broker_version: str
    offered: Mapping[str, Any]


class Handshake:
    """Opens a session on a socket. It is reused for each new link."""

    def __init__(
        self,
        membership: Membership,
        address: BrokerAddress,
        keyring: Keyring,
        *,
        instance_id: str,
        host_fingerprint: str,
        require: Sequence[str] = REQUIRED,
        optional: Sequence[str] = OPTIONAL,
    ) -> None:
        """`instance_id` names this process; `require` and `optional` are names of features."""
        self._membership = membership
        self._address = address
        self._keyring = keyring
        self._instance_id = instance_id
        self._host_fingerprint = host_fingerprint
        self._require = tuple(require)
        self._optional = tuple(optional)

    async def shake(
        self, socket: ClientConnection, session: Session, on_revoked: Callable[[Json], None]
    ) -> Agreed:
        """Authenticate and negotiate. `on_revoked` gets the statement that a broker gives as it refuses.

        `ProtocolError` when the broker refuses or breaks the protocol, `ExitWith` 78 when a required feature
        is missing.
        """
        challenge = await _expect(socket, session, Challenge)
        await say(socket, session, self._hello(challenge))
        hello_ack = await _expect(socket, session, HelloAck, on_revoked)
        await say(socket, session, FeatureRequest(self._require, self._optional))
        response = await _expect(socket, session, FeatureResponse)
        features = negotiate(self._require, self._optional, response)
        if isinstance(features, FeatureFailure):
            await _give_up(socket, features)
        assert isinstance(features, Features)
        for warning in features.warnings:
            log.warning("feature_parameter_ignored", detail=warning)
        log.info(
            "features_negotiated",
            dedupe_mode=features.dedupe_mode,
            dedupe_retention_days=features.dedupe_retention_days,
            inline_bytes=features.inline_bytes,
        )
        log.debug("features_offered", supported=response.supported)
        offered = {
            name: offer["params"]
            for name, offer in response.supported.items()
            if name in (*self._require, *self._optional) and isinstance(offer, dict) and "params" in offer
        }
        return Agreed(hello_ack, challenge.server_time, features, challenge.broker_version, offered)

    def _hello(self, challenge: Challenge) -> Hello:
        membership, identity = self._membership, self._keyring.current
        audience = audience_of(self._address.dialled)
        signature = sign_hello(
            identity,
            audience=audience,
            mesh_id=membership.mesh_id,
            nonce=challenge.nonce,
            instance_id=self._instance_id,
        )
        return Hello(
            mesh_id=membership.mesh_id,
            pubkey=identity.ed25519_pubkey,
            key_id=identity.key_id,
            name=membership.name,
            host_fingerprint=self._host_fingerprint,
            daemon_version=claudemesh.__version__,
            instance_id=self._instance_id,
            ephemeral=membership.ephemeral,
            audience=audience,
            signature=signature,
        )


async def say(socket: ClientConnection, session: Session, frame: Frame) -> None:
    """Send a frame if the session allows it now."""
    session.send(type(frame))
    await socket.send(encode_frame(frame))


async def refuse_unknown(socket: ClientConnection, session: Session, frame: UnknownFrame) -> None:
    """Answer a frame of an unknown type. The session continues."""
    await say(socket, session, frame.refusal("daemon"))


async def _expect(
    socket: ClientConnection,
    session: Session,
    kind: type[F],
    on_revoked: Callable[[Json], None] = lambda statement: None,
) -> F:
    """Return the one frame that the session allows now. `ProtocolError` for any other known frame."""
    while True:
        text = await socket.recv()
        frame = await aside.run(aside.weight_of(text), decode_frame, text)
        session.receive(type(frame))
        if isinstance(frame, kind):
            return frame
        if isinstance(frame, ErrorFrame):
            raise ProtocolError(frame.code, frame.message)
        if isinstance(frame, Revoked):
            on_revoked(frame.statement)
        if isinstance(frame, UnknownFrame):
            await refuse_unknown(socket, session, frame)


async def _give_up(socket: ClientConnection, failure: FeatureFailure) -> None:
    log.warning(
        "feature_negotiation_failed", kind=failure.kind, feature=failure.feature, detail=failure.detail
    )
    reason = close_reason(failure.close_code, feature=failure.feature, detail=failure.detail)
    await socket.close(failure.close_code, reason)
    raise ExitWith(
        CONFIGURATION,
        failure.kind,
        f"The broker's feature {failure.feature} cannot be used: {failure.detail}. Upgrade the broker.",
    )
