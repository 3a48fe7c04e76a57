"""`claudemesh file`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import FileId, complete_members, json_option, mesh_option
from claudemesh.cli.output import Column
from claudemesh.client.errors import ApiError
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import UNAVAILABLE, ExitWith

_WAIT_MS = 1000
_OVER = ("shared", "failed", "deleted")
# Fields of each line about a file on its way.
_SENDING = {
    "file_id": "string",
    "client_message_id": "string",
    "name": "string",
    "size": "integer",
    "sha256": "string",
    "state": "string",
    "sent": "integer",
    "error": "string?",
}
_FETCHING = {
    "file_id": "string",
    "status": "string",
    "size": "integer",
    "received": "integer",
    "path": "string?",
}


@click.group(cls=CommandGroup)
def file() -> None:
    """Send, fetch, list and delete files.

    A file is encrypted on this host, and the broker keeps it until a day after its receivers have it, at most
    for 30 days. Only they can read it, its name and its type.

    \b
    Examples:
      claudemesh file send build.log alice -m 'the log of v42'
      claudemesh file list
      claudemesh file get 01HZ0000000000000000000000 --out logs/
    """


@file.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("to", shell_complete=complete_members)
@click.option("-m", "--message", metavar="TEXT", help="The text of the message that announces the file.")
@click.option("--persistent", is_flag=True, help="Keep the file at the broker until it is deleted.")
@click.option(
    "--id",
    "client_message_id",
    metavar="ID",
    help="Your own client_message_id. Repeated sends with the same id arrive once.",
)
@click.option("--wait", is_flag=True, help="Wait until the broker has the file. Always on a terminal.")
@mesh_option
@json_option
@answers.others("With --wait: the same fields once a second, and a last line when the broker has the file.")
@answers.lines(**_SENDING)
def send(
    path: Path,
    to: str,
    message: str | None,
    persistent: bool,
    client_message_id: str | None,
    wait: bool,
    mesh: str | None,
    as_json: bool,
) -> None:
    """Send a file to a member, a topic or a queue.

    PATH is a file, TO a member's name or public key, #TOPIC or queue:NAME. Pack a directory first, for
    example with tar. Exit code 0 means that an encrypted copy is on this host's disk: the file may change or
    vanish, and an upload that is interrupted resumes by itself. Ctrl-C ends only the display.

    \b
    Examples:
      claudemesh file send build.log alice -m 'the log of v42'
      claudemesh file send dist.tar.gz '#releases' --persistent
      claudemesh file send core.gz alice --wait --json
    """
    client = LocalClient(mesh)
    given = {"message": message, "client_message_id": client_message_id, "persistent": persistent or None}
    fields = {name: value for name, value in given.items() if value is not None}
    answer = client.post("/v1/file/share", {"path": str(path.absolute()), "to": to, **fields})
    progress = _Progress(answer["name"], as_json=as_json)
    line = {**answer, "sent": 0, "error": None}
    _print_sending(line, as_json=as_json)
    if not wait and (as_json or not sys.stderr.isatty()):
        return
    while line["state"] not in _OVER:
        _rest()
        found = _shared(client, answer["file_id"])
        line |= {"state": found["state"], "error": found["error"], "sent": found["sent"] or line["sent"]}
        if line["state"] == "shared":
            line["sent"] = line["size"]
        if as_json:
            output.print_json(_only(line, _SENDING))
        progress.tell(line["error"])
        progress.show(line["sent"], line["size"])
    progress.end()
    if line["state"] != "shared":
        raise ExitWith(UNAVAILABLE, f"file_{line['state']}", line["error"] or "The file was deleted.")


@file.command()
@click.argument("file_id", metavar="ID", type=FileId())
@click.option(
    "--out",
    metavar="PATH",
    default=".",
    help="A directory, or a file to create. `-` is standard output. Default: this directory.",
)
@click.option(
    "--message",
    "message_id",
    metavar="ID",
    help="The message that announces the file, when several members announce the same id.",
)
@mesh_option
@json_option
@answers.lines(**_FETCHING)
def get(file_id: str, out: str, message_id: str | None, mesh: str | None, as_json: bool) -> None:
    """Fetch a file that a message has announced.

    ID is the file_id that `claudemesh file list` shows. Everything is verified before the file gets its name,
    and no file is ever replaced. A download that is interrupted resumes with the same command. After Ctrl-C
    the daemon goes on with it. One to standard output is kept in the temporary directory until then.

    \b
    Examples:
      claudemesh file get 01HZ0000000000000000000000
      claudemesh file get 01HZ0000000000000000000000 --out logs/v42.log
      claudemesh file get 01HZ0000000000000000000000 --out - | tar tz
    """
    client = LocalClient(mesh)
    wanted = {"id": file_id} if message_id is None else {"id": file_id, "message_id": message_id}
    if out != "-":
        target = str(Path(out).absolute()) + ("/" if out.endswith("/") else "")
        answer = _fetch(client, {**wanted, "out": target}, as_json=as_json)
        check_seen(answer["path"])
        if not as_json:
            output.say(answer["path"])
        return
    if as_json:
        raise click.UsageError("--json and --out - both write to standard output. Leave one of them out.")
    _print_file(client, wanted)


@file.command("list")
@click.option("--sent", is_flag=True, help="The files that this host shares, with their state.")
@mesh_option
@json_option
@answers.items("FileItem")
def list_files(sent: bool, mesh: str | None, as_json: bool) -> None:
    """List the files that messages have announced to this host, newest first.

    \b
    Examples:
      claudemesh file list
      claudemesh file list --sent
      claudemesh file list --json | jq -r '.items[].file_id'
    """
    direction = "out" if sent else "in"
    items = LocalClient(mesh).items("/v1/file/list", direction=direction)
    if as_json:
        output.print_items(items)
        return
    party, when = ("to", "created_at") if sent else ("sender_name", "received_at")
    size, shown = Column("size", "bytes"), ("file_id", "name", "size", "state", party, when, "error")
    output.table(
        (Column("file_id", is_key=True), "name", size, "state", party, when, Column("error", "body")),
        [[item[name] for name in shown] for item in items],
    )


@file.command()
@click.argument("file_id", metavar="ID", type=FileId())
@mesh_option
@json_option
@answers.action("FileDeleted")
def delete(file_id: str, mesh: str | None, as_json: bool) -> int:
    """Delete a file that this host shares. Copies that members have fetched stay.

    ID is the file_id that `claudemesh file list --sent` shows. The message of a file that is still on its way
    does not leave.

    \b
    Examples:
      claudemesh file delete 01HZ0000000000000000000000
    """
    answer = LocalClient(mesh).post("/v1/file/delete", {"id": file_id})
    return output.print_answer(as_json, answer, f"deleted {file_id}")


def _print_sending(line: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(_only(line, _SENDING))
    else:
        output.say(f"queued {line['file_id']}" if line["state"] != "shared" else f"shared {line['file_id']}")


def _fetch(client: LocalClient, wanted: dict[str, str], *, as_json: bool) -> dict[str, Any]:
    """Ask until the file is there. Print a line a second, or show the progress on a terminal."""
    progress = _Progress(wanted["id"], as_json=as_json)
    while True:
        answer = client.post("/v1/file/get", {**wanted, "wait_ms": _WAIT_MS})
        line = {"received": answer["size"], "path": None, **answer}
        if as_json:
            output.print_json(_only(line, _FETCHING))
        progress.show(line["received"], line["size"])
        if answer["status"] == "done":
            progress.end()
            return answer


def _print_file(client: LocalClient, wanted: dict[str, str]) -> None:
    """Fetch a file into a private directory, and print it."""
    # Imported here: only `-` needs it.
    import shutil

    from claudemesh.cli.piped_file import empty, kept_folder

    with kept_folder(str(client.path), *wanted.values()) as folder:
        asked = {**wanted, "out": str(folder)}
        try:
            answer = _fetch(client, asked, as_json=False)
        except ApiError as error:
            if error.code != "file_exists":
                raise
            # A command that was cut has left the whole file. It is fetched again, as it may have changed.
            empty(folder)
            answer = _fetch(client, asked, as_json=False)
        check_seen(answer["path"])
        with Path(answer["path"]).open("rb") as content:
            shutil.copyfileobj(content, sys.stdout.buffer, 1 << 20)
        sys.stdout.buffer.flush()


def check_seen(path: str) -> None:
    """Raise `ExitWith` for a fetched file that is not there for this program."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        text = (
            f"The daemon has written {path}, but sees another directory there than this program: its service "
            "has its own /tmp (PrivateTmp=), or it is in a container. Fetch the file into another directory."
        )
        raise ExitWith(UNAVAILABLE, "private_directory", text) from None
    except OSError:
        # It is there, as far as this user may know.
        return


def _shared(client: LocalClient, file_id: str) -> dict[str, Any]:
    """Return a file that this host shares. It is among the newest."""
    after: str | None = None
    while True:
        page = client.get("/v1/file/list", direction="out", after=after)
        for item in page["items"]:
            if item["file_id"] == file_id:
                found: dict[str, Any] = item
                return found
        after = page["next"]
        if after is None:
            raise ExitWith(UNAVAILABLE, "not_found", f"The daemon knows no file {file_id} any more.")


def _only(line: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {name: line[name] for name in names}


def _rest() -> None:
    # Imported here: only a command that waits needs it.
    import time

    time.sleep(_WAIT_MS / 1000)


class _Progress:
    """One line on a terminal that is written again and again; nothing elsewhere."""

    def __init__(self, name: str, *, as_json: bool) -> None:
        self._name = name
        self._is_told = not as_json
        self._is_shown = not as_json and sys.stderr.isatty()
        self._has_line = False
        self._told: str | None = None

    def tell(self, error: str | None) -> None:
        """Write the cause of a wait on a line of its own, once."""
        if not self._is_told or error == self._told:
            return
        self._told = error
        if error is None:
            return
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
        output.note(error)

    def show(self, done: int, total: int) -> None:
        """Show the bytes of a transfer."""
        if not self._is_shown:
            return
        pct = 100 * done // total if total else 100
        sys.stderr.write(f"\r\x1b[K{output.safe(self._name)}  {pct} %  {done} of {total} bytes")
        sys.stderr.flush()
        self._has_line = True

    def end(self) -> None:
        """End the line."""
        if self._has_line:
            sys.stderr.write("\n")
