"""One connection, from challenge to close (docs/spec/protocol.md, WebSocket)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import claudemesh
from claudemesh.broker.addresses import Arrival
from claudemesh.broker.calls import table
from claudemesh.broker.cluster.cluster import Elsewhere
from claudemesh.broker.connections.clone_policy import Verdict
from claudemesh.broker.connections.hub import Admission
from claudemesh.broker.connections.link import Push
from claudemesh.broker.context import Context
from claudemesh.broker.messages.results import Answer
from claudemesh.broker.ws import clones, handshake
from claudemesh.broker.ws.frame_socket import INTERNAL, TOO_BIG, TRY_AGAIN_LATER, Closed, Closing, FrameSocket
from claudemesh.broker.ws.handshake import Refusal
from claudemesh.broker.ws.principal import Membership
from claudemesh.broker.ws.unanswered import Pending, decode
from claudemesh.protocol import (
    Call,
    Challenge,
    CloseCode,
    DeliverAck,
    ErrorFrame,
    Event,
    FeatureRequest,
    FeatureResponse,
    Frame,
    Hello,
    HelloAck,
    ProtocolError,
    Reply,
    Send,
    SendResult,
    Session,
    SessionViolation,
    UnknownFrame,
    decode_frame,
    encode_frame,
)
from claudemesh.protocol.features import PRESENCE
from claudemesh.protocol.wire import CHALLENGE_NONCE_BYTES, PROTOCOL_VERSIONS
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog
from claudemesh.runtime.web import asgi

log = get_logger("broker.connection")
_refused = SparseLog(log)

F = TypeVar("F")
Admit = Callable[[], None]


class Connection:
    """One WebSocket. Reading pauses while 1024 sends are unanswered or answers pile up."""

    def __init__(
        self, context: Context, arrived: Arrival, receive: asgi.Receive, send: asgi.Send, admit: Admit
    ) -> None:
        self._context = context
        self._let_in = admit
        self._limits = context.settings.limits
        self._arrived = arrived
        self._wire = FrameSocket(receive, send, self._limits, context.metrics, self._changed)
        self._membership: Membership | None = None
        self._is_open = False
        self._hears_presence = False
        self._suspicion: str | None = None
        self._pending = Pending(self._limits.pending_sends, self._limits.pending_bytes)
        self._change = asyncio.Event()
        self._session = Session("broker")

    @property
    def connection_id(self) -> str:
        """The lease of this connection."""
        return self.membership.connection_id

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether the mesh lets one member be connected more than once."""
        return self.membership.mesh.clone_concurrency_policy == "allow_concurrent"

    @property
    def is_open(self) -> bool:
        """Whether features are negotiated and traffic flows."""
        return self._is_open

    @property
    def hears_presence(self) -> bool:
        """Whether the peer takes events about many members at once."""
        return self._hears_presence

    @property
    def membership(self) -> Membership:
        """Return the principal of the connection. It exists once the hello is verified."""
        assert self._membership is not None
        return self._membership

    @property
    def mesh_id(self) -> str:
        """The mesh of this connection's member."""
        return self.membership.mesh.id

    @property
    def member_id(self) -> str:
        """The member that this connection speaks for."""
        return self.membership.member.id

    @property
    def instance_id(self) -> str:
        """The daemon process at the other end."""
        return self.membership.instance_id

    def put(self, frame: str) -> None:
        """Send an event in its turn."""
        self._session.send(Event)
        self._wire.put(frame)

    def push(self, push: Push) -> None:
        """Deliver what has just been committed."""
        self.membership.delivery.push(push)

    def refresh(self) -> None:
        """Look for deliveries that no signal announced."""
        self.membership.delivery.refresh()

    def knows(self, delivery_id: int) -> bool:
        """Whether a delivery needs no looking for."""
        flow = self.membership.delivery.flow
        return flow.is_behind or flow.knows(delivery_id)

    def close(self, code: CloseCode, detail: str = "") -> None:
        """Close once what waits has left; never waits itself."""
        self._wire.close(code, detail)

    def drain(self) -> None:
        """Deliver nothing more, and close with 4006 once what was delivered is acknowledged."""
        leave = partial(self.close, CloseCode.DRAINING, "The broker is stopping. Connect again.")
        if self._is_open:
            self.membership.delivery.pause(leave)
        else:
            leave()

    def check_progress(self, now: float) -> None:
        """Close with 4005 when the peer does not drain its socket."""
        self._wire.check_progress(now)

    async def run(self) -> None:
        """Serve the connection to its end. Raises nothing: whatever happens becomes a close code."""
        self._wire.start()
        try:
            await self._greet_in_time()
            self._open()
            await self._traffic()
        except Closed:
            pass
        except Closing as end:
            self._wire.close(end.code, end.detail, kind=end.kind)
        except SessionViolation as error:
            self._wire.close(CloseCode.PROTOCOL_ERROR, error.message)
        except StorageError as error:
            self._context.degraded.failed("connection", error)
            self._wire.close(TRY_AGAIN_LATER, "The database did not answer. Connect again.")
        except Exception as error:
            self._context.degraded.failed("connection", error)
            self._wire.close(INTERNAL, "The broker failed. Connect again.")
        finally:
            await self._leave()
            await self._wire.end()

    # Handshake

    async def _greet_in_time(self) -> None:
        self._context.state.handshakes += 1
        outcome = "failed"
        try:
            async with asyncio.timeout(self._limits.handshake_s):
                await self._greet()
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

    async def _greet(self) -> None:
        context = self._context
        nonce = context.entropy(CHALLENGE_NONCE_BYTES)
        self._say(Challenge(nonce, context.clock.wall_ms(), claudemesh.__version__, PROTOCOL_VERSIONS))
        hello = await self._expect(Hello, self._limits.hello_bytes)
        membership = await self._identify(hello, nonce)
        self._let_in()
        elsewhere = await context.cluster.claim(
            membership.mesh,
            membership.member.id,
            membership.connection_id,
            membership.instance_id,
            here=context.hub.others(membership.mesh.id, membership.member.id, membership.instance_id),
        )
        admission = self._admit(membership, elsewhere)
        if self._suspicion is not None:
            await clones.warn(context, membership, admission)
        self._settle(admission, elsewhere)
        self._say(
            HelloAck(
                member_id=membership.member.id,
                connection_id=membership.connection_id,
                mesh=handshake.mesh_summary(membership.mesh),
                # Members measure the age of their sends by it, so no clock that is set may move it.
                server_time=context.lived.now_ms(),
                store_epoch=context.state.store_epoch,
            )
        )
        request = await self._expect(FeatureRequest)
        self._hears_presence = PRESENCE in (*request.require, *request.optional)
        supported = handshake.offer(membership.mesh, context.settings)
        missing = tuple(bit for bit in request.require if bit not in supported)
        self._say(FeatureResponse(supported, missing))
        log.info("features_negotiated", missing=len(missing), connection_id=membership.connection_id)
        log.debug("features_offered", require=request.require, optional=request.optional, supported=supported)

    async def _expect(self, kind: type[F], max_bytes: int | None = None) -> F:
        """Return the one frame that may come now; anything else that is known is a protocol error."""
        while True:
            text = await self._wire.read()
            if max_bytes is not None and len(text.encode()) > max_bytes:
                raise Closing(TOO_BIG, f"A frame before hello_ack may have {max_bytes} bytes.")
            try:
                frame = decode_frame(text)
                self._session.receive(type(frame))
            except ProtocolError as error:
                raise Closing(CloseCode.PROTOCOL_ERROR, error.message) from None
            if isinstance(frame, kind):
                return frame
            self._aside(frame)

    async def _identify(self, hello: Hello, nonce: bytes) -> Membership:
        context = self._context
        _refuse_if(handshake.check_hello(hello, nonce, context.addresses, self._arrived))
        mesh = await context.store.meshes.get(hello.mesh_id)
        member = await context.store.members.by_key(hello.mesh_id, hello.pubkey)
        if mesh is None or member is None:
            raise Closing(*handshake.NOT_A_MEMBER)
        _refuse_if(handshake.check_member(hello, member))
        await context.feed.enter(mesh.id)
        return Membership.of(
            context, self._wire.outgoing, self._session, mesh=mesh, member=member, hello=hello
        )

    def _admit(self, membership: Membership, elsewhere: Elsewhere) -> Admission:
        """Let the clone policy decide. State changes here, without waiting; closes follow."""
        self._membership = membership
        policy, hub = membership.mesh.clone_concurrency_policy, self._context.hub
        admission = hub.admit(self, policy, elsewhere=elsewhere.others)
        self._suspicion = clones.report(self._context, membership, admission)
        for other in admission.replaced:
            other.close(CloseCode.REPLACED, "Another connection of this member was opened.")
        return admission

    def _settle(self, admission: Admission, elsewhere: Elsewhere) -> None:
        """Go by what was decided."""
        membership, policy = self.membership, self.membership.mesh.clone_concurrency_policy
        if admission.verdict is Verdict.REFUSE:
            raise Closing(CloseCode.ALREADY_CONNECTED, f"The policy of the mesh is {policy}.")
        self._context.cluster.replace(elsewhere.to_replace(admission.verdict, membership.instance_id))

    def _open(self) -> None:
        context, membership = self._context, self.membership
        self._is_open = True
        context.metrics.connections.inc()
        context.presence.arrived(
            membership.connection_id,
            self.mesh_id,
            self.member_id,
            membership.host,
            instance_id=membership.instance_id,
        )
        if self._suspicion is not None:
            self.put(self._suspicion)
        context.announcer.arrived(self, membership.card(), visible=membership.member.visible)
        membership.delivery.open()
        context.queues.subscribe(self.mesh_id, self.member_id)

    async def _leave(self) -> None:
        context, membership = self._context, self._membership
        if membership is None:
            return
        self._withdraw(membership)
        await membership.delivery.close()
        was_open, self._is_open = self._is_open, False
        if was_open:
            context.metrics.connections.dec()
            context.feed.leave(membership.connection_id)
            context.queues.leave(self.mesh_id, self.member_id, membership.connection_id)
        if was_open or context.cluster.is_shared:
            # With other brokers the lease was taken before the connection was open.
            context.presence.departed(
                membership.connection_id, self.mesh_id, self.member_id, was_open=was_open
            )

    def _withdraw(self, membership: Membership) -> None:
        """Be no longer here for the others, from the moment that the close is decided."""
        context = self._context
        if not context.hub.leave(self) or context.hub.links(self.mesh_id, self.member_id):
            return
        if not context.state.draining:
            context.announcer.left(self.mesh_id, self.member_id)

    # Traffic

    async def _traffic(self) -> None:
        while True:
            text = await self._wire.read()
            try:
                frame = await decode(text)
            except ProtocolError as error:
                self._complain(error)
                continue
            self._session.receive(type(frame))
            await self._handle(frame, len(text))
            if self._pending.is_full or self._wire.outgoing.is_crowded:
                await self._room()

    async def _handle(self, frame: Frame, size: int) -> None:
        if isinstance(frame, Send):
            self._pending.add(size)
            self._context.acceptor.submit(
                self.membership.sender, frame.envelope, partial(self._answered, frame.id, size)
            )
        elif isinstance(frame, DeliverAck):
            await self._acknowledge(frame.delivery_ids)
        elif isinstance(frame, Call):
            ok, error = await table.answer(self.membership.caller, frame.method, frame.params)
            self._say(Reply(frame.id, ok, error))
        else:
            self._aside(frame)

    def _aside(self, frame: Frame) -> None:
        """Take what may come at any time: complaints, and types of another version."""
        if isinstance(frame, UnknownFrame):
            self._say(frame.refusal("broker"))
        elif isinstance(frame, ErrorFrame):
            log.warning("peer_reported_error", code=frame.code)

    def _answered(self, request_id: int | str, size: int, answer: Answer) -> None:
        self._pending.remove(size)
        self._session.send(SendResult)
        self._wire.put(answer.frame(request_id))
        self._change.set()

    async def _acknowledge(self, delivery_ids: tuple[int, ...]) -> None:
        delivery = self.membership.delivery
        settled = delivery.acknowledge(delivery_ids)
        self._context.queues.acknowledged(self.mesh_id, self.member_id, delivery_ids)
        if settled is not None and delivery.flow.acking > self._limits.pending_acks:
            await asyncio.wait([settled])

    async def _room(self) -> None:
        """Wait until fewer sends are unanswered and fewer answers wait: meanwhile nothing is read."""
        while not self._wire.is_closing and (self._pending.is_full or self._wire.outgoing.is_crowded):
            self._change.clear()
            await self._change.wait()

    def _complain(self, error: ProtocolError) -> None:
        """Answer what is JSON but no frame of ours; what is not even that ends the connection."""
        if error.fields.get("reason") == "invalid_json":
            raise Closing(CloseCode.PROTOCOL_ERROR, error.message)
        self._say(ErrorFrame(error.code, error.message))

    def _say(self, frame: Frame) -> None:
        self._session.send(type(frame))
        self._wire.put(encode_frame(frame))

    def _changed(self) -> None:
        """React to the outgoing queue: there is room, or the connection is closing."""
        self._change.set()
        if self._membership is None:
            return
        if self._wire.is_closing:
            self._withdraw(self._membership)
        elif self._is_open:
            self._membership.delivery.pump()


def _refuse_if(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise Closing(*refusal)
