"""`claudemesh daemon recover`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from claudemesh.cli import answers, output
from claudemesh.cli.confirming import confirm
from claudemesh.cli.next_commands import command, needed
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.meshes import choose_mesh
from claudemesh.client.recovering import (
    FILES,
    INBOX_PACKAGE,
    OUTBOX,
    Database,
    Found,
    Salvage,
    examine,
    replace_database,
    replace_inbox,
    salvage,
    stopped,
)
from claudemesh.home.paths import DaemonPaths, daemon_paths

_FORGOTTEN = ", and so is the list of sends that a restored broker is to be offered again"


@click.command()
@click.option("--fresh", is_flag=True, help="Begin with an empty file, without the readable sends and files.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@mesh_option
@json_option
@answers.action(
    status="string",
    mesh="string",
    outbox="string",
    inbox="string",
    files="string",
    salvaged="integer",
    unsent="integer",
    receipts="integer",
    moved_to="string?",
    salvaged_files="integer",
    files_moved_to="string?",
)
def recover(fresh: bool, yes: bool, mesh: str | None, as_json: bool) -> int:
    """Check the databases of a stopped daemon, salvage sends and files, and rebuild an inbox.

    The readable sends of a damaged outbox are copied to a new one with their receipts, and so are the files
    and long texts of a damaged list of files. The damaged file is kept beside it. Sends that the broker has
    accepted are recognised by their id and arrive once. A damaged inbox is moved aside by the next start of
    the daemon. The new one is filled with the messages that the broker keeps, also when the file is missing;
    they are marked as recovered and acknowledged.

    \b
    Examples:
      claudemesh daemon recover
      claudemesh daemon recover --yes && claudemesh daemon up -d
    """
    slug = choose_mesh(mesh)
    paths = daemon_paths(slug)
    with stopped(paths):
        inbox = examine(paths.inbox_db, INBOX_PACKAGE)
        outbox, sends = _readable(paths.outbox_db, OUTBOX, fresh=fresh)
        files, shared = _readable(paths.files_db, FILES, fresh=fresh)
        losses = [
            *([_of_outbox(outbox, sends)] if sends else []),
            *([_of_files(files, shared)] if shared else []),
            *([_of_inbox(inbox)] if inbox.state == "damaged" else []),
        ]
        if losses:
            confirm(" ".join(losses), yes=yes)
        answer = {"status": "unchanged", "mesh": slug, "outbox": outbox.state, "inbox": inbox.state}
        done = {"files": files.state, **_exchanged(paths, sends, shared)}
        # A daemon that has run has a position, so an inbox that is missing was lost.
        begins = inbox.state == "damaged" or (inbox.state == "missing" and paths.inbox_position.exists())
        if begins:
            replace_inbox(paths.inbox_db)
    if losses or begins:
        answer["status"] = "recovered"
    following = [command("daemon", "up", "-d", mesh=needed(slug))]
    return output.print_answer(as_json, answer | done, _text(answer | done, begins), next=following)


def _readable(path: Path, database: Database, *, fresh: bool) -> tuple[Found, Salvage | None]:
    """Return the state of a database and, of a damaged one, the rows that are to be kept."""
    found = examine(path, database.package)
    if found.state != "damaged":
        return found, None
    return found, Salvage(database) if fresh else salvage(path, database)


def _exchanged(paths: DaemonPaths, sends: Salvage | None, shared: Salvage | None) -> dict[str, object]:
    """Put new databases in the place of damaged ones, and return the fields of the answer."""
    count, moved = (0, None) if sends is None else replace_database(paths.outbox_db, sends)
    files, files_moved = (0, None) if shared is None else replace_database(paths.files_db, shared)
    return {
        "salvaged": count,
        "unsent": 0 if sends is None else sends.unsent,
        "receipts": 0 if sends is None else len(sends.table("receipt").rows),
        "moved_to": None if moved is None else str(moved),
        "salvaged_files": files,
        "files_moved_to": None if files_moved is None else str(files_moved),
    }


def _of_outbox(outbox: Found, kept: Salvage) -> str:
    is_known = all(kept.table(name).is_whole for name in ("reoffer", "broker_restore"))
    return (
        f"The outbox is damaged ({outbox.damage}). {len(kept.accepted.rows)} sends are copied to a new one, "
        f"{kept.unsent} of them not delivered yet, with {len(kept.table('receipt').rows)} receipts; "
        f"all others are lost{'' if is_known else _FORGOTTEN}. The damaged file is kept."
    )


def _of_files(files: Found, kept: Salvage) -> str:
    return (
        f"The list of files is damaged ({files.damage}). {len(kept.accepted.rows)} files and long texts are "
        f"copied to a new one, {kept.unsent} of them not shared yet; all others are lost. The damaged file "
        "is kept."
    )


def _of_inbox(inbox: Found) -> str:
    return (
        f"The inbox is damaged ({inbox.damage}). The next start begins another and fills it with the "
        "messages that the broker keeps. Lost are older messages, local ones of this host, the state of each "
        "one, and runs of hooks that wait."
    )


def _text(answer: Mapping[str, object], begins: bool) -> str:
    texts = []
    if answer["moved_to"] is not None:
        texts.append(
            f"copied {answer['salvaged']} sends to a new outbox; the damaged one is {answer['moved_to']}"
        )
    if answer["files_moved_to"] is not None:
        texts.append(
            f"copied {answer['salvaged_files']} files and long texts to a new list of files; the damaged one "
            f"is {answer['files_moved_to']}"
        )
    if not texts:
        texts.append(
            f"The outbox of mesh {answer['mesh']} is {answer['outbox']}, the inbox is {answer['inbox']}, and "
            f"the list of files is {answer['files']}."
        )
    if begins:
        texts.append("The next start fills an inbox with the messages that the broker keeps.")
    return "\n".join(texts)
