"""`claudemesh ping`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.lookup import find_peer
from claudemesh.cli.options import complete_members, json_option, mesh_option
from claudemesh.client.errors import ClientError
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import UNAVAILABLE, USAGE, ExitWith


@click.command()
@click.argument("name", shell_complete=complete_members)
@mesh_option
@json_option
def ping(name: str, mesh: str | None, as_json: bool) -> int:
    """See whether a peer is here, and how far the broker is; exit 69 when it is not."""
    client = LocalClient(mesh)
    health = client.get("/v1/health")
    peer = find_peer(client, name)
    if peer is None:
        text = f"Nobody here is called {name}: see `claudemesh peers`."
        raise ExitWith(USAGE, "destination_not_found", text)
    if not health["connected"]:
        raise ClientError("broker_unavailable", f"The broker cannot be reached: {health['last_error']}.")
    answer = {
        "name": peer["name"],
        "online": peer["online"],
        "last_seen_at": peer["last_seen_at"],
        "broker_ms": health["lag_ms"],
    }
    seen = "here" if peer["online"] else f"not here, last seen {peer['last_seen_at'] or 'never'}"
    lag = "" if health["lag_ms"] is None else f"  (broker {health['lag_ms']} ms)"
    output.tell(as_json, answer, f"{peer['name']}: {seen}{lag}")
    return 0 if peer["online"] else UNAVAILABLE
