"""Wall time is for showing: every module that reads it stands here, with what it is read for."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.parsed import nodes

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "claudemesh"
# A module that decides by wall time deletes, expires or waits wrongly as soon as a clock is set. For
# decisions there are the monotonic clock and the two lived clocks (docs/architecture.md, Clocks).
READERS = {
    "runtime/clock.py": "defines it",
    "cli/times.py": "times on a terminal, relative to now",
    "runtime/tracing/spans.py": "the beginnings of spans, which are shown",
    "runtime/conditions.py": "shows since when a condition holds",
    "broker/messages/accept.py": "first_seen_at, created_at and accepted_at, which are shown",
    "broker/http/admin.py": "created_at of a mesh, revoked_at of an invite",
    "broker/presence/announcer.py": "when members that went were seen last, which is shown",
    "broker/app.py": "the time in ULIDs",
    "broker/upkeep/audit.py": "created_at of audit events",
    "broker/calls/vouching.py": "created_at of members that are put back",
    "broker/calls/acts.py": "the bound of a statement's time: a refusal, which names the clocks",
    "broker/rotation.py": "created_at and rotated_out_at of keys",
    "broker/http/rejoin.py": "created_at of members that are not written",
    "broker/calls/deleting.py": "deleted_at of topics: the order in which notes of deletions go",
    "broker/calls/invites.py": "revoked_at of invites",
    "broker/calls/topic_keys.py": "created_at of epochs",
    "broker/calls/topics.py": "created_at of topics, since of subscriptions",
    "broker/ws/connection.py": "server_time of the challenge, which is shown",
    "broker/http/health.py": "since when a broker that does not say more is not ready",
    "broker/upkeep/jobs.py": "finished_at of job runs, deleted_at of tombstones",
    "broker/http/join.py": "an invite's expiry: a refusal, which tells the broker's time",
    "broker/presence/leases.py": "last_seen_at of members",
    "broker/upkeep/timekeeper.py": "where a new database's lived clock begins; the warning of a jump",
    "client/join.py": "the expiry of an invite that is made; the time in ULIDs",
    "client/moving.py": "the time of a statement, which orders it",
    "broker/http/move.py": "the bound of a statement's time: a refusal, which names the clocks",
    "cli/fast_send.py": "the time in ULIDs",
    "cli/options.py": "the moment of --since 1h, which selects what is shown",
    "sdk.py": "the time in ULIDs",
    "client/recovering.py": "the name of a damaged file that is kept",
    "client/backing_up.py": "created_at of a backup, which is shown",
    "daemon/identity/presence.py": "the time at which an online member was seen last",
    "daemon/key_parts.py": "the name of a malformed file that is moved aside",
    "daemon/app.py": "the name of a damaged key archive that is moved aside",
    "home/key_archive.py": "passes on the moment of a rotation, which is shown",
    "daemon/identity/rotation.py": "rotated_at_ms of statements, moments of archived keys, time in ULIDs",
    "daemon/api/activity.py": "the last 24 hours whose messages are counted for a chart",
    "daemon/api/history.py": "received_at of a row, which is not shown",
    "daemon/api/inbox.py": "notified_at, shown_at and acked_at",
    "daemon/api/status.py": "the answer to a heartbeat",
    "daemon/assembly.py": "the time in ULIDs, since when the configuration is in force",
    "daemon/status.py": "the offset to the broker, which is shown",
    "daemon/reload.py": "when the configuration was loaded",
    "daemon/inbox/rebuild.py": "received_at",
    "daemon/inbox/receive.py": "received_at",
    "daemon/sending_side.py": "acked_at of messages that a reply answers, ended_at of runs of hooks",
    "daemon/files/sharing.py": "created_at of shared files",
    "daemon/files/fetching.py": "fetched_at of files",
    "daemon/sessions/news.py": "notified_at",
    "daemon/inbox/store.py": "the name of a damaged file that is moved aside",
    "daemon/outbox/submit.py": "enqueued_at",
    "daemon/outbox/age.py": "the stamp of a transaction that is shown",
    "daemon/outbox/refusals.py": "until when the broker asked to wait",
    "daemon/outbox/recovery.py": "enqueued_at of a successor",
    "daemon/outbox/store.py": "aborted_at and delivered_at",
    "daemon/outbox/turn.py": "delivered_at",
}
_ATTRIBUTES = {"wall_ms", "time_ns", "utcnow", "today"}


def reads_wall_time(path: Path) -> bool:
    """Whether a module asks a clock, ours or the library's, for the time of day."""
    for node in nodes(path.read_text()):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        if node.attr in _ATTRIBUTES or (owner, node.attr) in {("time", "time"), ("datetime", "now")}:
            return True
    return False


def test_wall_time_is_read_for_showing_only() -> None:
    """A new reader is added with its reason, or goes by another clock."""
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if reads_wall_time(path)}
    assert found == set(READERS)


def test_no_statement_asks_the_database_for_the_time_of_day() -> None:
    """SQL gets its times as arguments; the server's time of day is asked for showing."""
    words = ("now()", "clock_timestamp()", "current_timestamp", "strftime(", "unixepoch(", "datetime(")
    found = {
        (path.relative_to(PACKAGE).as_posix(), word)
        for path in PACKAGE.rglob("*.sql")
        for word in words
        if word in path.read_text().lower()
    }
    folder = "broker/store/postgres"
    assert found == {
        (f"{folder}/queries.sql", "clock_timestamp()"),
        (f"{folder}/queries.sql", "now()"),
        (f"{folder}/migrations/0001_initial.sql", "now()"),
    }
