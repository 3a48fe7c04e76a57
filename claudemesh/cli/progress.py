"""States of a send: shown, and waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from claudemesh.cli import output
from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import TEMPORARY, UNAVAILABLE, ExitWith

# States that can be waited for, in their order.
WAITED_FOR = ("accepted", "delivered", "notified", "shown", "acked")
# States for which the recipient has to send a receipt.
RECEIPTS = ("delivered", "shown", "acked")
_ENDED = ("dead", "aborted")
_SILENT = {"state": "queued", "detail": "no daemon answers"}
_MISSING = "the outbox holds no send with this id"
_FILE_ENDED = ("failed", "deleted")
# The daemon answers earlier, when the state changes.
_WAIT_MS = 20_000
_POLL_S = 0.1
_RECIPIENT = ("recipient", "state", "delivered", "notified", "shown", "acked")


def wait_for_state(client: LocalClient, any_id: str, state: str, timeout_s: float) -> dict[str, Any]:
    """Return a send that has come to a state, or further. A daemon that restarts is waited for.

    Raise `ExitWith`: 75 when the time is up, with how far the send has come, and 69 when it has ended.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = deadline - time.monotonic()
        row = _ask(client, any_id, state, left_s)
        if row["state"] in _ENDED:
            text = f"The send {any_id} is {row['state']}: {row['last_error']}."
            inspect = f"claudemesh daemon outbox inspect {any_id}"
            raise ExitWith(UNAVAILABLE, f"outbox_{row['state']}", text, next=inspect)
        if row["state"] in WAITED_FOR[WAITED_FOR.index(state) :]:
            return row
        if left_s <= 0:
            text = f"The send {any_id} is not {state} after {round(timeout_s)} s: {row['detail']}."
            raise ExitWith(TEMPORARY, "timeout", text, next=f"claudemesh status {any_id}")


def _ask(client: LocalClient, any_id: str, state: str, left_s: float) -> dict[str, Any]:
    wait_ms = max(0, min(_WAIT_MS, int(left_s * 1000)))
    try:
        return client.get(f"/v1/outbox/{quote(any_id, safe='')}", wait_for=state, wait_ms=wait_ms)
    except DaemonNotRunning as error:
        if not error.may_start:
            raise
        time.sleep(_POLL_S)
        return _SILENT
    except ApiError as error:
        if error.status != 404:
            raise
        # A long text has no row before its file is at the broker.
        detail = error.body.get("detail", _MISSING)
        if error.body.get("file_state") in _FILE_ENDED:
            text = f"The send {any_id} does not leave: {detail.rstrip('.')}."
            raise ExitWith(UNAVAILABLE, f"file_{error.body['file_state']}", text) from error
        time.sleep(_POLL_S)
        return {"state": "queued", "detail": detail.rstrip(".")}


def print_progress(answer: Mapping[str, Any], row: Mapping[str, Any], *, as_json: bool) -> int:
    """Print a send and how far it has come, and return exit code 0."""
    found = {**answer, "state": row["state"], "detail": row["detail"]}
    return output.print_answer(as_json, found, f"{row['detail']}", made=answer["client_message_id"])


def show_progress(client: LocalClient, any_id: str, *, as_json: bool) -> None:
    """Print a send with the states that its recipients have told.

    Of a file or a long text that the broker does not have yet, print that.
    """
    try:
        row = client.get(f"/v1/outbox/{quote(any_id, safe='')}")
    except ApiError as error:
        if as_json or "file_state" not in error.body:
            raise
        output.fields({"id": any_id, "state": error.body["detail"]})
        return
    if as_json:
        output.print_items([row])
        return
    output.fields(
        {
            "id": row["client_message_id"],
            "state": row["detail"],
            "queued": output.moment(row["enqueued_at"]),
            "accepted": output.moment(row["delivered_at"], "no"),
        }
    )
    if row["recipients"]:
        output.table(_RECIPIENT, [_cells(one) for one in row["recipients"]])
    if row["receipt"] is None and row["state"] == "accepted":
        output.note("This send asked for no receipt. `claudemesh send --wait-for shown` asks for one.")


def _cells(one: Mapping[str, Any]) -> list[str]:
    return [one["name"], one["state"], *(_reached(one, state) for state in WAITED_FOR[1:])]


def _reached(one: Mapping[str, Any], state: str) -> str:
    """Return the time of a state, with the session that brought the message into it."""
    at, by = output.moment(one[f"{state}_at"], ""), one.get(f"{state}_by")
    return f"{at} {by}" if by else at
