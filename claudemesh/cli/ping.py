"""`claudemesh ping`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.lookup import find_peer, unknown_peer
from claudemesh.cli.options import complete_members, json_option, mesh_option
from claudemesh.client.errors import ClientError
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import UNAVAILABLE


@click.command()
@click.argument("name", shell_complete=complete_members)
@mesh_option
@json_option
@answers.exits({69: "The member is offline, or the daemon or the broker cannot be reached."})
@answers.action(name="string", online="boolean", last_seen_at="time?", broker_ms="integer?")
def ping(name: str, mesh: str | None, as_json: bool) -> int:
    """Check whether a member is online. The exit code is 69 when it is not.

    NAME is a member's name or public key. The time in the answer is the round trip to the broker.

    \b
    Examples:
      claudemesh ping alice
      claudemesh ping alice && claudemesh request alice 'may I deploy?'
    """
    client = LocalClient(mesh)
    health = client.get("/v1/health")
    peer = find_peer(client, name)
    if peer is None:
        raise unknown_peer(client, name)
    if not health["connected"]:
        text = f"The broker is not connected: {health['last_error'] or 'the daemon is connecting'}."
        raise ClientError("broker_unavailable", text, next="claudemesh doctor")
    answer = {
        "name": peer["name"],
        "online": peer["online"],
        "last_seen_at": peer["last_seen_at"],
        "broker_ms": health["lag_ms"],
    }
    state = "is online" if peer["online"] else f"is offline, last seen {output.moment(peer['last_seen_at'])}"
    lag = "" if health["lag_ms"] is None else f"  (broker {health['lag_ms']} ms)"
    output.print_answer(as_json, answer, f"{output.safe(peer['name'])} {state}{lag}")
    return 0 if peer["online"] else UNAVAILABLE
