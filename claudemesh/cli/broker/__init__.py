"""The group `claudemesh broker`: it runs a broker, or administers one with its admin token."""

from __future__ import annotations

import click

from claudemesh.cli.lazy_group import LazyGroup

COMMANDS = {
    "Run": {
        "setup": (
            "broker.setup",
            "setup",
            "Set up a broker: its settings, the first mesh, and the first invite.",
        ),
        "up": ("broker.up", "up", "Start a broker."),
        "down": ("broker.down", "down", "Stop the broker of this host."),
        "status": ("broker.status", "status", "Show the state of the broker of this host."),
        "web": ("broker.web", "web", "Open the console of a broker in a browser."),
        "logs": ("broker.logs", "logs", "Show the log of the broker of this host."),
        "config": ("broker.config", "config", "Check and show the settings of a broker."),
    },
    "Service": {
        "install-service": (
            "broker.install_service",
            "install_service",
            "Install a broker as a service, which starts with the host.",
        ),
        "uninstall-service": (
            "broker.install_service",
            "uninstall_service",
            "Stop the service of the broker and remove it.",
        ),
    },
    "Administer": {
        "mesh": ("broker.mesh", "mesh", "List meshes and set their policies."),
        "member": ("broker.member", "member", "List and revoke members."),
        "invite": ("broker.invite", "invite", "List and revoke invites."),
        "audit": ("broker.audit", "audit", "Show the audit events of a mesh."),
        "check": ("broker.check", "check", "Check that every stored message is complete."),
        "job": ("broker.job", "job", "List and run maintenance jobs."),
    },
}


@click.group(cls=LazyGroup, table=COMMANDS)
def broker() -> None:
    """Run and administer a broker.

    A broker is the server that connects the members of a mesh. The commands that administer it need its
    admin token. On the broker's own host they find the token in the data directory.

    \b
    Examples:
      claudemesh broker up -d
      claudemesh broker member list team
      claudemesh broker member revoke team bob
    """
