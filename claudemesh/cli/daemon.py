"""`claudemesh daemon …`: the group; each command stands in the file of its purpose."""

from __future__ import annotations

import click

from claudemesh.cli.lazy import LazyGroup

COMMANDS = {
    "up": ("running", "up", "Start the daemon."),
    "down": ("running", "down", "Stop the daemon."),
    "restart": ("running", "restart", "Stop the daemon and start it again."),
    "reload": ("running", "reload", "Take config.toml over without dropping the link."),
    "set-broker": ("address", "set_broker", "Dial the mesh's broker at another address."),
    "rotate-token": ("running", "rotate_token", "Replace the bearer of the loopback."),
    "status": ("running", "status", "Show how the daemon is."),
    "ps": ("watch", "ps", "List this host's daemons."),
    "logs": ("watch", "logs", "Show the daemon's log."),
    "hooks": ("hooks", "hooks", "List and check the hooks."),
    "metrics": ("watch", "metrics", "Print the daemon's metrics."),
    "inbox": ("inbox", "inbox", "Show received messages (claudemesh inbox)."),
    "outbox": ("outbox", "outbox", "Look at what is sent; requeue, drop or prune."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def daemon() -> None:
    """This host's daemon: one for each mesh."""
