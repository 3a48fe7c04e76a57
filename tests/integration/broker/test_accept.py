"""Results of sends: once, again, in conflict, refused, limited (docs/spec/broker.md, Accepting a send)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from claudemesh.broker.settings import Limits
from claudemesh.runtime import failpoints
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.wspeer import Frame, Peer, new_id, nothing_else_is_delivered

NOBODY = "ab" * 32


async def test_a_send_is_accepted_and_delivered() -> None:
    """201, then the recipient gets the very envelope with the sender's identity."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        envelope = ada.envelope(bob, "hi")
        async with ada.connect() as sending, bob.connect() as receiving:
            result = await sending.request(envelope)
            delivery = await receiving.next("deliver")
    assert (result["status"], result["duplicate"]) == (201, False)
    assert result["client_message_id"] == envelope["client_message_id"]
    assert delivery["broker_message_id"] == result["broker_message_id"]
    assert delivery["history_id"] == result["history_id"]
    assert delivery["sender"] == {"member_id": ada.member_id, "name": "owner", "pubkey": ada.pubkey}
    assert delivery["envelope"] == envelope


async def test_the_same_send_again_is_a_duplicate_with_the_same_ids() -> None:
    """200 repeats the first outcome and delivers nothing."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        envelope = ada.envelope(bob)
        async with ada.connect() as sending, bob.connect() as receiving:
            first = await sending.request(envelope)
            second = await sending.request(envelope)
            await receiving.next("deliver")
            await nothing_else_is_delivered(receiving, bob, sending, ada)
    assert (second["status"], second["duplicate"], second["history_available"]) == (200, True, True)
    for name in ("broker_message_id", "history_id", "client_message_id"):
        assert second[name] == first[name]
    assert (second["destination_kind"], second["destination_ref"]) == ("dm", bob.pubkey)
    assert isinstance(second["first_seen_at"], int)


async def test_an_id_that_names_another_send_is_a_conflict() -> None:
    """409 with the prefix of what the broker has; the first send stays as it was."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        first = ada.envelope("all", "one")
        async with ada.connect() as link:
            await link.request(first)
            result = await link.request(
                ada.envelope("all", "two", client_message_id=first["client_message_id"])
            )
            again = await link.request(first)
    assert (result["status"], result["error"]) == (409, "idempotency_key_reused")
    assert result["conflict"] == "request_fingerprint_mismatch"
    assert result["broker_fingerprint_prefix"] == first["request_fingerprint"][:16]
    assert again["status"] == 200


@pytest.mark.parametrize("kind", ["dm", "topic"])
async def test_a_lost_acknowledgement_is_answered_on_the_next_connection(kind: str) -> None:
    """The commit happened, the answer was lost: the retry gets the same ids and nothing is sent twice."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        envelope = ada.envelope(bob if kind == "dm" else "all")
        async with bob.connect() as receiving:
            async with ada.connect() as link:
                await link.send(envelope)
                delivery = await receiving.next("deliver")
                link.websocket.transport.abort()
            async with ada.connect() as link:
                result = await link.request(envelope)
                await nothing_else_is_delivered(receiving, bob, link, ada)
    assert result["status"] == 200
    assert result["broker_message_id"] == delivery["broker_message_id"]
    assert result["history_id"] == delivery["history_id"]


async def test_two_senders_with_the_same_id_both_arrive() -> None:
    """An id belongs to the member that uses it."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
        async with ada.connect() as one, bob.connect() as two, cleo.connect() as receiving:
            first = await one.request(ada.envelope(cleo, client_message_id="deploy-42"))
            second = await two.request(bob.envelope(cleo, client_message_id="deploy-42"))
            senders = [frame["sender"]["name"] for frame in await receiving.deliveries(2)]
    assert (first["status"], second["status"]) == (201, 201)
    assert senders == ["owner", "bob"]


async def test_pipelined_sends_get_ascending_history_ids() -> None:
    """The sends of one daemon on one connection keep their order."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending, bob.connect() as receiving:
            requests = [await sending.send(ada.envelope(bob, str(number))) for number in range(200)]
            results = [await sending.result(request) for request in requests]
            delivered = await receiving.deliveries(200)
    order = [result["history_id"] for result in results]
    assert order == sorted(order)
    assert [frame["history_id"] for frame in delivered] == order


async def test_one_id_raced_on_one_connection_is_accepted_once() -> None:
    """In one batch, too, the first wins and the rest are duplicates."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        envelope = ada.envelope("all")
        async with ada.connect() as link:
            requests = [await link.send(envelope) for _ in range(20)]
            results = [await link.result(request) for request in requests]
    assert sorted(result["status"] for result in results) == [200] * 19 + [201]
    assert len({result["broker_message_id"] for result in results}) == 1


def drifted(envelope: Frame) -> Frame:
    return envelope | {"request_fingerprint": "00" * 32}


def without(field: str) -> Callable[[Frame], Frame]:
    return lambda envelope: {name: value for name, value in envelope.items() if name != field}


def having(**fields: Any) -> Callable[[Frame], Frame]:
    return lambda envelope: envelope | fields


REFUSALS: list[tuple[Callable[[Frame], Frame], int, str]] = [
    (drifted, 422, "fingerprint_drift"),
    (without("client_message_id"), 400, "invalid_envelope"),
    (without("signature"), 400, "invalid_envelope"),
    (without("seal"), 400, "invalid_envelope"),
    (having(v=2), 400, "invalid_envelope"),
    (having(v=True), 400, "invalid_envelope"),
    (having(client_message_id=""), 400, "invalid_envelope"),
    (having(client_message_id="x" * 256), 400, "invalid_envelope"),
    (having(client_message_id=7), 400, "invalid_envelope"),
    (having(destination_kind="everyone"), 400, "invalid_envelope"),
    (having(destination_ref="#all"), 400, "invalid_envelope"),
    (having(priority="soon"), 400, "invalid_envelope"),
    (having(mentions="bob"), 400, "invalid_envelope"),
    (having(body="%%%"), 400, "invalid_envelope"),
    (having(reply_to_id="nothing"), 400, "invalid_envelope"),
    (having(extra=1), 400, "invalid_envelope"),
]


@pytest.mark.parametrize(("change", "status", "error"), REFUSALS)
async def test_a_bad_envelope_is_refused_and_its_id_stays_free(
    change: Callable[[Frame], Frame], status: int, error: str
) -> None:
    """Refused for good, no row, and the connection goes on: the right envelope is accepted afterwards."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        envelope = ada.envelope("all")
        async with ada.connect() as link:
            result = await link.request(change(envelope))
            assert (result["status"], result["error"]) == (status, error)
            assert result["message"]
            assert (await link.request(envelope))["status"] == 201


async def test_a_drift_is_answered_with_the_brokers_prefix_and_counted() -> None:
    """The sender can compare, and an operator can see it."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        envelope = ada.envelope("all")
        async with ada.connect() as link:
            result = await link.request(drifted(envelope))
        counted = broker.context.metrics.render().decode()
    assert result["broker_fingerprint_prefix"] == envelope["request_fingerprint"][:16]
    assert "cm_broker_dedupe_fingerprint_mismatch_total 1.0" in counted


async def test_a_body_beyond_the_negotiated_size_is_refused() -> None:
    """413 names the limit; at the limit it is taken."""
    async with running_broker(inline_bytes=2048) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            assert (await link.request(ada.envelope("all", "x" * 2048)))["status"] == 201
            result = await link.request(ada.envelope("all", "x" * 2049))
    assert (result["status"], result["error"]) == (413, "payload_too_large")


async def test_a_body_that_another_broker_took_is_answered_not_cut_off() -> None:
    """A frame up to 2 MiB is read, however small inline_bytes is, and its neighbours are accepted."""
    async with running_broker(inline_bytes=2048) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            result = await link.request(ada.envelope("all", "x" * 1_500_000))
            assert (result["status"], result["error"]) == (413, "payload_too_large")
            assert (await link.request(ada.envelope("all", "x")))["status"] == 201


async def test_a_frame_beyond_every_size_ends_the_connection() -> None:
    """Over 2 MiB: 1009."""
    async with running_broker(inline_bytes=2048) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            await link.send(ada.envelope("all", "x" * 1_600_000))
            assert (await link.closed())[0] == 1009


@pytest.mark.parametrize("kind", ["dm", "topic"])
async def test_a_destination_that_does_not_exist_leaves_no_row(kind: str) -> None:
    """404 from the transaction; the same id is accepted once the destination is there."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        nowhere = {"destination_ref": NOBODY} if kind == "dm" else {"destination_ref": "nowhere"}
        envelope = ada.envelope(ada if kind == "dm" else "all", **nowhere)
        async with ada.connect() as link:
            result = await link.request(envelope)
            assert (result["status"], result["error"]) == (404, "destination_not_found")
            reply = await link.call("send_status", client_message_ids=[envelope["client_message_id"]])
            assert reply["ok"]["items"][envelope["client_message_id"]]["known"] is False
            if kind == "topic":
                await link.call("topic_create", topic="nowhere")
                assert (await link.request(envelope))["status"] == 201


async def test_a_member_revoked_on_its_connection_sends_nothing_more() -> None:
    """The transaction sees the member as it is now, not as it was at hello."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with bob.connect() as link:
            await broker.context.store.members.set_status(ada.mesh_id, bob.member_id, "revoked")
            result = await link.request(bob.envelope("all"))
    assert (result["status"], result["error"]) == (403, "not_a_member")


async def saturated(broker: Any, limit: int) -> Peer:
    """Make a mesh that takes so many sends at once."""
    return await create_mesh(broker, rate_limit_per_minute=4 * limit)


async def test_over_the_limit_a_send_waits_as_long_as_it_is_told() -> None:
    """429 is transient and says when; nothing was written."""
    async with running_broker() as broker:
        ada = await saturated(broker, 2)
        async with ada.connect() as link:
            statuses = [(await link.request(ada.envelope("all")))["status"] for _ in range(2)]
            envelope = ada.envelope("all")
            result = await link.request(envelope)
            reply = await link.call("send_status", client_message_ids=[envelope["client_message_id"]])
    assert statuses == [201, 201]
    assert (result["status"], result["error"]) == (429, "rate_limited")
    assert 0 < result["retry_after_ms"] <= 60_000
    assert reply["ok"]["items"][envelope["client_message_id"]]["known"] is False


async def test_a_retry_is_free_in_a_saturated_window() -> None:
    """The lookup comes before the limiter: a committed id costs nothing, however often."""
    async with running_broker() as broker:
        ada = await saturated(broker, 1)
        envelope = ada.envelope("all")
        async with ada.connect() as link:
            first = await link.request(envelope)
            assert (await link.request(ada.envelope("all")))["status"] == 429
            again = [await link.request(envelope) for _ in range(5)]
    assert {result["status"] for result in again} == {200}
    assert {result["broker_message_id"] for result in again} == {first["broker_message_id"]}


async def test_a_retry_takes_nothing_of_the_limit() -> None:
    """Whichever way it was found to be one: only the first is counted."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        envelope = ada.envelope("all")
        async with ada.connect() as link:
            statuses = [(await link.request(envelope))["status"] for _ in range(4)]
        metrics = broker.context.metrics.render().decode()
    assert statuses == [201, 200, 200, 200]
    assert 'cm_broker_rate_limit_decisions_total{decision="allowed"} 1.0' in metrics


async def test_ids_are_looked_up_before_the_claim_where_that_can_change_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bad envelope, a limit that is near, repeats of late; any other send is one call of the store."""
    async with running_broker() as broker:
        ada = await saturated(broker, 5)
        asked: list[str] = []
        look_up = broker.context.store.messages.lookup

        async def noting(keys: Any) -> Any:
            asked.extend(key.client_message_id for key in keys)
            return await look_up(keys)

        monkeypatch.setattr(broker.context.store.messages, "lookup", noting)
        sends = [ada.envelope("all", client_message_id=f"id-{number}") for number in range(6)]
        async with ada.connect() as link:
            # A retry is found by the claim; the next one is expected to be one as well, and is not.
            for envelope in (sends[0], sends[1], sends[0], sends[2], sends[3]):
                await link.request(envelope)
            await link.request(sends[3] | {"priority": "soon"})
            await link.request(sends[4])
            assert (await link.request(sends[5]))["status"] == 429
    assert asked == ["id-2", "id-3", "id-4", "id-5"]


async def test_a_duplicate_is_answered_even_if_it_would_not_be_accepted_today() -> None:
    """A retry is answered from the row before any rule that has changed since."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        envelope = ada.envelope("all", client_message_id=new_id())
        async with ada.connect() as link:
            await link.request(envelope)
            result = await link.request(envelope | {"body": "%%%"})
    assert result["status"] == 200


async def test_more_sends_than_may_be_pending_are_all_answered() -> None:
    """At the bound the broker stops reading for a while; nothing is lost."""
    async with running_broker(limits=Limits(pending_sends=4)) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            requests = [await link.send(ada.envelope("all")) for _ in range(100)]
            results = [await link.result(request) for request in requests]
    assert {result["status"] for result in results} == {201}


async def test_send_status_tells_what_became_of_ones_own_ids_only() -> None:
    """Another member's ids are unknown: no oracle."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        envelope = ada.envelope("all", client_message_id="deploy-42")
        async with ada.connect() as link, bob.connect() as other:
            request = await link.send(envelope)
            mine = await link.call("send_status", client_message_ids=["deploy-42", "unknown"])
            result = await link.result(request)
            theirs = await other.call("send_status", client_message_ids=["deploy-42"])
    items = mine["ok"]["items"]
    assert items["deploy-42"] == {
        "known": True,
        "broker_message_id": result["broker_message_id"],
        "history_id": result["history_id"],
        "request_fingerprint": envelope["request_fingerprint"],
    }
    assert items["unknown"]["known"] is False
    assert theirs["ok"]["items"]["deploy-42"]["known"] is False


async def test_every_step_between_two_durable_ones_can_be_stopped_at() -> None:
    """The crash tests stop the process at these points, in this order."""
    passed: list[str] = []
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending, bob.connect() as receiving:
            await receiving.settle()
            failpoints.install(passed.append)
            try:
                await sending.request(ada.envelope(bob))
                await receiving.acknowledge(await receiving.deliveries(1))
                await receiving.settle()
            finally:
                failpoints.install(None)
    own = [
        name
        for name in passed
        if name
        in (
            "accept.after_lookup",
            "accept.after_validate",
            "accept.after_commit",
            "accept.before_answer",
            "deliver.before_push",
            "deliver.before_ack_commit",
        )
    ]
    assert own == [
        "accept.after_lookup",
        "accept.after_validate",
        "accept.after_commit",
        "deliver.before_push",
        "accept.before_answer",
        "deliver.before_ack_commit",
    ]
