"""The checks of a run catch every broken promise and nothing else: a healthy history and mutations of it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.support.values import replace
from tortures.checks import check
from tortures.history import (
    DM,
    QUEUE,
    TOPIC,
    Arrival,
    Ended,
    Gauge,
    History,
    OutboxRow,
    Seen,
    Send,
    Upset,
)

MEMBERS = ("alice", "bob", "carol")
WORKERS = ("bob", "carol")


def healthy() -> History:
    """Three members, each with a stream of dms, topic posts and queue posts; all is well."""
    history = History(subscribers={"news": frozenset(MEMBERS), "work": frozenset(WORKERS)})
    placed: dict[str, int] = dict.fromkeys(MEMBERS, 0)
    accepted = 0
    for number in range(1, 5):
        for at, sender in enumerate(MEMBERS):
            peer = MEMBERS[(at + 1) % len(MEMBERS)]
            for kind, destination in ((DM, peer), (TOPIC, "news"), (QUEUE, "work")):
                accepted += 1
                send = sent(sender, kind, destination, number, began_s=float(accepted))
                history.sends.append(send)
                history.outbox.append(OutboxRow(sender, send.id, "done", None, f"b{accepted}"))
                there = {
                    DM: (peer,),
                    TOPIC: tuple(name for name in MEMBERS if name != sender),
                    QUEUE: (WORKERS[accepted % 2],),
                }[kind]
                for member in there:
                    placed[member] += 1
                    history.arrivals.append(
                        Arrival(
                            member,
                            placed[member],
                            send.id,
                            sender,
                            send.text,
                            f"b{accepted}",
                            accepted,
                            member == "alice",
                        )
                    )
                    history.seen.append(Seen(member, placed[member], send.id))
                    if member == "alice":
                        history.marked.add((member, send.id))
    history.sends.append(provoked := sent("alice", TOPIC, "nowhere", 1, began_s=90.0))
    provoked.provokes = "not_found"
    history.outbox.append(OutboxRow("alice", provoked.id, "dead", "destination_not_found", None))
    history.gauges = [Gauge("alice", "memory", 100, 120, 164)]
    return history


def sent(sender: str, kind: str, destination: str, number: int, began_s: float) -> Send:
    """A send that was acknowledged at once."""
    stream = f"{sender}-{kind}-{destination}"
    text = f"{stream} says {number}"
    return Send(f"{stream}-{number}", sender, kind, destination, stream, number, text, began_s, began_s + 0.5)


def upset(
    kind: str, target: str, *, began_s: float = 0.0, ended_s: float = 100.0, evidence: int = 1
) -> Upset:
    """A fault that touched the daemon it names, or all of them."""
    name = target.removeprefix("link:")
    members = frozenset((name,)) if name in MEMBERS else frozenset(MEMBERS)
    return Upset(1, kind, target, members, kind in ("rolling", "lost_result"), began_s, ended_s, evidence)


def found(history: History) -> set[str]:
    """The names of the checks that a history fails."""
    return {violation.check for violation in check(history)}


def arrivals_of(history: History, message: str) -> list[Arrival]:
    return [arrival for arrival in history.arrivals if arrival.id == message]


def test_a_healthy_history_passes() -> None:
    """Nothing is found where nothing is wrong."""
    assert check(healthy()) == []


@pytest.mark.parametrize("at", range(len(healthy().arrivals)))
def test_the_loss_of_any_delivery_is_caught(at: int) -> None:
    """Each recipient of each message counts, of a topic as well."""
    history = healthy()
    gone = history.arrivals.pop(at)
    history.seen = [seen for seen in history.seen if (seen.member, seen.id) != (gone.member, gone.id)]
    assert found(history) == {"lost"}


@pytest.mark.parametrize("at", range(len(healthy().arrivals)))
def test_a_second_row_of_any_delivery_is_caught(at: int) -> None:
    """A message is one row of an inbox, under any seq."""
    history = healthy()
    twin = replace(history.arrivals[at], seq=1000)
    history.arrivals.append(twin)
    history.seen.append(Seen(twin.member, twin.seq, twin.id))
    assert found(history) == {"doubled"}


@pytest.mark.parametrize("at", range(len(healthy().sends)))
def test_a_message_that_nobody_sent_is_caught(at: int) -> None:
    """Each arrival belongs to a send."""
    history = healthy()
    gone = history.sends.pop(at)
    history.outbox = [row for row in history.outbox if row.id != gone.id]
    assert found(history) == ({"foreign"} if gone.provokes is None else set())


@pytest.mark.parametrize("change", [{"sender": "mallory"}, {"text": "other"}])
@pytest.mark.parametrize("at", range(len(healthy().arrivals)))
def test_an_altered_message_is_caught(at: int, change: dict[str, str]) -> None:
    """Sender and text stay as they were."""
    history = healthy()
    history.arrivals[at] = replace(history.arrivals[at], **change)  # type: ignore[arg-type]
    assert found(history) == {"foreign"}


def test_a_message_at_somebody_else_is_caught() -> None:
    """A dm belongs to its recipient, and a queue message to a worker."""
    for kind, stranger in ((DM, "carol"), (QUEUE, "alice")):
        history = healthy()
        send = next(send for send in history.sends if send.kind == kind)
        stray = replace(arrivals_of(history, send.id)[0], member=stranger, seq=1000, acked=True)
        history.arrivals.append(stray)
        history.seen.append(Seen(stranger, 1000, send.id))
        assert "foreign" in found(history)


@pytest.mark.parametrize("source", ["answer", "outbox", "inbox"])
def test_a_second_broker_id_is_caught_wherever_it_shows(source: str) -> None:
    """Callers, the outbox and every inbox tell the same id."""
    history = healthy()
    if source == "answer":
        history.sends[0].broker_ids = {"b1", "other"}
    elif source == "outbox":
        history.outbox[0] = replace(history.outbox[0], broker_id="other")
    else:
        history.arrivals[0] = replace(history.arrivals[0], broker_id="other")
    assert found(history) == {"broker_ids"}


def test_a_restore_lifts_the_promises_of_what_was_sent_before_it_and_no_others() -> None:
    """A send that an older copy lacks is accepted again, under another id."""
    history = healthy()
    history.outbox[0] = replace(history.outbox[0], broker_id="other")
    history.upsets = [upset("restore", "brokers", ended_s=history.sends[0].began_s + 1)]
    assert found(history) == set()
    history.upsets = [upset("restore", "brokers", ended_s=history.sends[0].began_s - 1)]
    assert found(history) == {"broker_ids"}


def doubled_job(history: History) -> Send:
    """Let a queue message reach the other worker as well."""
    send = next(send for send in history.sends if send.kind == QUEUE)
    first = arrivals_of(history, send.id)[0]
    other = next(name for name in WORKERS if name != first.member)
    history.arrivals.append(replace(first, member=other, seq=1000))
    history.seen.append(Seen(other, 1000, send.id))
    return send


@pytest.mark.parametrize(
    ("fault", "excuses"),
    [
        (None, False),
        (upset("kill", "bob"), True),
        (upset("partition", "link:carol"), True),
        (upset("kill", "broker1"), True),
        (upset("kill", "alice"), False),
        (upset("rolling", "bob"), False),
        (upset("rolling", "brokers"), False),
        (upset("lost_result", "link:bob"), False),
        (upset("kill", "bob", ended_s=0.5), False),
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_a_queue_message_at_two_workers_needs_a_worker_that_left_ungracefully(
    fault: Upset | None, excuses: bool
) -> None:
    """A graceful stop, a fault of another process, and one that was over before, excuse nothing."""
    history = healthy()
    doubled_job(history)
    history.upsets = [] if fault is None else [fault]
    assert found(history) == (set() if excuses else {"queue"})


@pytest.mark.parametrize("stream", sorted({send.stream for send in healthy().sends if send.provokes is None}))
def test_two_messages_that_change_places_are_caught(stream: str) -> None:
    """Each stream keeps its order, at every recipient."""
    history = healthy()
    one, two = [send.id for send in history.sends if send.stream == stream][1:3]
    place = {arrival.id: arrival.history_id for arrival in history.arrivals}
    place[one], place[two] = place[two], place[one]
    history.arrivals = [replace(arrival, history_id=place[arrival.id]) for arrival in history.arrivals]
    assert found(history) == {"order"}
    history.detained = {one}
    assert found(history) == set()


@pytest.mark.parametrize("status", ["pending", "inflight", "aborted", "dead"])
def test_a_row_that_is_not_settled_is_caught(status: str) -> None:
    """Done, or dead for a reason that the workload provoked; nothing else."""
    history = healthy()
    history.outbox[3] = replace(history.outbox[3], status=status, last_error="max_age_exceeded")
    assert found(history) == {"outbox"}


def test_a_row_that_is_gone_is_caught() -> None:
    """An acknowledged send has a row in the outbox."""
    history = healthy()
    history.outbox.pop(0)
    assert found(history) == {"outbox"}


def test_a_provoked_death_needs_its_own_reason() -> None:
    """A provoked send that dies of something else is a finding."""
    history = healthy()
    history.outbox[-1] = replace(history.outbox[-1], last_error="max_age_exceeded")
    assert found(history) == {"outbox"}


def test_a_provoked_send_may_be_refused_at_once() -> None:
    """Then it has no row."""
    history = healthy()
    history.outbox.pop()
    history.sends[-1].accepted_s = None
    history.sends[-1].refusals = ["404 destination_not_found"]
    assert check(history) == []


def test_a_send_without_an_answer_may_or_may_not_arrive() -> None:
    """Unknown is neither success nor failure."""
    history = healthy()
    history.sends[0].accepted_s = None
    assert check(history) == []
    gone = history.sends[0].id
    history.arrivals = [arrival for arrival in history.arrivals if arrival.id != gone]
    history.seen = [seen for seen in history.seen if seen.id != gone]
    history.marked = {(member, message) for member, message in history.marked if message != gone}
    history.outbox.pop(0)
    assert check(history) == []


def test_a_refusal_of_a_good_send_is_caught() -> None:
    """A retry of a known send is never a conflict."""
    history = healthy()
    history.sends[0].refusals = ["409 idempotency_key_reused"]
    assert found(history) == {"refused"}


@pytest.mark.parametrize("at", range(len(healthy().seen)))
def test_an_event_that_a_stream_leaves_out_is_caught(at: int) -> None:
    """Resuming neither skips nor repeats."""
    history = healthy()
    history.seen.pop(at)
    assert found(history) == {"events"}


@pytest.mark.parametrize("at", range(len(healthy().seen)))
def test_an_event_that_a_stream_repeats_is_caught(at: int) -> None:
    """Also when others came in between."""
    history = healthy()
    history.seen.append(history.seen[at])
    assert found(history) == {"events"}


def test_a_message_that_was_shown_and_is_gone_is_caught() -> None:
    """An inbox does not forget."""
    history = healthy()
    history.arrivals.pop()
    assert found(history) == {"lost", "vanished"}


def test_a_mark_that_is_gone_is_caught() -> None:
    """A message that was reported as marked stays marked."""
    history = healthy()
    at = next(n for n, arrival in enumerate(history.arrivals) if arrival.member == "alice")
    history.arrivals[at] = replace(history.arrivals[at], acked=False)
    assert found(history) == {"unmarked"}


@pytest.mark.parametrize(
    ("ended", "fault", "is_fine"),
    [
        (Ended("bob", 70, 50.0), None, False),
        (Ended("bob", 70, 50.0), upset("eio", "bob"), True),
        (Ended("bob", 70, 50.0), upset("disk_full", "bob"), False),
        (Ended("bob", 1, 50.0), upset("eio", "bob"), False),
        (Ended("bob", -11, 50.0), upset("eio", "bob"), False),
        (Ended("bob", 70, 500.0), upset("eio", "bob"), False),
        (Ended("bob", 70, 500.0, alive_s=50.0), upset("eio", "bob"), True),
        (Ended("bob", 70, 500.0, alive_s=490.0), upset("eio", "bob"), False),
        (Ended("carol", 70, 50.0), upset("eio", "bob"), False),
        (Ended("bob", 75, 50.0), upset("eio", "bob"), False),
        (Ended("bob", 75, 50.0, has_served=False), upset("eio", "bob"), True),
        (Ended("bob", 75, 50.0, has_served=False), upset("kill", "bob"), False),
        (Ended("bob", 75, 50.0, has_served=False), upset("disk_full", "bob"), True),
        (Ended("bob", 75, 50.0, has_served=False), upset("emfile", "bob"), True),
        (Ended("bob", -6, 50.0, has_served=False), upset("emfile", "bob"), False),
        (Ended("bob", 75, 50.0), upset("emfile", "bob"), False),
        (Ended("bob", 75, 50.0), upset("disk_full", "bob"), False),
        (Ended("carol", 75, 50.0, has_served=False), upset("disk_full", "bob"), False),
        (Ended("broker1", 69, 50.0, has_served=False), upset("postgres", "server"), True),
        (Ended("broker1", 69, 50.0, has_served=False), upset("restore", "brokers"), True),
        (Ended("broker1", 69, 50.0, has_served=False), upset("partition", "database:broker1"), True),
        (Ended("broker1", 69, 50.0, has_served=False), upset("partition", "database:broker2"), False),
        (Ended("broker1", 69, 50.0, has_served=False), upset("kill", "broker1"), False),
        (Ended("broker1", 69, 50.0), upset("postgres", "server"), False),
        (Ended("broker1", 70, 50.0, has_served=False), upset("postgres", "server"), False),
    ],
)
def test_a_process_may_end_only_of_its_database(ended: Ended, fault: Upset | None, is_fine: bool) -> None:
    """By a code that says so, at the process that was struck, and not long after; some only at a start."""
    history = healthy()
    history.ended = [ended]
    history.upsets = [] if fault is None else [fault]
    assert found(history) == (set() if is_fine else {"ended"})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda h: h.tracebacks.append(("bob", "link_failed")), "traceback"),
        (lambda h: h.unhealthy.append(("bob", "degraded: disk_almost_full")), "health"),
        (lambda h: h.broker_findings.append("a body without its dedupe row"), "broker_check"),
        (lambda h: h.gauges.append(Gauge("bob", "memory", 100, 165, 164)), "memory"),
        (lambda h: h.gauges.append(Gauge("bob", "descriptors", 20, 37, 36)), "descriptors"),
        (lambda h: h.drawn.add("kill"), "evidence"),
        (lambda h: h.sends.clear() or h.arrivals.clear() or h.outbox.clear() or h.seen.clear(), "evidence"),
    ],
)
def test_what_a_run_leaves_behind_is_caught(change: Callable[[History], object], name: str) -> None:
    """Logs, health, the broker's own check, memory, descriptors, and faults that did not happen."""
    history = healthy()
    change(history)
    history.marked.clear()
    assert found(history) == {name}


def test_a_fault_without_evidence_did_not_happen() -> None:
    """One of its kind that struck is enough, none is not."""
    history = healthy()
    history.drawn = {"drop"}
    history.upsets = [upset("drop", "link:bob", evidence=0)]
    assert found(history) == {"evidence"}
    history.upsets.append(upset("drop", "link:bob", evidence=3))
    assert found(history) == set()


def test_the_checks_change_nothing() -> None:
    """They may be run again."""
    history = healthy()
    before = copy.deepcopy(history)
    check(history)
    assert history == before
