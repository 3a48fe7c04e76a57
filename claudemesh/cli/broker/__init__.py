"""The group `claudemesh broker`: it runs a broker, or looks after its meshes with the admin token."""

from __future__ import annotations

import click

from claudemesh.cli.lazy_group import LazyGroup

COMMANDS = {
    "up": ("broker.up", "up", "Run a broker."),
    "mesh": ("broker.mesh", "mesh", "List meshes and set their policies."),
    "member": ("broker.member", "member", "List and revoke members."),
    "invite": ("broker.invite", "invite", "List and revoke invites."),
    "audit": ("broker.audit", "audit", "Show what happened to a mesh."),
    "check": ("broker.check", "check", "Look for messages that are not whole."),
    "job": ("broker.job", "job", "Run what the broker does by itself."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def broker() -> None:
    """Brokers: the meeting point of a mesh.

    \b
    claudemesh broker up
    claudemesh broker member list team
    claudemesh broker member revoke team bob
    """
