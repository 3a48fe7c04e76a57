"""`claudemesh daemon recover`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.confirming import confirm
from claudemesh.cli.next_commands import command, needed
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.meshes import choose_mesh
from claudemesh.client.recovering import Salvage, examine, replace_outbox, salvage, stopped
from claudemesh.home.paths import daemon_paths

_OUTBOX = "claudemesh.daemon.sql.outbox"
_INBOX = "claudemesh.daemon.sql.inbox"


@click.command()
@click.option("--fresh", is_flag=True, help="Begin with an empty outbox, without the readable sends.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@mesh_option
@json_option
@answers.action(
    status="string",
    mesh="string",
    outbox="string",
    inbox="string",
    salvaged="integer",
    unsent="integer",
    moved_to="string?",
)
def recover(fresh: bool, yes: bool, mesh: str | None, as_json: bool) -> int:
    """Check the databases of a stopped daemon, and salvage a damaged outbox.

    The readable sends of a damaged outbox are copied to a new one, and the damaged file is kept beside it.
    Sends that the broker has accepted are recognised by their id and arrive once. A damaged inbox is moved
    aside by the next start of the daemon; `claudemesh history` shows the messages that the broker keeps.

    \b
    Examples:
      claudemesh daemon recover
      claudemesh daemon recover --yes && claudemesh daemon up -d
    """
    slug = choose_mesh(mesh)
    paths = daemon_paths(slug)
    with stopped(paths):
        outbox, inbox = examine(paths.outbox_db, _OUTBOX), examine(paths.inbox_db, _INBOX)
        answer: dict[str, object] = {
            "status": "unchanged",
            "mesh": slug,
            "outbox": outbox.state,
            "inbox": inbox.state,
            "salvaged": 0,
            "unsent": 0,
            "moved_to": None,
        }
        following = [command("daemon up -d", mesh=needed(slug))]
        if inbox.state == "damaged":
            output.note(
                f"The inbox is damaged ({inbox.damage}). The next start moves it aside and begins a new one."
            )
            following.append(command("history", mesh=needed(slug)))
        if outbox.state != "damaged":
            text = f"The outbox of mesh {slug} is {outbox.state}, and the inbox is {inbox.state}."
            return output.print_answer(as_json, answer, text, next=following)
        kept = Salvage(0, (), ()) if fresh else salvage(paths.outbox_db)
        confirm(
            f"The outbox is damaged ({outbox.damage}). {len(kept.rows)} sends are copied to a new one, "
            f"{kept.unsent} of them not delivered yet; all others are lost. The damaged file is kept.",
            yes=yes,
        )
        count, moved = replace_outbox(paths.outbox_db, kept, _OUTBOX)
    answer |= {"status": "recovered", "salvaged": count, "unsent": kept.unsent, "moved_to": str(moved)}
    text = f"copied {count} sends to a new outbox; the damaged one is {moved}"
    return output.print_answer(as_json, answer, text, next=following)
