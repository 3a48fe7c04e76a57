"""`claudemesh daemon recover`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.confirming import confirm
from claudemesh.cli.next_commands import command, needed
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.meshes import choose_mesh
from claudemesh.client.recovering import Salvage, examine, replace_inbox, replace_outbox, salvage, stopped
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
    """Check the databases of a stopped daemon, salvage a damaged outbox, and rebuild an inbox.

    The readable sends of a damaged outbox are copied to a new one, and the damaged file is kept beside it.
    Sends that the broker has accepted are recognised by their id and arrive once. A damaged inbox is moved
    aside by the next start of the daemon. The new one is filled with the messages that the broker keeps,
    also when the file is missing; they are marked as recovered and acknowledged.

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
        following = [command("daemon", "up", "-d", mesh=needed(slug))]
        if inbox.state == "damaged":
            confirm(
                f"The inbox is damaged ({inbox.damage}). The next start begins another and fills it with the "
                "messages that the broker keeps. Lost are older messages, local ones of this host, "
                "and the state of each one.",
                yes=yes,
            )
        # A daemon that has run has a position, so an inbox that is missing was lost.
        if inbox.state == "damaged" or (inbox.state == "missing" and paths.inbox_position.exists()):
            replace_inbox(paths.inbox_db)
            answer["status"] = "recovered"
        if outbox.state != "damaged":
            text = f"The outbox of mesh {slug} is {outbox.state}, and the inbox is {inbox.state}."
            if answer["status"] == "recovered":
                text += " The next start fills an inbox with the messages that the broker keeps."
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
