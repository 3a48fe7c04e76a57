"""The checks: pure functions from a history to the promises that it breaks.

Each check states one promise. An exemption is as narrow as the promise: it names the fault that lifts it
and holds only for the sends that the fault can have touched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tortures.history import DEAD, DM, DONE, QUEUE, TOPIC, Arrival, Ended, History, Send, Upset
from tortures.plan import DATABASE

# A process may end by itself only where the documentation says so (docs/operating.md, Exit codes): a database
# whose disk fails is stopped, and a start needs a disk that works and has room, and a Postgres that answers.
ENDING_KINDS: Final = frozenset({"eio"})
_FAIL_STOP_CODES: Final = frozenset({70, 73, 74, 78})
_NO_START_CODES: Final = _FAIL_STOP_CODES | {75}
_LACK_KINDS: Final = frozenset({"disk_full", "emfile"})
_LACK_CODES: Final = frozenset({75})
_SERVER_KINDS: Final = frozenset({"postgres", "restore"})
_NO_SERVER_CODES: Final = frozenset({69})
# The time in which a process that was struck may still end of it.
_AFTERMATH_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: the check, the thing that it is about, and what was found."""

    check: str
    subject: str
    detail: str


class _Index:
    """Look-ups over a history, made once."""

    def __init__(self, history: History) -> None:
        self.sends = {send.id: send for send in history.sends}
        self.arrivals: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in history.arrivals:
            self.arrivals[arrival.id].append(arrival)
        self.inbox = {(arrival.member, arrival.id) for arrival in history.arrivals}
        self.restored_s = max((u.ended_s for u in history.upsets if u.kind == "restore"), default=-1.0)

    def restored_after(self, send: Send) -> bool:
        """Whether the broker's data was replaced by an older copy after this send had begun."""
        return send.began_s < self.restored_s


def check(history: History) -> list[Violation]:
    """Return every broken promise of a run."""
    index = _Index(history)
    return [violation for judge in CHECKS for violation in judge(history, index)]


def _lost(history: History, index: _Index) -> Iterable[Violation]:
    """Check that each acknowledged send is with every recipient, a queue message with one worker."""
    for send in history.sends:
        if send.accepted_s is None or send.provokes is not None:
            continue
        there = {arrival.member for arrival in index.arrivals[send.id]}
        if send.kind == QUEUE:
            if not there:
                yield Violation("lost", send.id, f"no worker of {send.destination} has it")
        elif missing := recipients(history, send) - there:
            yield Violation("lost", send.id, f"{send.kind} from {send.sender}: not at {_names(missing)}")


def _doubled(history: History, index: _Index) -> Iterable[Violation]:
    """A message is one row of an inbox."""
    for (member, message), count in Counter((a.member, a.id) for a in history.arrivals).items():
        if count > 1:
            yield Violation("doubled", message, f"{count} rows in the inbox of {member}")


def _foreign(history: History, index: _Index) -> Iterable[Violation]:
    """An inbox holds what was sent to it, from its sender, unaltered."""
    for arrival in history.arrivals:
        send = index.sends.get(arrival.id)
        if send is None:
            yield Violation("foreign", arrival.id, f"{arrival.member} has it, nobody sent it")
        elif arrival.member not in recipients(history, send):
            yield Violation("foreign", arrival.id, f"{arrival.member} is no recipient of {send.destination}")
        elif (arrival.sender, arrival.text) != (send.sender, send.text):
            yield Violation("foreign", arrival.id, f"sender or text changed on the way to {arrival.member}")


def _one_broker_id(history: History, index: _Index) -> Iterable[Violation]:
    """A send has one broker id, everywhere. After a restore it may have been accepted again."""
    ids: dict[str, set[str]] = defaultdict(set)
    for send in history.sends:
        ids[send.id] |= send.broker_ids
    for row in history.outbox:
        if row.broker_id is not None:
            ids[row.id].add(row.broker_id)
    for arrival in history.arrivals:
        if arrival.broker_id is not None:
            ids[arrival.id].add(arrival.broker_id)
    for message, found in ids.items():
        sent = index.sends.get(message)
        if len(found) > 1 and not (sent is not None and index.restored_after(sent)):
            yield Violation("broker_ids", message, f"{len(found)} ids: {_names(found)}")


def _queue_once(history: History, index: _Index) -> Iterable[Violation]:
    """A queue message reaches one worker, unless a worker that had it left without its acknowledgement."""
    for send in history.sends:
        if send.kind != QUEUE:
            continue
        workers = {arrival.member for arrival in index.arrivals[send.id]}
        if len(workers) > 1 and not _excused(history, index, send, workers):
            yield Violation("queue", send.id, f"reached {_names(workers)}")


def _excused(history: History, index: _Index, send: Send, workers: set[str]) -> bool:
    if index.restored_after(send):
        return True
    return any(
        not upset.graceful and upset.ended_s >= send.began_s and upset.members & workers
        for upset in history.upsets
    )


def _ordered(history: History, index: _Index) -> Iterable[Violation]:
    """Messages of one stream arrive in the order in which they were acknowledged.

    A send that the broker refused for now, or whose frames were dropped, may be overtaken, and so may all
    that were sent before a restore.
    """
    streams: dict[str, list[Send]] = defaultdict(list)
    for send in history.sends:
        if send.accepted_s is not None and send.provokes is None and send.id not in history.detained:
            streams[send.stream].append(send)
    for stream, sends in streams.items():
        placed = [(s, index.arrivals[s.id]) for s in sorted(sends, key=lambda s: s.number)]
        latest: tuple[int, Send] | None = None
        for send, arrivals in placed:
            numbers = [a.history_id for a in arrivals if a.history_id is not None]
            if not numbers or index.restored_after(send):
                continue
            if latest is not None and min(numbers) < latest[0]:
                yield Violation("order", stream, f"{send.number} came before {latest[1].number}")
            if latest is None or max(numbers) > latest[0]:
                latest = max(numbers), send


def _settled(history: History, index: _Index) -> Iterable[Violation]:
    """Every acknowledged send has a row; it is done, or dead for a reason that the workload provoked."""
    rows = {row.id: row for row in history.outbox}
    for send in history.sends:
        row = rows.get(send.id)
        if row is None:
            if send.accepted_s is not None:
                yield Violation("outbox", send.id, f"no row in the outbox of {send.sender}")
        elif row.status == DEAD:
            if send.provokes is None or send.provokes not in (row.last_error or ""):
                yield Violation("outbox", send.id, f"dead: {row.last_error}")
        elif row.status != DONE:
            yield Violation("outbox", send.id, f"{row.status} at {send.sender}: {row.last_error}")


def _refused(history: History, index: _Index) -> Iterable[Violation]:
    """A well-formed send is never refused for good."""
    for send in history.sends:
        if send.provokes is None:
            for refusal in send.refusals:
                yield Violation("refused", send.id, refusal)


def _followed(history: History, index: _Index) -> Iterable[Violation]:
    """A reader of the event stream is shown every message once, in the order of the inbox."""
    shown: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for seen in history.seen:
        shown[seen.member].append((seen.seq, seen.id))
    for member, items in shown.items():
        for (before, _), (after, message) in pairwise(items):
            if after <= before:
                yield Violation("events", message, f"{member} was shown {after} after {before}")
    known = {(seen.member, seen.seq, seen.id) for seen in history.seen}
    for arrival in history.arrivals:
        if arrival.member in shown and (arrival.member, arrival.seq, arrival.id) not in known:
            yield Violation("events", arrival.id, f"the stream of {arrival.member} left out {arrival.seq}")


def _kept(history: History, index: _Index) -> Iterable[Violation]:
    """Check that messages that were seen stay in the inbox, and marked ones stay marked."""
    for member, message in sorted({(seen.member, seen.id) for seen in history.seen} - index.inbox):
        yield Violation("vanished", message, f"{member} was shown it, its inbox no longer has it")
    unmarked = {(arrival.member, arrival.id) for arrival in history.arrivals if not arrival.acked}
    for member, message in sorted(history.marked & unmarked):
        yield Violation("unmarked", message, f"{member} had marked it as done")


def _alive(history: History, index: _Index) -> Iterable[Violation]:
    """A process ends by itself only of what was done to its database, with a code that says so."""
    for ended in history.ended:
        codes = frozenset[int]().union(*(_codes(upset, ended) for upset in history.upsets))
        if ended.code not in codes:
            when = "" if ended.has_served else ", at its start"
            yield Violation("ended", ended.process, f"exit {ended.code}{when}")


def _codes(upset: Upset, ended: Ended) -> frozenset[int]:
    """Return the exit codes that a fault excuses."""
    alive_s = ended.at_s if ended.alive_s is None else ended.alive_s
    if upset.began_s > ended.at_s or alive_s > upset.ended_s + _AFTERMATH_S:
        return frozenset()
    if upset.kind in ENDING_KINDS and upset.target == ended.process:
        return _FAIL_STOP_CODES if ended.has_served else _NO_START_CODES
    if upset.kind in _LACK_KINDS and upset.target == ended.process:
        return frozenset() if ended.has_served else _LACK_CODES
    if upset.kind in _SERVER_KINDS or upset.target == f"{DATABASE}:{ended.process}":
        return frozenset() if ended.has_served else _NO_SERVER_CODES
    return frozenset()


def _healthy(history: History, index: _Index) -> Iterable[Violation]:
    """At the end no log has a traceback, no health an entry, the broker no finding."""
    for process, line in history.tracebacks:
        yield Violation("traceback", process, line)
    for process, entry in history.unhealthy:
        yield Violation("health", process, entry)
    for finding in history.broker_findings:
        yield Violation("broker_check", "broker", finding)
    for gauge in history.gauges:
        if gauge.after > gauge.limit:
            detail = f"{gauge.before} before, {gauge.after} after, {gauge.limit} accepted"
            yield Violation(gauge.name, gauge.process, detail)


def _evident(history: History, index: _Index) -> Iterable[Violation]:
    """Every kind of fault that was drawn has happened."""
    evidence: Counter[str] = Counter()
    for upset in history.upsets:
        evidence[upset.kind] += upset.evidence
    for kind in sorted(history.drawn):
        if not evidence[kind]:
            yield Violation("evidence", kind, "it was drawn, and nothing shows that it happened")
    if not any(send.accepted_s is not None for send in history.sends):
        yield Violation("evidence", "workload", "nothing was accepted")


_Check = Callable[[History, _Index], Iterable[Violation]]
CHECKS: Final[tuple[_Check, ...]] = (
    _lost,
    _doubled,
    _foreign,
    _one_broker_id,
    _queue_once,
    _ordered,
    _settled,
    _refused,
    _followed,
    _kept,
    _alive,
    _healthy,
    _evident,
)


def recipients(history: History, send: Send) -> frozenset[str]:
    """Return the members whose inbox a send may reach."""
    if send.provokes is not None:
        return frozenset()
    if send.kind == DM:
        return frozenset((send.destination,))
    subscribed = history.subscribers.get(send.destination, frozenset())
    return subscribed - {send.sender} if send.kind == TOPIC else subscribed


def _names(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))
