"""The decisions that both engines share, step by step."""

from __future__ import annotations

import pytest

from claudemesh.broker.store.decisions import (
    BATCH_ROWS,
    CHECK_STAGES,
    HistoryRow,
    Taken,
    dedupe_findings,
    first_id_since,
    judge_join,
    judge_put_back,
    may_invite,
    next_position,
    page_of,
    past_retention,
    swept,
)
from claudemesh.broker.store.types import InviteRow, Joined, JoinRefused, Page, Swept, Version
from tests.support.stores import NOW, member
from tests.support.values import replace

MESH = "01899e2d-0000-7000-8000-000000000001"
BOB = member(MESH, "bob")
INVITE = InviteRow("01J0000000000000000000000A", MESH, "member", "ab" * 32, NOW + 1, 1)
FREE = Taken(same_key=None, sealing_key=False, name=False, member_id=False)


@pytest.mark.parametrize(
    ("status", "role", "invited", "allowed"),
    [
        ("active", "owner", "owner", True),
        ("active", "owner", "member", True),
        ("active", "admin", "admin", True),
        ("active", "admin", "owner", False),
        ("active", "member", "member", False),
        ("revoked", "owner", "member", False),
        ("left", "admin", "member", False),
    ],
)
def test_invitations_go_up_to_the_inviter_s_role(status: str, role: str, invited: str, allowed: bool) -> None:
    assert may_invite(status, role, invited) is allowed


def test_a_new_member_joins() -> None:
    assert judge_join(INVITE, BOB, FREE, NOW) is None


@pytest.mark.parametrize(
    ("taken", "invite", "error"),
    [
        (replace(FREE, same_key=replace(BOB, name="other")), INVITE, "key_taken"),
        (replace(FREE, same_key=replace(BOB, status="revoked")), INVITE, "key_taken"),
        (replace(FREE, sealing_key=True), INVITE, "key_taken"),
        (FREE, replace(INVITE, revoked_at=NOW - 9), "invite_revoked"),
        (FREE, replace(INVITE, expires_at=NOW), "invite_expired"),
        (replace(FREE, name=True), INVITE, "name_taken"),
        (replace(FREE, member_id=True), INVITE, "id_taken"),
    ],
)
def test_a_join_is_refused_with_its_reason(taken: Taken, invite: InviteRow, error: str) -> None:
    assert judge_join(invite, BOB, taken, NOW) == JoinRefused(error)


def test_the_same_member_joins_again_even_by_an_invite_that_has_expired() -> None:
    late = replace(INVITE, expires_at=NOW - 1, revoked_at=NOW - 1)
    again = replace(FREE, same_key=BOB, sealing_key=True, name=True, member_id=True)
    assert judge_join(late, BOB, again, NOW) == Joined(BOB, created=False)


@pytest.mark.parametrize(
    ("taken", "outcome"),
    [
        (FREE, None),
        (replace(FREE, same_key=BOB, member_id=True), Joined(BOB, created=False)),
        (replace(FREE, member_id=True, name=True), JoinRefused("id_taken")),
        (replace(FREE, name=True, sealing_key=True), JoinRefused("name_taken")),
        (replace(FREE, sealing_key=True), JoinRefused("key_taken")),
    ],
)
def test_a_lost_member_is_put_back_unless_its_values_are_taken(
    taken: Taken, outcome: Joined | JoinRefused | None
) -> None:
    assert judge_put_back(taken) == outcome


def test_each_mesh_keeps_its_messages_for_its_own_time() -> None:
    rows = [HistoryRow(1, "m1", "a"), HistoryRow(2, "m2", "b"), HistoryRow(3, "m3", "a")]
    assert past_retention(rows, {"a": 1, "b": 9}) == rows[:2]
    assert past_retention(rows, {}) == []


def test_a_sweep_goes_on_behind_a_full_batch_while_a_mesh_has_older_limits() -> None:
    rows = [HistoryRow(number, f"m{number}", "a") for number in range(1, BATCH_ROWS + 1)]
    assert swept(rows, {"a": BATCH_ROWS + 1}, 7) == Swept(7, BATCH_ROWS)
    assert swept(rows, {"a": BATCH_ROWS}, 7) == Swept(7, None)
    assert swept(rows[1:], {"a": BATCH_ROWS + 1}, 7) == Swept(7, None)
    assert swept([], {"a": 1}, 0) == Swept(0, None)


@pytest.mark.parametrize(
    ("available", "body", "history", "tombstone", "kinds"),
    [
        (True, True, True, False, []),
        (False, False, False, True, []),
        (True, False, True, False, ["dedupe_without_body"]),
        (True, False, False, False, ["dedupe_without_body", "dedupe_without_history"]),
        (False, True, True, False, ["dedupe_without_tombstone"]),
    ],
)
def test_a_dedupe_row_needs_its_message_or_a_tombstone(
    available: bool, body: bool, history: bool, tombstone: bool, kinds: list[str]
) -> None:
    found = dedupe_findings(
        "id", available=available, has_body=body, has_history=history, has_tombstone=tombstone
    )
    assert [finding.kind for finding in found] == kinds


def test_a_check_goes_through_every_table_to_its_end() -> None:
    assert next_position("check_dedupe", "last", BATCH_ROWS) == ("check_dedupe", "last")
    position = (CHECK_STAGES[0], None)
    seen = [position[0]]
    while (following := next_position(position[0], "last", 1)) is not None:
        position = following
        assert position[1] is None
        seen.append(position[0])
    assert tuple(seen) == CHECK_STAGES


def test_a_page_has_a_version_at_its_end_only() -> None:
    newest = Version(3, "00" * 16)
    rows = [replace(BOB, changed_version=number) for number in (1, 2, 3, 4)]
    assert page_of(rows, 2, newest, is_whole=True) == Page(tuple(rows[:2]), None, 2, True)
    assert page_of(rows[2:], 2, newest, is_whole=True) == Page((rows[2],), newest, None, True)
    assert page_of(rows, 2, None, is_whole=False) == Page((), None, None, False)


def test_ids_of_a_moment_begin_with_its_time() -> None:
    assert first_id_since(0) == "0" * 26
    assert first_id_since(NOW) < first_id_since(NOW + 1)
