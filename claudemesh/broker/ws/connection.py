"""One connection, from challenge to close (docs/spec/protocol.md, WebSocket)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import claudemesh
from claudemesh.broker.addresses import Arrival
from claudemesh.broker.cluster.cluster import REPLACED
from claudemesh.broker.connections.clone_policy import CloneVerdict
from claudemesh.broker.connections.hub import Admission
from claudemesh.broker.connections.open_connection import Push
from claudemesh.broker.context import Context
from claudemesh.broker.presence.leases import Elsewhere
from claudemesh.broker.store.types import Member
from claudemesh.broker.ws import clones, handshake
from claudemesh.broker.ws.calling import Calling
from claudemesh.broker.ws.frame_socket import INTERNAL, TOO_BIG, TRY_AGAIN_LATER, Closed, Closing, FrameSocket
from claudemesh.broker.ws.identify import identify
from claudemesh.broker.ws.principal import Principal
from claudemesh.broker.ws.sending import Sending
from claudemesh.broker.ws.unanswered import Unanswered, decode
from claudemesh.protocol.errors import CloseCode, ProtocolError
from claudemesh.protocol.features import FRAME_BATCHES, PRESENCE
from claudemesh.protocol.frames import (
    Call,
    Challenge,
    DeliverAck,
    ErrorFrame,
    Event,
    FeatureRequest,
    FeatureResponse,
    Frame,
    Hello,
    HelloAck,
    Send,
    Sends,
    UnknownFrame,
    encode_frame,
)
from claudemesh.protocol.session import Session, SessionViolation
from claudemesh.protocol.wire import CHALLENGE_NONCE_BYTES, PROTOCOL_VERSIONS
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog
from claudemesh.runtime.wake import Wake
from claudemesh.runtime.web import asgi

log = get_logger("broker.connection")
_refused, _negotiated, _reported = SparseLog(log), SparseLog(log), SparseLog(log)

F = TypeVar("F")
Admit = Callable[[], None]


class Connection:
    """One WebSocket of one member; an `OpenConnection` once its features are negotiated.

    Backpressure: it is not read while 1024 sends are unanswered, or while the outbound queue is crowded.
    """

    def __init__(
        self, context: Context, arrived: Arrival, receive: asgi.Receive, send: asgi.Send, admit: Admit
    ) -> None:
        self._context = context
        self._admit_to_guard = admit
        self._limits = context.settings.limits
        self._arrived = arrived
        self._socket = FrameSocket(receive, send, self._limits, context.metrics, self._changed)
        self._principal: Principal | None = None
        self._is_open = False
        self._wants_presence = False
        self._suspicion: str | None = None
        self._unanswered = Unanswered(self._limits.pending_sends, self._limits.pending_bytes)
        self._change = Wake()
        self._session = Session("broker")
        self._calling = Calling(self._send, self._unanswered, self._change.set)
        self._sending = Sending(context.acceptor, self._unanswered, self._put, self._change.set)

    @property
    def connection_id(self) -> str:
        """The id of this connection and of its lease."""
        return self.principal.connection_id

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether the clone policy lets its member be connected more than once."""
        return self.principal.mesh.clone_concurrency_policy == "allow_concurrent"

    @property
    def is_open(self) -> bool:
        """Whether features are negotiated, so that traffic flows."""
        return self._is_open

    @property
    def wants_presence(self) -> bool:
        """Whether the peer takes one presence event for many members."""
        return self._wants_presence

    @property
    def principal(self) -> Principal:
        """The authenticated member; only after the hello was verified."""
        assert self._principal is not None
        return self._principal

    @property
    def mesh_id(self) -> str:
        """The mesh of this connection's member."""
        return self.principal.mesh.id

    @property
    def member_id(self) -> str:
        """The member that this connection speaks for."""
        return self.principal.member.id

    @property
    def instance_id(self) -> str:
        """The id of the daemon process at the other end."""
        return self.principal.instance_id

    def account(self) -> dict[str, object]:
        """Return what operators see of this connection."""
        return self.principal.account()

    def put(self, frame: str) -> None:
        """Append an event to the outbound queue."""
        self._session.send(Event)
        self._socket.put(frame)

    def push(self, push: Push) -> None:
        """Deliver a message that has just been committed."""
        self.principal.delivery.push(push)

    def refresh(self) -> None:
        """Read deliveries that were committed without a push."""
        self.principal.delivery.refresh()

    def knows(self, delivery_id: int) -> bool:
        """Return whether a delivery is on its way, or will be found by a read that is due anyway."""
        flow = self.principal.delivery.flow
        return flow.is_behind or flow.knows(delivery_id)

    def rekey(self, member: Member) -> None:
        """Take sends that are signed by the member's new key, from now on."""
        self._principal = self.principal.with_keys(member)

    def close(self, code: CloseCode, detail: str = "") -> None:
        """Close after the outbound queue is written, without waiting."""
        self._sending.flush()
        self._socket.close(code, detail)

    def drain(self) -> None:
        """Deliver nothing more, and close with 4006 once every sent delivery is acknowledged."""
        leave = partial(self.close, CloseCode.DRAINING, "The broker is stopping. Connect again.")
        if self._is_open:
            self.principal.delivery.pause(leave)
        else:
            leave()

    def check_progress(self, most_stalled: int) -> None:
        """Close with 4005 when the peer does not drain its socket. See `FrameSocket.check_progress`."""
        self._socket.check_progress(most_stalled)

    async def run(self) -> None:
        """Serve the connection to its end. Every error becomes a close code."""
        self._socket.start()
        try:
            await self._handshake_in_time()
            self._open()
            await self._traffic()
        except Closed:
            pass
        except Closing as end:
            self._socket.close(end.code, end.detail, kind=end.kind)
        except SessionViolation as error:
            self._socket.close(CloseCode.PROTOCOL_ERROR, error.message)
        except StorageError as error:
            self._context.degraded.failed("connection", error)
            self._socket.close(TRY_AGAIN_LATER, "The database did not answer. Connect again.")
        except Exception as error:
            self._context.degraded.failed("connection", error)
            self._socket.close(INTERNAL, "The broker failed. Connect again.")
        finally:
            await self._leave()
            await self._socket.end()

    # Handshake

    async def _handshake_in_time(self) -> None:
        self._context.state.handshakes += 1
        outcome = "failed"
        try:
            async with asyncio.timeout(self._limits.handshake_s):
                await self._handshake()
            outcome = "completed"
        except TimeoutError:
            outcome = "timeout"
            raise Closing(CloseCode.PROTOCOL_ERROR, "The handshake took too long.") from None
        except Closing as end:
            outcome = str(int(end.code))
            _refused.info("handshake_refused", code=int(end.code), detail=end.detail)
            raise
        finally:
            self._context.state.handshakes -= 1
            self._context.metrics.handshakes.labels(outcome).inc()

    async def _handshake(self) -> None:
        context = self._context
        nonce = context.entropy(CHALLENGE_NONCE_BYTES)
        self._send(Challenge(nonce, context.clock.wall_ms(), claudemesh.__version__, PROTOCOL_VERSIONS))
        hello = await self._expect(Hello, self._limits.hello_bytes)
        principal = await self._identify(hello, nonce)
        self._admit_to_guard()
        elsewhere = await context.leases.acquire(
            principal.mesh,
            principal.member.id,
            principal.connection_id,
            principal.instance_id,
            here=context.hub.others(principal.mesh.id, principal.member.id, principal.instance_id),
        )
        admission = self._admit(principal, elsewhere)
        if self._suspicion is not None:
            await clones.warn(context, principal, admission)
        self._settle(admission, elsewhere)
        self._send(
            HelloAck(
                member_id=principal.member.id,
                connection_id=principal.connection_id,
                mesh=handshake.mesh_summary(principal.mesh),
                # Daemons measure the age of their sends by it, so it is a time that no set clock moves.
                server_time=context.lived.now_ms(),
                store_epoch=context.state.store_epoch,
            )
        )
        request = await self._expect(FeatureRequest)
        wanted = (*request.require, *request.optional)
        self._wants_presence = PRESENCE in wanted
        self._sending.in_batches = FRAME_BATCHES in wanted
        supported = handshake.offer(principal.mesh, context.settings)
        missing = tuple(bit for bit in request.require if bit not in supported)
        self._send(FeatureResponse(supported, missing))
        _negotiated.info("features_negotiated", missing=len(missing), connection_id=principal.connection_id)
        log.debug("features_offered", require=request.require, optional=request.optional, supported=supported)

    async def _expect(self, kind: type[F], max_bytes: int | None = None) -> F:
        """Return the next frame, which has to be of a kind. Another known frame is a protocol error."""
        while True:
            text = await self._socket.read()
            if max_bytes is not None and len(text.encode()) > max_bytes:
                raise Closing(TOO_BIG, f"A frame before hello_ack may have {max_bytes} bytes.")
            try:
                frame = await decode(text)
                self._session.receive(type(frame))
            except ProtocolError as error:
                raise Closing(CloseCode.PROTOCOL_ERROR, error.message) from None
            if isinstance(frame, kind):
                return frame
            self._take_aside(frame)

    async def _identify(self, hello: Hello, nonce: bytes) -> Principal:
        context = self._context
        mesh, member = await identify(context, hello, nonce, self._arrived, self._send)
        await context.feed.enter(mesh.id)
        return Principal.of(
            context, self._socket.outbound, self._session, mesh=mesh, member=member, hello=hello
        )

    def _admit(self, principal: Principal, elsewhere: Elsewhere) -> Admission:
        """Decide by the clone policy, without waiting: register this connection and close replaced ones."""
        self._principal = principal
        policy, hub = principal.mesh.clone_concurrency_policy, self._context.hub
        admission = hub.admit(self, policy, elsewhere=elsewhere.others)
        self._suspicion = clones.report(self._context, principal, admission)
        for other in admission.replaced:
            other.close(CloseCode.REPLACED, REPLACED)
        return admission

    def _settle(self, admission: Admission, elsewhere: Elsewhere) -> None:
        """Carry out the decision: refuse this connection, or close replaced ones at other brokers."""
        if admission.verdict is CloneVerdict.REFUSE:
            policy = self.principal.mesh.clone_concurrency_policy
            raise Closing(CloseCode.ALREADY_CONNECTED, f"The policy of the mesh is {policy}.")
        self._context.cluster.replace(elsewhere.to_replace(admission.verdict, self.instance_id))

    def _open(self) -> None:
        context, principal = self._context, self.principal
        self._is_open = True
        context.metrics.connections.inc()
        context.leases.arrived(
            principal.connection_id,
            self.mesh_id,
            self.member_id,
            principal.host,
            instance_id=principal.instance_id,
        )
        if self._suspicion is not None:
            self.put(self._suspicion)
        context.announcer.arrived(self, principal.card(), visible=principal.member.visible)
        principal.delivery.open(in_batches=self._sending.in_batches)
        context.queues.refresh_member(self.mesh_id, self.member_id)

    async def _leave(self) -> None:
        context, principal = self._context, self._principal
        if principal is None:
            return
        self._withdraw()
        await self._calling.stop()
        await principal.delivery.close()
        was_open, self._is_open = self._is_open, False
        if was_open:
            context.metrics.connections.dec()
            context.feed.leave(principal.connection_id)
            context.queues.leave(self.mesh_id, self.member_id, principal.connection_id)
        if was_open or context.signals.is_shared:
            # Among several brokers the lease was acquired before the connection was open.
            context.leases.departed(principal.connection_id, self.mesh_id, self.member_id, was_open=was_open)

    def _withdraw(self) -> None:
        """Leave the registry and the roster as soon as the close is decided."""
        context = self._context
        if not context.hub.leave(self) or context.hub.of_member(self.mesh_id, self.member_id):
            return
        if not context.state.draining:
            context.announcer.left(self.mesh_id, self.member_id)

    # Traffic

    async def _traffic(self) -> None:
        while True:
            text = await self._socket.read()
            try:
                frame = await decode(text)
            except ProtocolError as error:
                self._report_invalid(error)
                continue
            self._session.receive(type(frame))
            await self._handle(frame, len(text))
            if self._unanswered.is_full or self._socket.outbound.is_crowded:
                await self._wait_for_room()

    async def _handle(self, frame: Frame, size: int) -> None:
        if isinstance(frame, Send):
            self._sending.take(self.principal.sender, frame, size)
        elif isinstance(frame, Sends):
            self._sending.take_all(self.principal.sender, frame, size)
        elif isinstance(frame, DeliverAck):
            await self._acknowledge(frame.delivery_ids)
        elif isinstance(frame, Call):
            await self._calling.take(self.principal.caller, frame, size)
        else:
            self._take_aside(frame)

    def _take_aside(self, frame: Frame) -> None:
        """Take frames that may come at any time: errors, and unknown types of another version."""
        if isinstance(frame, UnknownFrame):
            self._send(frame.refusal("broker"))
        elif isinstance(frame, ErrorFrame):
            _reported.warning("peer_reported_error", code=frame.code)

    async def _acknowledge(self, delivery_ids: tuple[int, ...]) -> None:
        delivery = self.principal.delivery
        settled = delivery.acknowledge(delivery_ids)
        self._context.queues.acknowledged(self.mesh_id, self.member_id, delivery_ids)
        if settled is not None and delivery.flow.acking > self._limits.pending_acks:
            await asyncio.wait([settled])

    async def _wait_for_room(self) -> None:
        """Wait, without reading, until fewer sends are unanswered and fewer frames wait (backpressure)."""
        while not self._socket.is_closing and (self._unanswered.is_full or self._socket.outbound.is_crowded):
            self._change.clear()
            await self._change.wait()

    def _report_invalid(self, error: ProtocolError) -> None:
        """Answer JSON that is no valid frame with an error. Text that is not JSON ends the connection."""
        if error.fields.get("reason") == "invalid_json":
            raise Closing(CloseCode.PROTOCOL_ERROR, error.message)
        self._send(ErrorFrame(error.code, error.message))

    def _send(self, frame: Frame) -> None:
        self._put(type(frame), encode_frame(frame))

    def _put(self, kind: type[Frame], text: str) -> None:
        self._session.send(kind)
        self._socket.put(text)

    def _changed(self) -> None:
        """React to the socket: the outbound queue has room, or the connection is closing."""
        self._change.set()
        if self._principal is None:
            return
        if self._socket.is_closing:
            self._withdraw()
        elif self._is_open:
            self._principal.delivery.pump()
