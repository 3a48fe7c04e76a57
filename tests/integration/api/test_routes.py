"""Every other route over the socket: inbox, outbox, peers, topics, status."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.types import Now, Settlement
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.clock import iso_ms
from tests.integration.api.served import BrokerAnswers, Served, served

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ULID = "01J0000000000000000000000Z"


async def _settle(daemon: Served, status: Status, **fields: Any) -> None:
    """Take everything that is due in flight, and end it."""
    now = Now(daemon.routes.inbox.clock.wall_ms(), daemon.lived.now_ms())
    taken = (await daemon.outbox.turn([], [], now, 100)).taken
    await daemon.outbox.turn([], [Settlement(row, status, **fields) for row in taken], now, 0)


async def _bodies(daemon: Served, path: str) -> list[str]:
    return [item["body"] for item in (await daemon.ask("GET", path)).json["items"]]


async def test_an_inbox_item_has_the_columns_by_their_names(tmp_path: Path) -> None:
    """received_at as ISO 8601; reading does not consume."""
    async with served(tmp_path) as daemon:
        await daemon.receive("hi")
        for _ in range(2):
            (item,) = (await daemon.ask("GET", "/v1/inbox")).json["items"]
            assert ISO.fullmatch(item["received_at"])
            assert (item["body"], item["sender_name"]) == ("hi", "bob")
            assert (item["shown_at"], item["acked_at"]) == (None, None)


async def test_each_inbox_filter_leaves_out_what_it_says(tmp_path: Path) -> None:
    """since, after, topic, from, unread and limit, alone."""
    async with served(tmp_path) as daemon:
        yesterday_ms = daemon.routes.inbox.clock.wall_ms() - 24 * 3_600_000
        await daemon.receive("old", received_at=yesterday_ms)
        await daemon.receive("posted", topic="all", kind="topic")
        await daemon.receive("carol's", sender_name="carol", sender_pubkey="cd" * 32)
        (acked,) = await daemon.receive("acked")
        await daemon.ask("POST", "/v1/inbox/ack", {"ids": [acked.id], "as": "acked"})
        assert "old" not in await _bodies(daemon, f"/v1/inbox?since={iso_ms(yesterday_ms + 1)}")
        assert "old" in await _bodies(daemon, f"/v1/inbox?since={iso_ms(yesterday_ms)}")
        assert await _bodies(daemon, "/v1/inbox?topic=%23all") == ["posted"]
        assert await _bodies(daemon, "/v1/inbox?from=Carol") == ["carol's"]
        assert await _bodies(daemon, "/v1/inbox?from=" + "cd" * 32) == ["carol's"]
        assert await _bodies(daemon, "/v1/inbox?unread=true") == ["old", "posted", "carol's"]
        first = (await daemon.ask("GET", "/v1/inbox?limit=2")).json
        assert [item["body"] for item in first["items"]] == ["old", "posted"]
        assert await _bodies(daemon, f"/v1/inbox?after={first['next']}") == ["carol's", "acked"]


async def test_the_newest_messages_come_first_if_asked_for(tmp_path: Path) -> None:
    """`next` and the Link header lead on to earlier ones, in the same order."""
    async with served(tmp_path) as daemon:
        await daemon.receive("one", "two", "three")
        first = await daemon.ask("GET", "/v1/inbox?order=desc&limit=2")
        assert [item["body"] for item in first.json["items"]] == ["three", "two"]
        (following,) = re.findall("<(.*)>", first.headers["link"])
        assert await _bodies(daemon, following) == ["one"]
        refused = await daemon.ask("GET", "/v1/inbox?order=up")
        assert (refused.status, refused.error) == (400, "invalid_parameter")


async def test_a_cursor_past_the_end_of_the_inbox_begins_with_the_oldest_message(tmp_path: Path) -> None:
    """It comes from an inbox that was recreated or restored; the answer has `reset`."""
    async with served(tmp_path) as daemon:
        await daemon.receive("one", "two")
        past = (await daemon.ask("GET", "/v1/inbox?after=300&limit=1")).json
        assert ([item["body"] for item in past["items"]], past["next"], past["reset"]) == (["one"], "1", True)
        assert (await daemon.ask("GET", "/v1/inbox?after=2")).json == {"items": [], "next": None}
        assert "reset" not in (await daemon.ask("GET", "/v1/inbox?after=300&order=desc")).json


async def test_a_message_is_found_by_its_seq_or_any_of_its_ids(tmp_path: Path) -> None:
    """Of two that their senders called alike, the newer one."""
    async with served(tmp_path) as daemon:
        await daemon.receive("another's", client_message_id="deploy/42", sender_member_id="member-2")
        (row,) = await daemon.receive("hi", client_message_id="deploy/42")
        for key in ("2", row.id, row.broker_message_id, "deploy%2F42"):
            found = await daemon.ask("GET", f"/v1/inbox/{key}")
            assert (found.status, found.json["body"]) == (200, "hi"), key
        for key, status, error in (("3", 404, "not_found"), ("a b", 400, "invalid_parameter")):
            refused = await daemon.ask("GET", f"/v1/inbox/{key.replace(' ', '%20')}")
            assert (refused.status, refused.error) == (status, error)


async def test_an_acknowledgement_counts_once_and_shown_is_not_acked(tmp_path: Path) -> None:
    """A message that was pushed is not yet a message that was seen."""
    async with served(tmp_path) as daemon:
        (row,) = await daemon.receive("hi")
        shown = await daemon.ask("POST", "/v1/inbox/ack", {"ids": [row.id, ULID], "as": "shown"})
        assert (shown.status, shown.json) == (200, {"marked": 1})
        (item,) = (await daemon.ask("GET", "/v1/inbox")).json["items"]
        assert ISO.fullmatch(item["shown_at"])
        assert item["acked_at"] is None
        await daemon.ask("POST", "/v1/inbox/ack", {"ids": [row.id], "as": "acked"})
        await daemon.ask("POST", "/v1/inbox/ack", {"ids": [row.id], "as": "acked"})
        (again,) = (await daemon.ask("GET", "/v1/inbox")).json["items"]
        assert again["shown_at"] == item["shown_at"]
        assert ISO.fullmatch(again["acked_at"])


async def test_the_outbox_lists_rows_without_their_payload(tmp_path: Path) -> None:
    """By status and page by page; times as ISO 8601."""
    async with served(tmp_path) as daemon:
        for number in range(5):
            await daemon.send({"to": "bob", "message": "hi", "client_message_id": f"m{number}"})
        await _settle(daemon, Status.DEAD, error="not_a_member")
        await daemon.send({"to": "bob", "message": "hi", "client_message_id": "waiting"})
        dead = (await daemon.ask("GET", "/v1/outbox?status=dead&limit=3")).json
        rest = (await daemon.ask("GET", f"/v1/outbox?status=dead&after={dead['next']}")).json
        ids = [item["client_message_id"] for item in (*dead["items"], *rest["items"])]
        assert (ids, rest["next"]) == (["m0", "m1", "m2", "m3", "m4"], None)
        item = dead["items"][0]
        assert "payload" not in item
        assert (item["status"], item["last_error"]) == ("dead", "not_a_member")
        assert ISO.fullmatch(item["enqueued_at"])
        assert item["delivered_at"] is None
        newest = (await daemon.ask("GET", "/v1/outbox?order=desc&limit=2")).json
        assert [item["client_message_id"] for item in newest["items"]] == ["waiting", "m4"]
        pending = (await daemon.ask("GET", "/v1/outbox?status=pending")).json
        assert [item["client_message_id"] for item in pending["items"]] == ["waiting"]


async def test_a_row_is_found_by_either_id_also_with_a_slash_in_it(tmp_path: Path) -> None:
    """An id may hold anything from ! to ~; percent-encoded it is one path segment."""
    async with served(tmp_path) as daemon:
        await daemon.send({"to": "bob", "message": "hi", "client_message_id": "deploy/42?#%"})
        by_client = await daemon.ask("GET", "/v1/outbox/deploy%2F42%3F%23%25")
        assert (by_client.status, by_client.json["chain"]) == (200, [])
        by_id = await daemon.ask("GET", f"/v1/outbox/{by_client.json['id']}")
        assert by_id.json == by_client.json
        nobody = await daemon.ask("GET", "/v1/outbox/nobody")
        assert (nobody.status, nobody.error) == (404, "not_found")


async def test_a_row_that_was_sent_is_not_requeued_without_asking_the_broker(tmp_path: Path) -> None:
    """It may have been accepted: 503 while the broker is away, and nothing is aborted."""
    async with served(tmp_path) as daemon:
        await daemon.send({"to": "bob", "message": "hi", "client_message_id": "old"})
        await _settle(daemon, Status.DEAD, error="not_a_member")
        answer = await daemon.ask("POST", "/v1/outbox/old/requeue")
        assert (answer.status, answer.error) == (503, "broker_unavailable")
        assert (await daemon.ask("GET", "/v1/outbox/old")).json["status"] == "dead"


async def test_a_row_is_requeued_under_a_new_id_and_its_chain_shows(tmp_path: Path) -> None:
    """The old row is aborted and names its successor; a second requeue is 409."""
    async with served(tmp_path) as daemon:
        await daemon.send({"to": "bob", "message": "hi", "client_message_id": "old"})
        answer = await daemon.ask("POST", "/v1/outbox/old/requeue", {"new_client_message_id": "new"})
        assert (answer.status, answer.json["client_message_id"]) == (200, "new")
        old = (await daemon.ask("GET", "/v1/outbox/old")).json
        assert (old["status"], old["aborted_by"]) == ("aborted", "operator")
        assert [row["client_message_id"] for row in old["chain"]] == ["new"]
        assert old["superseded_by"] == old["chain"][0]["id"] == answer.json["id"]
        again = await daemon.ask("POST", "/v1/outbox/old/requeue")
        assert (again.status, again.error) == (409, "outbox_aborted")


async def test_a_patch_changes_the_message_that_is_sent_again(tmp_path: Path) -> None:
    """An unknown patch field is 400; nothing is aborted by it."""
    async with served(tmp_path) as daemon:
        await daemon.send({"to": "bob", "message": "hi", "client_message_id": "old"})
        bad = await daemon.ask("POST", "/v1/outbox/old/requeue", {"patch": {"mesage": "x"}})
        assert (bad.status, bad.error) == (400, "unknown_field")
        assert (await daemon.ask("GET", "/v1/outbox/old")).json["status"] == "pending"
        good = await daemon.ask("POST", "/v1/outbox/old/requeue", {"patch": {"message": "x"}})
        assert good.status == 200
        assert [row["status"] for row in await daemon.rows()] == ["aborted", "pending"]


async def test_a_patched_message_is_for_the_same_session(tmp_path: Path) -> None:
    """The id of the new row stands for a send to that session."""
    async with served(tmp_path) as daemon:
        body = {"to": "bob/api", "message": "hi", "from_session": "web"}
        await daemon.send({**body, "client_message_id": "old"})
        patched = {"patch": {"message": "x"}, "new_client_message_id": "new"}
        assert (await daemon.ask("POST", "/v1/outbox/old/requeue", patched)).status == 200
        again = {**body, "message": "x", "client_message_id": "new"}
        assert (await daemon.send(again)).status == 202
        assert (await daemon.send({**again, "to": "bob"})).status == 409


async def test_a_drop_retires_a_row_without_a_successor(tmp_path: Path) -> None:
    """A row in flight or done may not be dropped: 409; one that is not there is 404."""
    async with served(tmp_path) as daemon:
        for name in ("a", "b"):
            await daemon.send({"to": "bob", "message": "hi", "client_message_id": name})
        dropped = await daemon.ask("POST", "/v1/outbox/a/drop")
        assert (dropped.status, dropped.json["status"]) == (200, "aborted")
        await _settle(daemon, Status.DONE, broker_message_id=ULID, history_id=1)
        refused = await daemon.ask("POST", "/v1/outbox/b/drop", {})
        assert (refused.status, refused.error) == (409, "outbox_done")
        assert (await daemon.ask("POST", "/v1/outbox/c/drop")).status == 404
        unknown = await daemon.ask("POST", "/v1/outbox/b/drop", {"force": True})
        assert (unknown.status, unknown.json["field"]) == (400, "force")


async def test_peers_are_listed_while_the_broker_is_away(tmp_path: Path) -> None:
    """From the directory, by name, page by page."""
    async with served(tmp_path) as daemon:
        first = (await daemon.ask("GET", "/v1/peers?limit=1")).json
        second = (await daemon.ask("GET", f"/v1/peers?limit=1&after={first['next']}")).json
        peers = [*first["items"], *second["items"]]
        assert ([peer["name"] for peer in peers], second["next"]) == (["alice", "bob"], None)
        assert set(peers[0]) == {
            "name",
            "pubkey",
            "x25519_pubkey",
            "member_id",
            "role",
            "online",
            "status",
            "summary",
            "sessions",
            "last_seen_at",
            "name_is_pinned_to_another",
            "verified",
        }


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/topic/create", {"topic": "all"}),
        ("POST", "/v1/topic/subscribe", {"topic": "all"}),
        ("POST", "/v1/topic/unsubscribe", {"topic": "all"}),
        ("GET", "/v1/topic/list", None),
        ("POST", "/v1/profile", {"summary": "busy"}),
    ],
)
async def test_what_needs_the_broker_says_so_when_it_is_away(
    tmp_path: Path, method: str, path: str, body: Any
) -> None:
    """503 broker_unavailable."""
    async with served(tmp_path) as daemon:
        answer = await daemon.ask(method, path, body)
        assert (answer.status, answer.error) == (503, "broker_unavailable")


async def test_topics_are_made_joined_and_listed_by_the_broker(tmp_path: Path) -> None:
    """201 when new, 200 when there; the list says that bodies are not sealed."""
    row = {"mode": "topic", "subscribed": True, "subscribers": 2, "sealed": True, "created_at": 0}
    broker = BrokerAnswers(
        {
            "topic_create": {"topic": "all", "mode": "topic", "created": True},
            "topic_subscribe": {},
            "topic_unsubscribe": {},
            "topic_list": {"items": [{"topic": "b", **row}, {"topic": "a", **row}]},
            "profile": {},
        }
    )
    async with served(tmp_path, link=broker) as daemon:
        created = await daemon.ask("POST", "/v1/topic/create", {"topic": "#all", "mode": "topic"})
        assert (created.status, created.json["created"]) == (201, True)
        joined = await daemon.ask("POST", "/v1/topic/subscribe", {"topic": "all"})
        assert joined.json == {"topic": "all", "subscribed": True}
        left = await daemon.ask("POST", "/v1/topic/unsubscribe", {"topic": "all"})
        assert left.json == {"topic": "all", "subscribed": False}
        topics = (await daemon.ask("GET", "/v1/topic/list")).json
        assert [topic["topic"] for topic in topics["items"]] == ["a", "b"]
        assert {(topic["sealed"], topic["have_key"]) for topic in topics["items"]} == {(True, False)}
        assert topics["items"][0]["created_at"] == "1970-01-01T00:00:00.000Z"
        profile = await daemon.ask("POST", "/v1/profile", {"summary": "busy", "visible": False})
        assert profile.json == {"updated": ["summary", "visible"]}
    assert broker.calls == [
        ("topic_create", {"topic": "all", "mode": "topic"}),
        ("topic_subscribe", {"topic": "all"}),
        ("topic_unsubscribe", {"topic": "all"}),
        ("topic_list", {}),
        ("profile", {"summary": "busy", "visible": False}),
    ]


async def test_the_brokers_refusal_is_the_answer(tmp_path: Path) -> None:
    """Its code, its sentence, and the status that goes with it."""
    broker = BrokerAnswers({"topic_subscribe": ProtocolError("topic_not_found", "Create it first.")})
    async with served(tmp_path, link=broker) as daemon:
        answer = await daemon.ask("POST", "/v1/topic/subscribe", {"topic": "all"})
        assert (answer.status, answer.error) == (404, "topic_not_found")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/profile", {"summary": "a\u001b[0m"}, "summary"),
        ("/v1/profile", {"status": "a\nb"}, "status"),
        ("/v1/topic/create", {"topic": "a b"}, "topic"),
        ("/v1/topic/subscribe", {"topic": "#"}, "topic"),
        ("/v1/heartbeat", {"at": 1}, "at"),
    ],
)
async def test_a_wrong_body_is_refused_before_the_broker_is_asked(
    tmp_path: Path, path: str, body: Any, field: str
) -> None:
    """400 with the field, broker or not."""
    async with served(tmp_path) as daemon:
        answer = await daemon.ask("POST", path, body)
        assert (answer.status, answer.json["field"]) == (400, field)


async def test_health_has_what_the_page_lists(tmp_path: Path) -> None:
    """docs/spec/daemon.md, Local API."""
    async with served(tmp_path) as daemon:
        await daemon.send({"to": "bob", "message": "hi"})
        health = (await daemon.ask("GET", "/v1/health")).json
        listed = (
            "connected, lag_ms, queue_depth, inflight, mesh, member_id, member_pubkey, uptime_s, "
            "schema_version, daemon_version, broker_version, degraded"
        )
        assert set(listed.split(", ")) <= set(health)
        assert (health["connected"], health["queue_depth"], health["mesh"]) == (False, 1, "demo")


async def test_version_and_compat_and_heartbeat_answer(tmp_path: Path) -> None:
    """The routes by which a command finds its daemon, and the versions that it speaks."""
    async with served(tmp_path) as daemon:
        version = (await daemon.ask("GET", "/v1/version")).json
        assert (version["mesh"], version["name"], version["ipc_api"]) == ("demo", "alice", "v1")
        assert version["broker"] == {"version": None, "features": {}}
        assert {"GET /v1/version", "POST /v1/send", "GET /v1/inbox/{id}"} <= set(version["ipc_features"])
        compat = (await daemon.ask("GET", "/v1/compat")).json
        assert "client_message_id_dedupe" in compat["required_broker_features"]
        heartbeat = await daemon.ask("POST", "/v1/heartbeat")
        assert heartbeat.json["status"] == "ok"
        assert ISO.fullmatch(heartbeat.json["now"])


async def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    """With the gauges as they are now."""
    async with served(tmp_path) as daemon:
        await daemon.send({"to": "bob", "message": "hi"})
        answer = await daemon.ask("GET", "/v1/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        assert b'cm_daemon_outbox_depth{status="pending"} 1.0' in answer.body


async def test_a_path_that_is_no_route_is_404_in_the_one_shape(tmp_path: Path) -> None:
    """And says where the routes are listed."""
    async with served(tmp_path) as daemon:
        answer = await daemon.ask("GET", "/v1/nowhere")
        assert (answer.status, answer.error) == (404, "not_found")
        assert "openapi.json" in answer.json["message"]
