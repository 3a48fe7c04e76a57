"""Accept path of the broker: lookup and validate are decided here, check and write are the store's.

Sends that arrive during one commit share the next one. A send is validated when its frame arrives, because
the verdict depends on the frame alone; the signatures of a batch are verified together. The verdict counts
only when the lookup has found no dedupe row (docs/spec/broker.md, Accepting a send).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from msgspec import Struct

from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.environment import Environment
from claudemesh.broker.limiter.base import Limiter
from claudemesh.broker.messages import results
from claudemesh.broker.messages.publishing import Publication, Publisher
from claudemesh.broker.messages.quotas import Over, Quotas
from claudemesh.broker.messages.results import SendAnswer
from claudemesh.broker.messages.sender import Sender
from claudemesh.broker.messages.submission import SendInProgress, prepare
from claudemesh.broker.messages.work_queues import WorkQueues
from claudemesh.broker.state import BrokerState
from claudemesh.broker.store.facets import MessageStore
from claudemesh.broker.store.types import (
    Accepted,
    AcceptOutcome,
    DedupeRow,
    Existing,
    NewSend,
    Refused,
    SendKey,
)
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime import aside
from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.failpoints import failpoint

# Envelopes of a batch: they are copied on the way to the database.
_BATCH_BYTES = 4 << 20


class Outputs(Struct, frozen=True, kw_only=True):
    """The parts that are told of accepted sends."""

    hub: Hub
    publisher: Publisher
    queues: WorkQueues
    state: BrokerState


class Acceptor:
    """Takes sends from every connection, commits them in batches, and pushes what was accepted."""

    def __init__(
        self,
        *,
        messages: MessageStore,
        limiter: Limiter,
        quotas: Quotas,
        outputs: Outputs,
        env: Environment,
        mint: Callable[[], str],
        inline_bytes: int,
    ) -> None:
        self._store = messages
        self._limiter = limiter
        self._quotas = quotas
        self._outputs = outputs
        self._clock = env.clock
        self._metrics = env.metrics
        self._degraded = env.degraded
        self._mint = mint
        self._inline_bytes = inline_bytes
        self._batcher: Batcher[SendInProgress, SendAnswer] = Batcher(
            self._commit if env.tracing is None else env.tracing.batch("claudemesh accept", self._commit),
            weigh=lambda submission: submission.size,
            max_weight=_BATCH_BYTES,
            # Sends of one member do not wait for all those of another one.
            owner=lambda submission: submission.sender.member_id,
        )
        # Whether a commit's outcome is unknown since the last one that went well.
        self._unsure = False
        # Whether the last batch held a send that was there already: then more of them are to be expected.
        self._repeated = False

    def submit(
        self, sender: Sender, raw: Mapping[str, object] | bytes, reply: Callable[[SendAnswer], None]
    ) -> None:
        """Take one send; `reply` is called once, perhaps before this returns. Submission order is kept."""
        started = self._clock.monotonic()
        prepared = prepare(sender, raw, inline_bytes=self._inline_bytes, broker_message_id=self._mint())
        if isinstance(prepared, ProtocolError):
            self._answer(results.of_error(prepared), started, reply)
            return
        try:
            future = self._batcher.submit(prepared)
        except Overloaded as error:
            self._answer(results.of_error(error), started, reply)
            return
        future.add_done_callback(partial(self._settled, started, reply))

    async def barrier(self, member_id: str) -> None:
        """Return when the fate of everything that a member has submitted before is known."""
        await self._batcher.settled(member_id)

    async def close(self) -> None:
        """Take nothing more (503) and return when all that was taken is answered and pushed."""
        await self._batcher.close()
        await self._outputs.publisher.close()
        await self._quotas.close()

    def _settled(
        self, started: float, reply: Callable[[SendAnswer], None], future: asyncio.Future[SendAnswer]
    ) -> None:
        failpoint("accept.before_answer")
        error = future.exception()
        if error is None:
            self._answer(future.result(), started, reply)
            return
        self._degraded.failed("accept", error)
        self._answer(results.of_error(error), started, reply)

    def _answer(self, answer: SendAnswer, started: float, reply: Callable[[SendAnswer], None]) -> None:
        self._metrics.answered(answer.status, self._clock.monotonic() - started)
        reply(answer)

    async def _commit(self, batch: Sequence[SendInProgress]) -> Sequence[SendAnswer]:
        """Carry a batch through all four phases. Pushes follow by themselves after the commit."""
        await self._outputs.publisher.room()
        self._metrics.accept_batch.observe(len(batch))
        proven = await aside.share(SendInProgress.is_proven, batch)
        if not all(proven):
            batch = [each if holds else each.forged() for each, holds in zip(batch, proven, strict=True)]
        # Fast path: skip the lookup when the whole batch is valid and within its limits, and the last had no
        # duplicates. The claim (`INSERT ... ON CONFLICT`) finds a duplicate anyway.
        direct = self._direct(batch)
        found: Mapping[SendKey, DedupeRow] = {}
        if not direct:
            found = await self._store.lookup({submission.key for submission in batch})
        failpoint("accept.after_lookup")
        decided: Sequence[SendAnswer | NewSend] = direct or await self._limit(
            batch, [self._decide(submission, found.get(submission.key)) for submission in batch]
        )
        failpoint("accept.after_validate")
        sends = direct or [send for send in decided if isinstance(send, NewSend)]
        written = await self._write(sends) if sends else ()
        if direct:
            await self._count(batch, written)
        self._repeated = bool(found) or any(isinstance(outcome, Existing) for outcome in written)
        return self._answers(batch, decided, iter(written))

    def _direct(self, batch: Sequence[SendInProgress]) -> list[NewSend] | None:
        """Return the rows of a batch for the fast path: valid, within its limits, no duplicates of late."""
        if self._repeated:
            return None
        sends: list[NewSend] = []
        # Of each connection the largest send: when there is room for it, there is for the others.
        largest: dict[int, SendInProgress] = {}
        for submission in batch:
            if not isinstance(submission.verdict, NewSend):
                return None
            sends.append(submission.verdict)
            known = largest.get(id(submission.sender))
            if known is None or known.size < submission.size:
                largest[id(submission.sender)] = submission
        if any(self._over(submission) is not None for submission in largest.values()):
            return None
        has_room = self._limiter.has_room([submission.charge for submission in batch])
        return sends if has_room else None

    def _answers(
        self,
        batch: Sequence[SendInProgress],
        decided: Sequence[SendAnswer | NewSend],
        outcomes: Iterator[AcceptOutcome],
    ) -> Sequence[SendAnswer]:
        """Return what each is answered; pushes are on their way."""
        answers: list[SendAnswer] = []
        pushes: list[Publication] = []
        queues: set[tuple[str, str]] = set()
        for submission, decision in zip(batch, decided, strict=True):
            if isinstance(decision, SendAnswer):
                answers.append(decision)
                continue
            outcome = next(outcomes)
            if isinstance(outcome, Accepted):
                self._outputs.state.accepted(outcome.history_id)
                self._quotas.add(submission.sender.mesh_id, submission.sender.member_id, submission.size)
            if isinstance(outcome, Accepted) and decision.destination_kind == "queue":
                queues.add((decision.key.mesh_id, decision.destination_ref))
            elif isinstance(outcome, Accepted) and outcome.deliveries:
                pushes.append(Publication(submission.sender, decision, outcome))
            answers.append(self._outcome(submission, decision, outcome))
        if self._unsure:
            self._unsure = False
            asyncio.get_running_loop().call_soon(self._outputs.hub.refresh)
        for mesh_id, queue in queues:
            asyncio.get_running_loop().call_soon(self._outputs.queues.dispatch, mesh_id, queue)
        if pushes:
            self._outputs.publisher.publish(pushes)
        return answers

    async def _write(self, sends: Sequence[NewSend]) -> Sequence[AcceptOutcome]:
        try:
            return await self._store.accept(sends, self._clock.wall_ms())
        except BaseException:
            # It may have been committed all the same, and its retry is a duplicate that pushes nothing.
            self._unsure = True
            raise

    async def _count(self, batch: Sequence[SendInProgress], outcomes: Sequence[AcceptOutcome]) -> None:
        """Count the sends that a lookup would not have found."""
        counts = [
            submission.charge
            for submission, outcome in zip(batch, outcomes, strict=True)
            if not isinstance(outcome, Existing)
        ]
        self._metrics.limited(len(counts), 0)
        await self._limiter.consume(counts)

    async def _limit(
        self, batch: Sequence[SendInProgress], decided: Sequence[SendAnswer | NewSend]
    ) -> list[SendAnswer | NewSend]:
        """Ask the limiter once for all that is still to be written; what it refuses is answered."""
        counts = [
            submission.charge
            for submission, decision in zip(batch, decided, strict=True)
            if isinstance(decision, NewSend)
        ]
        verdicts = await self._limiter.consume(counts) if counts else ()
        allowed = sum(verdict.allowed for verdict in verdicts)
        self._metrics.limited(allowed, len(verdicts) - allowed)
        each = iter(verdicts)
        limited: list[SendAnswer | NewSend] = []
        for decision in decided:
            if isinstance(decision, NewSend) and not (verdict := next(each)).allowed:
                decision = results.rate_limited(verdict)
            limited.append(decision)
        return limited

    def _decide(self, submission: SendInProgress, row: DedupeRow | None) -> SendAnswer | NewSend:
        """Return the row to write, or the answer from the dedupe row or the verdict."""
        if row is not None:
            return results.existing(submission.key.client_message_id, submission.sender_fingerprint, row)
        if isinstance(submission.verdict, ProtocolError):
            if submission.verdict.code == "fingerprint_drift":
                self._metrics.fingerprint_drift.inc()
            return results.of_error(submission.verdict)
        over = self._over(submission)
        if over is not None:
            self._metrics.quota_refused.labels(over).inc()
            return results.quota_exceeded(over)
        return submission.verdict

    def _over(self, submission: SendInProgress) -> Over | None:
        sender = submission.sender
        return self._quotas.over(sender.mesh_id, sender.member_id, submission.size, sender.allowance)

    def _outcome(self, submission: SendInProgress, send: NewSend, outcome: AcceptOutcome) -> SendAnswer:
        client_message_id = submission.key.client_message_id
        match outcome:
            case Accepted(history_id=history_id):
                return results.accepted(client_message_id, send.broker_message_id, history_id)
            case Existing(row=row):
                return results.existing(client_message_id, submission.sender_fingerprint, row)
            case Refused(error=error):
                self._metrics.consumed_then_refused.inc()
                return results.refused(error)
            case _:
                failure = RuntimeError(outcome.reason)
                self._degraded.failed("accept", failure)
                return results.of_error(failure)
