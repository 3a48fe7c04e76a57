"""Received messages as rows of a table, and one message in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from claudemesh.cli import output
from claudemesh.cli.display import display
from claudemesh.cli.next_commands import command
from claudemesh.cli.output import Column, Listing
from claudemesh.cli.table import Kind
from claudemesh.cli.threads import Threads
from claudemesh.client.local import LocalClient
from claudemesh.runtime.destinations import spell_destination

_SEALED = "(encrypted for a key that is not on this host yet; the text is shown when the key arrives)"
UNREADABLE = "(not readable: the sender has sealed it with another key than that of the topic)"


def text_of(item: Mapping[str, Any]) -> str:
    """Return the text of a message for display, or the reason for which there is none."""
    if item["body"] is None:
        return UNREADABLE if item.get("unreadable") else _SEALED
    return str(item["body"])


def text_in_list(item: Mapping[str, Any]) -> str:
    """Return the text of a message for a list, and the names of its files.

    That of a long text says that it is the beginning.
    """
    # A daemon of an older version does not tell the files.
    files = ", ".join(file["name"] for file in item.get("attachments", ()))
    text = f"{text_of(item)} [file: {files}]".lstrip() if files else text_of(item)
    if not item.get("body_truncated"):
        return text
    size = f"cut: the text has {item['body_bytes']} bytes"
    if item.get("own"):
        return f"{text} [{size}]"
    shown = command("inbox", "show", str(item.get("seq") or item["broker_message_id"]))
    return f"{text} [{size}; `{shown}` prints all of it]"


def note_cut(item: Mapping[str, Any]) -> None:
    """Print that a text is not whole, if it could not be fetched."""
    if item.get("body_truncated"):
        output.note(
            f"This is the beginning of a text of {item['body_bytes']} bytes. The rest could not be fetched: "
            "show the message again when the daemon is connected (`claudemesh status`). The broker keeps it "
            "for at most 30 days: ask the sender for an older one."
        )


class MessageList:
    """A list of messages: a table, or one object a line for --json."""

    def __init__(self, client: LocalClient, *, as_json: bool, is_followed: bool) -> None:
        self._as_json = as_json
        self._threads = Threads(client)
        # A time relative to now would soon be wrong in a list that goes on.
        kind: Kind = "time" if is_followed else "age"
        self._listing = Listing(
            (
                Column("id", "number", is_key=True),
                "from",
                "to",
                Column("sent", kind),
                Column("received", kind),
                Column("re"),
                Column("message", "body"),
            )
        )

    def add(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Print messages."""
        if self._as_json:
            for item in items:
                output.print_json(item)
            return
        self._threads.learn(items)
        self._listing.add([self._row(item) for item in items])

    def _row(self, item: Mapping[str, Any]) -> tuple[object, ...]:
        return (
            item["seq"],
            item["sender_name"],
            _destination(item),
            # A daemon of an older version does not tell it.
            item.get("sent_at"),
            item["received_at"],
            self._threads.mark(item),
            text_in_list(item),
        )


def show_message(client: LocalClient, item: Mapping[str, Any]) -> None:
    """Print a message in full: its fields, and its text as it is."""
    threads = Threads(client)
    if not display.quiet:
        output.fields({name: value for name, value in _fields(item, threads).items() if value})
        output.say("")
    output.body(text_of(item))
    note_cut(item)


def note_empty(client: LocalClient) -> None:
    """Print why an inbox may be empty, and what fills it."""
    output.note("The inbox is empty. A post to a topic does not come back to its sender.")
    own = client.get("/v1/whoami")
    if len(client.items("/v1/peers")) > 1:
        output.note("next: claudemesh outbox")
        return
    output.note(f"{own['name']} is the only member of mesh {own['mesh']}.")
    output.note(f"next: {command('send', own['name'], 'hello')}")
    output.note("next: claudemesh invite create")


def _fields(item: Mapping[str, Any], threads: Threads) -> dict[str, object]:
    return {
        "id": f"{item['seq']} ({item['id']})",
        "from": item["sender_name"],
        "to": _destination(item),
        "sent": output.moment(item.get("sent_at"), ""),
        "received": output.moment(item["received_at"]),
        "acknowledged": output.moment(item["acked_at"], "no"),
        "reply to": _answered(item, threads),
        "replies": ", ".join(map(str, threads.replies(item["broker_message_id"]))),
        "priority": item["priority"],
        "meta": item["meta"] and orjson.dumps(item["meta"]).decode(),
        # A daemon of an older version does not tell it.
        "files": ", ".join(map(_file, item.get("attachments", ()))),
    }


def _file(file: Mapping[str, Any]) -> str:
    return f"{file['name']} ({file['size']} bytes, claudemesh file get {file['file_id']})"


def _answered(item: Mapping[str, Any], threads: Threads) -> str:
    mark = threads.mark(item)
    own = threads.own_send(item["reply_to_id"]) if mark == "you" else None
    return mark if own is None else f"your send {own['client_message_id']}"


def _destination(item: Mapping[str, Any]) -> str:
    if not item["topic"]:
        return "you"
    mention = " @you" if item["mentioned"] else ""
    return f"{spell_destination(item['kind'], item['topic'])}{mention}"
