"""The group `claudemesh daemon`: this host's daemon, one for each mesh."""

from __future__ import annotations

import click

from claudemesh.cli.lazy_group import LazyGroup

COMMANDS = {
    "up": ("daemon.up", "up", "Start the daemon."),
    "down": ("daemon.down", "down", "Stop the daemon."),
    "restart": ("daemon.restart", "restart", "Stop the daemon and start it again."),
    "reload": ("daemon.reload", "reload", "Take config.toml over without dropping the link."),
    "set-broker": ("daemon.set_broker", "set_broker", "Dial the mesh's broker at another address."),
    "rotate-token": ("daemon.rotate_token", "rotate_token", "Replace the bearer of the loopback."),
    "status": ("daemon.status", "status", "Show how the daemon is."),
    "ps": ("daemon.ps", "ps", "List this host's daemons."),
    "logs": ("daemon.logs", "logs", "Show the daemon's log."),
    "hooks": ("daemon.hooks", "hooks", "List and check the hooks."),
    "metrics": ("daemon.metrics", "metrics", "Print the daemon's metrics."),
    "inbox": ("inbox", "inbox", "Show received messages (claudemesh inbox)."),
    "outbox": ("daemon.outbox", "outbox", "Look at what is sent; requeue, drop or prune."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def daemon() -> None:
    """This host's daemon: one for each mesh."""
