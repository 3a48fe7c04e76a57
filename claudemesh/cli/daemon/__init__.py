"""The group `claudemesh daemon`: commands for the daemon of this host, one daemon per mesh."""

from __future__ import annotations

import click

from claudemesh.cli.lazy_group import LazyGroup

COMMANDS = {
    "Start and stop": {
        "up": ("daemon.up", "up", "Start the daemon."),
        "down": ("daemon.down", "down", "Stop the daemon."),
        "restart": ("daemon.restart", "restart", "Stop the daemon and start it again in the background."),
    },
    "Service": {
        "install-service": (
            "daemon.install_service",
            "install_service",
            "Install the daemon of a mesh as a service, which starts with the host.",
        ),
        "uninstall-service": (
            "daemon.install_service",
            "uninstall_service",
            "Stop the service of a mesh's daemon and remove it.",
        ),
    },
    "Configuration": {
        "reload": ("daemon.reload", "reload", "Apply config.toml without a restart."),
        "rotate-token": ("daemon.rotate_token", "rotate_token", "Replace the token of the local TCP port."),
        "rotate-keypair": (
            "daemon.rotate_keypair",
            "rotate_keypair",
            "Replace the keys of this host's member.",
        ),
        "archive-cleanup": (
            "daemon.archive_cleanup",
            "archive_cleanup",
            "Delete the older keys whose grace period has passed.",
        ),
        "backup": (
            "daemon.backup",
            "backup",
            "Write keys, membership, pins, settings and hooks to an encrypted file.",
        ),
        "restore": ("daemon.backup", "restore", "Bring a member back from a backup, on this host."),
        "set-broker": ("daemon.set_broker", "set_broker", "Change the address of the mesh's broker."),
        "accept-host": (
            "daemon.accept_host",
            "accept_host",
            "Let the files of this mesh belong to this host.",
        ),
        "remint": ("daemon.remint", "remint", "Make this host a member of its own, with new keys."),
        "rename": ("daemon.rename", "rename", "Give this member another name."),
        "hooks": ("daemon.hooks", "hooks", "List the hooks and check their files."),
    },
    "State": {
        "status": (
            "daemon.status",
            "status",
            "Show the state of the daemon, or with ID how far a send has come.",
        ),
        "ps": ("daemon.ps", "ps", "List the daemons of this host, running or not."),
        "logs": ("daemon.logs", "logs", "Show the log of the daemon."),
        "metrics": (
            "daemon.metrics",
            "metrics",
            "Print the metrics of the daemon in the Prometheus text format.",
        ),
    },
    "Removal": {
        "recover": (
            "daemon.recover",
            "recover",
            "Check the databases of a stopped daemon, salvage sends and files, and rebuild an inbox.",
        ),
        "reset": ("daemon.reset", "reset", "Delete the local state, and stay a member of the mesh."),
        "uninstall": ("leave", "uninstall", "Leave the mesh, and delete what this host keeps of it."),
    },
    "Messages": {
        "outbox": ("daemon.outbox", "outbox", "List, requeue, drop and prune sends."),
        "inbox": ("inbox", "inbox", "Show the newest received messages."),
    },
}


@click.group(cls=LazyGroup, table=COMMANDS)
def daemon() -> None:
    """Manage the daemon of this host. A host runs one daemon for each mesh.

    \b
    Examples:
      claudemesh daemon up -d
      claudemesh daemon status
      claudemesh daemon outbox --failed
    """
