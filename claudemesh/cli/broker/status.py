"""`claudemesh broker status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.admin import data_dir_option, no_broker, own_client
from claudemesh.cli.broker.background import shown
from claudemesh.cli.options import json_option
from claudemesh.client.errors import ApiError, ClientError
from claudemesh.client.own_broker import OwnBroker, chosen_data_dir, find_broker
from claudemesh.runtime.exits import OK, UNAVAILABLE
from claudemesh.runtime.own_address import dialled_urls


@click.command()
@data_dir_option
@json_option
@answers.exits({69: "No broker runs, or the one that runs is not ready."})
@answers.one(
    url="string",
    dialled_urls="array",
    public_urls="array",
    pid="integer",
    data_dir="string",
    ready="boolean?",
    degraded="array",
    message="string?",
)
def status(data_dir: Path | None, as_json: bool) -> int:
    """Show the state of the broker of this host.

    The exit code is 69 when no broker runs, and when the one that runs is not ready. The conditions that hold
    follow, each with its reason and what to do.

    \b
    Examples:
      claudemesh broker status
      claudemesh broker status --json | jq .ready
    """
    folder = chosen_data_dir(data_dir)
    found = find_broker(folder)
    if found is None:
        raise no_broker(folder)
    state = _readiness(found)
    code = OK if state["ready"] else UNAVAILABLE
    if as_json:
        output.print_json({**shown(found), **state})
        return code
    conditions = [item["code"] for item in state["degraded"]]
    output.fields(
        {
            "address": ", ".join(dialled_urls(found.url, found.public_urls)),
            "listens": found.url,
            "ready": {True: "yes", False: "no", None: "unknown"}[state["ready"]],
            "degraded": ", ".join(conditions) or "no",
            "pid": found.pid,
            "data": found.data_dir,
        }
    )
    if state["message"]:
        output.note(state["message"])
    for item in state["degraded"]:
        output.note(f"{item['code']}, since {output.moment(item['since'])}: {item['message']}")
    return code


def _readiness(found: OwnBroker) -> dict[str, Any]:
    """Return what the broker says of itself; `ready` is None when it cannot be asked."""
    # Imported here: parsers need the protocol.
    from claudemesh.protocol.http_replies import readiness

    try:
        answer = own_client(found).ask("GET", "/readyz", None, readiness)
    except ApiError as error:
        return {"ready": False, "degraded": error.body.get("reasons", []), "message": error.message}
    except ClientError as error:
        return {"ready": None, "degraded": [], "message": error.message}
    return {"ready": True, "degraded": answer["degraded"], "message": None}
