"""`claudemesh member`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.confirming import confirm
from claudemesh.cli.lookup import find_member, note_without_link
from claudemesh.cli.options import complete_members, json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.group(cls=CommandGroup)
def member() -> None:
    """List members, give roles and revoke members. Roles and revocations need an owner or admin.

    \b
    Examples:
      claudemesh member list
      claudemesh member role bob admin
      claudemesh member revoke bob
    """


@member.command("list")
@mesh_option
@json_option
@answers.items("MemberItem")
def list_members(mesh: str | None, as_json: bool) -> None:
    """List the members of the mesh, revoked ones too.

    \b
    Examples:
      claudemesh member list
      claudemesh member list --json | jq -r '.items[].name'
    """
    client = LocalClient(mesh)
    items = client.items("/v1/members")
    note_without_link(client, items)
    if as_json:
        output.print_items(items)
        return
    output.table(
        ("name", "role", "status", "online", "ephemeral", "last_seen_at", "member_id"),
        [
            (
                item["name"],
                item["role"],
                item["status"],
                "yes" if item["online"] else "no",
                "yes" if item["ephemeral"] else "no",
                item["last_seen_at"],
                item["member_id"],
            )
            for item in items
        ],
    )


@member.command()
@click.argument("name", metavar="NAME|KEY", shell_complete=complete_members)
@click.argument("role", type=click.Choice(["owner", "admin", "member"]))
@click.option("--force", is_flag=True, help="Leave the mesh without an owner.")
@mesh_option
@json_option
@answers.action("MemberChanged", role="string")
def role(name: str, role: str, force: bool, mesh: str | None, as_json: bool) -> int:
    """Give a member another role.

    NAME|KEY is the name, key or member id of a member. An owner may give every role, an admin the roles admin
    and member, and not to an owner.

    \b
    Examples:
      claudemesh member role bob admin
    """
    body = {"member": name, "role": role, "force": force}
    answer = {**LocalClient(mesh).post("/v1/members/role", body), "role": role}
    return output.print_answer(as_json, answer, f"{output.safe(answer['name'])} is {role} now")


@member.command()
@click.argument("name", metavar="NAME|KEY", shell_complete=complete_members)
@click.option("--force", is_flag=True, help="Revoke the last owner.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@mesh_option
@json_option
@answers.action("MemberChanged")
def revoke(name: str, force: bool, yes: bool, mesh: str | None, as_json: bool) -> int:
    """Revoke a member for good: the broker and all members refuse its key.

    NAME|KEY is the name, key or member id of a member. Its daemon ends with exit code 77. Messages that it
    sent before stay. An admin cannot revoke an owner.

    \b
    Examples:
      claudemesh member revoke bob
      claudemesh member revoke bob --yes
    """
    client, wanted = LocalClient(mesh), name
    if not yes:
        found = find_member(client, name)
        about = f"{output.safe(found['name'])} ({found['role']}, key {found['pubkey']})"
        confirm(f"This revokes {about} in mesh {client.slug} for good.", yes=yes)
        # The member that was shown, though another one may have its name by now.
        wanted = found["member_id"]
    answer = client.post("/v1/members/revoke", {"member": wanted, "force": force})
    return output.print_answer(as_json, answer, f"revoked {output.safe(answer['name'])}")
